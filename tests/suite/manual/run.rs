//! One block, run as its language and its comment ask for.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::pages::Block;
use crate::sandboxes::sandbox;
use crate::support::{CLAIMFS, Guard, Mount, TempDir, is_root, plain, skip, text};

/// How long a block may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Commands that are the reader's, not claimfs's. They do nothing, and succeed.
const STAND_INS: [&str; 9] = [
    "make", "deploy", "serve", "work", "worker", "agent", "backup", "edit", "bd",
];

/// A fresh machine for a block that mounts by itself: nothing is mounted that was mounted before,
/// and no file that it leaves outside of its temporary directory is there afterwards. A mount of
/// another test may vanish before it is unmounted here.
const MACHINE: &str = "mount --make-rprivate /
while mounted=$(findmnt --noheadings --raw --output TARGET --types fuse.claimfs | head -n 1)
    [ -n \"$mounted\" ]; do umount -l \"$(printf '%b' \"$mounted\")\" 2> /dev/null || :; done
mount -t tmpfs none \"$LAYERS\"
for dir in /etc /usr /var/lib; do
    layer=$LAYERS$dir; mkdir -p \"$layer/upper\" \"$layer/work\"
    mount -t overlay -o lowerdir=$dir,upperdir=$layer/upper,workdir=$layer/work none $dir
done
mount -t tmpfs none /run
ln -sf \"$(command -v claimfs)\" /usr/local/bin/claimfs
cd \"$REPOSITORY\"
exec \"$@\"";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program that a language needs.
fn tool(language: &str) -> &str {
    match language {
        "python" => "python3",
        "js" => "node",
        "rust" => "rustc",
        "c" => "cc",
        language => language,
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// The reason why a block cannot run on this machine.
fn lacks(block: &Block) -> Option<String> {
    let needs = block.needs.iter().map(String::as_str);
    let needs = needs.chain([tool(&block.language)]);
    let alone = block.is_alone.then_some("root");
    needs.chain(alone).find_map(|need| match need {
        "root" => (!is_root()).then(|| "only root can run it".to_owned()),
        "root-tree" => (!is_installed("busybox")).then(|| "busybox is not installed".to_owned()),
        program => (!is_installed(program)).then(|| format!("{program} is not installed")),
    })
}

/// Whether a block can be run on this machine, or else the reason is reported.
pub fn is_possible(block: &Block) -> bool {
    let reason = lacks(block);
    if let Some(reason) = &reason {
        skip(&format!("src/manual/{}: {reason}", block.place()));
    }
    reason.is_none()
}

/// Runs a block, if it is one that is run here. The error is what it said.
pub fn run(block: &Block) -> Result<(), String> {
    if block.reason.is_some() || !is_possible(block) {
        return Ok(());
    }
    let temp = TempDir::new();
    let mut command = command(block, temp.path())?;
    let mount = if block.is_alone { None } else { Mount::new() };
    if let Some(mount) = &mount {
        command.current_dir(&mount.dir);
        command.env("CLAIMFS_MOUNT", &mount.dir);
    }
    environment(&mut command, temp.path());
    if block.needs.iter().any(|need| need == "root-tree") {
        let root = temp.path().join("root");
        fs::create_dir(&root).unwrap();
        sandbox::furnish(&root);
        command.env("ROOT", &root);
        command.env("CLAIMS_ENGINE", root.join("podman"));
    }
    finish(&mut command, temp.path())
}

/// The command that runs a block; a program that must be compiled is compiled.
pub fn command(block: &Block, temp: &Path) -> Result<Command, String> {
    let language = block.language.as_str();
    let source = temp.join(format!("block.{language}"));
    fs::write(&source, &block.code).unwrap();
    let program = temp.join("block");
    let mut compiler = Command::new(tool(language));
    match language {
        "go" => _ = compiler.args(["build", "-o"]).arg(&program),
        "rust" => _ = compiler.args(["--edition", "2024", "-o"]).arg(&program),
        "c" => _ = compiler.args(["-Wall", "-Werror", "-o"]).arg(&program),
        _ => {
            let shell = ["sh", "bash"].contains(&language).then_some("-e");
            let mut words = vec![tool(language).to_owned()];
            words.extend(shell.map(str::to_owned));
            words.push(source.display().to_string());
            return Ok(started(block, &words));
        }
    }
    let output = compiler.arg(&source).current_dir(temp).output().unwrap();
    if !output.status.success() {
        return Err(format!("it does not compile: {:?}", text(&output)));
    }
    Ok(started(block, &[program.display().to_string()]))
}

/// The command of these words, on a machine of its own if the block asks for one.
fn started(block: &Block, words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    if block.is_alone {
        command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
            .args(["sh", "-ec", MACHINE, "machine"])
            .arg(&words[0]);
    }
    command.args(&words[1..]);
    command
}

/// The variables that a block may use, and the programs that it finds.
pub fn environment(command: &mut Command, temp: &Path) {
    let (home, bin) = (temp.join("home"), temp.join("bin"));
    for dir in ["home", "home/runtime", "layers", "bin"] {
        fs::create_dir(temp.join(dir)).unwrap();
    }
    for name in STAND_INS {
        let path = bin.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let claimfs = Path::new(CLAIMFS).parent().unwrap().to_owned();
    let ours = [bin, claimfs, repository().join("mount-scripts")];
    let path = std::env::var("PATH").unwrap();
    let all: Vec<PathBuf> = ours
        .into_iter()
        .chain(std::env::split_paths(&path))
        .collect();
    command
        .env("PATH", std::env::join_paths(all).unwrap())
        .env("REPOSITORY", repository())
        .env("LAYERS", temp.join("layers"))
        .env("XDG_RUNTIME_DIR", home.join("runtime"))
        .env("HOME", home)
        .env_remove("RUST_LOG");
    for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    if command.get_envs().all(|(name, _)| name != "CLAIMFS_MOUNT") {
        command.env_remove("CLAIMFS_MOUNT");
    }
    plain(command);
}

/// Runs the command to its end, or to the limit.
fn finish(command: &mut Command, temp: &Path) -> Result<(), String> {
    let said = temp.join("said");
    let output = fs::File::create(&said).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let mut child = Guard::spawn(command);
    let group = child.0.id() as i32;
    let deadline = Instant::now() + LIMIT;
    let mut status = child.0.try_wait().unwrap();
    while status.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
        status = child.0.try_wait().unwrap();
    }
    // What it left running: it began a process group.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    let mut text = String::new();
    let mut said = fs::File::open(&said).unwrap();
    said.read_to_string(&mut text).unwrap();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{status}\n{text}")),
        None => Err(format!("it takes more than {} s\n{text}", LIMIT.as_secs())),
    }
}
