//! The kernels that people have: Debian's 6.1 and 6.12, in virtual machines. `old_kernels/play` is
//! what is played there, `old_kernels/boot` plays it by hand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Guard, TempDir, packages, program_under_test, skip};

/// How long both may take together: some 25 s on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(120);

/// The results of `old_kernels/play` on both.
const SAME: &str = "\
ok it mounts
ok a name is claimed
ok another is refused
ok after a kill the next has it at the first try
ok it passes on to who goes on
ok who holds it releases it
ok the claim of a subshell passes
ok with its exit code
ok a sibling cannot remove it
ok nor can it claim it
ok the claim of a killed script is free
ok a pid file ends with its script
ok claimed: echo > a
ok claimed: mkdir a
ok claimed: ln -s me a
ok claimed: echo > b && mv -n b a && ! test -e b
ok rm releases
ok rmdir releases
ok nothing is left
ok self says where endings come from
ok doctor says where endings come from
ok doctor says what the death of a server is
ok the supervisor goes on
OPEN
ok what a living process holds is held still
ok by the same lease
ok the name is free to who comes next
ok and free once that is killed
ok doctor says that it is dead, and what to do
ok it is mounted again
ok what a living process holds is held after that
ok by that same lease
ok and free after that
ok it is unmounted
";

/// Before 6.9 what was open when a server died is dead.
const OPEN: [(&str, &str); 2] = [
    ("6.1", "ok what was open is dead"),
    ("6.12", "ok what was open goes on"),
];

struct Machine {
    console: PathBuf,
    boot: Guard,
    _dir: TempDir,
}

fn boot(script: &Path, kernels: &Path, version: &str, program: &Path) -> Machine {
    let dir = TempDir::new();
    let console = dir.path().join("console");
    let mut command = Command::new(script);
    command
        .arg(kernels)
        .arg(version)
        .arg(program)
        .arg(dir.path());
    let output = File::create(&console).unwrap();
    command.stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output);
    Machine {
        boot: Guard::spawn(&mut command),
        console,
        _dir: dir,
    }
}

#[test]
fn older_kernels_keep_every_promise_but_what_the_manual_says_of_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernels = root.join("target/kernels");
    let has = |program: &str| {
        let mut command = Command::new(program);
        let found = command.arg("--version").stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    for program in ["qemu-system-x86_64", "cpio", "strip"] {
        if !has(program) {
            skip(&format!("{program} is not installed"));
            return;
        }
    }
    if !OPEN
        .iter()
        .all(|(version, _)| kernels.join(version).join("vmlinuz").exists())
    {
        skip("tests/suite/lifecycle/old_kernels/fetch target/kernels has not fetched the kernels");
        return;
    }
    let script = root.join("tests/suite/lifecycle/old_kernels/boot");
    // The older one plays with the static binary, if that is built.
    let program = packages().map_or_else(program_under_test, |dir| dir.join("claimfs"));
    let programs = [program, program_under_test()];
    let machines = OPEN.iter().zip(&programs);
    let machines: Vec<Machine> = machines
        .map(|((version, _), program)| boot(&script, &kernels, version, program))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    for (mut machine, (version, open)) in machines.into_iter().zip(OPEN) {
        while machine.boot.0.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = fs::read(&machine.console).unwrap();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let is_step = |line: &&str| line.starts_with("ok ") || line.starts_with("not ok ");
        let steps: Vec<&str> = text.lines().filter(is_step).collect();
        let expected = SAME.replace("OPEN", open);
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(steps, expected, "{version}: {text}");
    }
}
