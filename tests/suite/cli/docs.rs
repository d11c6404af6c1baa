//! Runs every command and checks every promise that the documentation prints.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::try_it;
use crate::support::{
    CLAIMFS, Guard, Mount, TempDir, can_mount, names, plain, root_or_skip, skip, text, unmount,
    wait_until,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).unwrap()
}

/// A page of the manual.
fn page(topic: &str) -> String {
    let file = format!("src/manual/{topic}.md");
    fs::read_to_string(repository().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The lines of the first block of a kind after a mark.
fn block(text: &str, mark: &str, fence: &str) -> Vec<String> {
    let after = text
        .split_once(mark)
        .unwrap_or_else(|| panic!("no {mark}"))
        .1;
    let block = after
        .split_once(&format!("```{fence}\n"))
        .unwrap()
        .1
        .split_once("```")
        .unwrap()
        .0;
    block.lines().map(str::to_owned).collect()
}

/// Removes the state directory that a mount says it logs to, which for root is the default one.
fn forget_state(said: &str) {
    let log = said
        .lines()
        .find_map(|line| Some(Path::new(line.split_once("its log is ")?.1)));
    let state = log
        .and_then(Path::parent)
        .unwrap_or_else(|| panic!("no log is named: {said}"));
    if crate::support::is_root() {
        assert_eq!(state.parent(), Some(Path::new("/var/lib/claimfs")));
    }
    fs::remove_dir_all(state).unwrap();
}

#[test]
fn the_readme_has_at_most_130_lines_and_all_that_it_links_to_is_there() {
    let text = readme();
    assert!(text.lines().count() <= 130, "{}", text.lines().count());
    for link in text.split("](").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(repository().join(target).exists(), "{target}");
    }
}

#[test]
fn the_story_of_the_readme_goes_as_it_shows() {
    if !can_mount() {
        return;
    }
    let lines = block(&readme(), "# claimfs", "console");
    let temp = TempDir::new();
    let dir = temp.path().join("claims-demo");
    let mut script = String::new();
    for command in lines.iter().filter_map(|line| line.strip_prefix("$ ")) {
        script.push_str(&command.replace("/tmp/claims-demo", dir.to_str().unwrap()));
        script.push('\n');
        if command.ends_with('&') {
            // A person who types is slow enough.
            script.push_str("until [ -e claims/repo ]; do :; done\n");
        }
    }
    script.push_str(&format!("cd /; claimfs umount {}\n", dir.display()));
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{{ {script}}} 2>&1"));
    command
        .env("PATH", path_with_claimfs())
        .env_remove("CLAIMFS_MOUNT")
        .env("XDG_STATE_HOME", temp.path().join("state"));
    plain(&mut command);
    let output = command.stdin(Stdio::null()).output().unwrap();
    unmount(&dir);
    let output = String::from_utf8(output.stdout).unwrap();
    forget_state(&output);
    let is_shown = |line: &&str| !line.starts_with("claimfs: mounted on") && *line != "Killed";
    let got: Vec<&str> = output.lines().filter(is_shown).collect();
    let shown = lines.iter().filter(|line| !line.starts_with("$ "));
    let shown: Vec<&String> = shown.collect();
    assert_eq!(got.len(), shown.len(), "{output}");
    let refusal = "cannot create claims/repo: File exists";
    assert!(got[0].contains(refusal), "{output}");
    assert!(shown[0].ends_with(refusal), "{shown:?}");
    assert_eq!((got[1], shown[1].as_str()), ("mine", "mine"));
}

/// `$PATH`, with the claimfs that is tested in front.
fn path_with_claimfs() -> String {
    let bin = Path::new(CLAIMFS).parent().unwrap().display();
    format!("{bin}:{}", std::env::var("PATH").unwrap())
}

/// The commands of the table of recipes in the README, in its order.
fn recipes() -> Vec<String> {
    let text = readme();
    let table = text.split_once("| you have | do this |").unwrap().1;
    let table = table.split_once("\n\n").unwrap().0;
    let commands = table.split('`').skip(1).step_by(2);
    let is_command = |code: &&str| code.contains(' ');
    commands.filter(is_command).map(str::to_owned).collect()
}

#[test]
fn each_recipe_of_the_readme_takes_what_it_says() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::new();
    for program in ["deploy.sh", "worker", "agent", "make", "job.sh"] {
        let path = temp.path().join(program);
        let script = "#!/bin/sh\necho ${CLAIMFS_CLAIM:-$(claimfs claim x)}\n";
        fs::write(&path, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
    }
    let run = |recipe: &str| {
        let recipe = recipe.replace("/run/claims", mount.dir.to_str().unwrap());
        let path = format!("{}:{}", temp.path().display(), path_with_claimfs());
        let mut shell = mount.sh(&format!("{recipe}; cat $CLAIMFS_MOUNT/leases"));
        let shell = shell.current_dir(temp.path()).env("PATH", path);
        let (code, out, err) = text(&shell.env("CLAIMFS_MOUNT", &mount.dir).output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{recipe}: {out}");
        out
    };
    let here = fs::canonicalize(temp.path()).unwrap();
    let paths = format!("\"name\":\"paths{}/docs\"", here.display());
    let expected = [
        ("claimfs run deploy --wait", "deploy\n"),
        ("CLAIMFS_SESSION=w1 ./worker", "taken by session w1"),
        ("claimfs claim repo", "\"name\":\"repo\""),
        (
            "claimfs setup claude-code --write",
            "settings.json: written",
        ),
        ("claimfs session run --id w1", "taken by session w1"),
        ("claimfs session run --id job-1", "taken by session job-1"),
        ("claimfs claim deploy --wait", "\"name\":\"deploy\""),
        ("claimfs reserve ", paths.as_str()),
        ("claimfs run --any build@1..4", "build@1\n"),
    ];
    let recipes = recipes();
    assert_eq!(recipes.len(), expected.len(), "{recipes:?}");
    for (recipe, (begins, says)) in recipes.iter().zip(expected) {
        assert!(recipe.starts_with(begins), "{recipe}");
        let out = run(recipe);
        assert!(out.contains(says), "{recipe}: {out}");
    }
}

/// A code and its meaning, from words such as `0 done`.
fn code(words: &str) -> Option<(u8, String)> {
    let (code, meaning) = words.trim().split_once(' ')?;
    let meaning: Vec<&str> = meaning.split_whitespace().collect();
    Some((code.parse().ok()?, meaning.join(" ")))
}

#[test]
fn the_exit_codes_of_the_readme_the_help_and_the_manual_agree() {
    let (_, help, _) = text(&Command::new(CLAIMFS).arg("--help").output().unwrap());
    let (_, help) = help.split_once("Exit codes:\n").unwrap();
    let help: Vec<(u8, String)> = help.lines().map_while(code).collect();
    let codes: Vec<u8> = help.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4]);
    let (commands, readme) = (page("commands"), readme());
    let (_, table) = commands
        .split_once("| code | means |\n|---|---|\n")
        .unwrap();
    let row = |row: &str| code(&row.replace('|', " "));
    let manual: Vec<(u8, String)> = table.lines().map_while(row).collect();
    assert_eq!(manual, help);
    // The README only begins each sentence.
    let (_, sentence) = readme.split_once("Exit codes: ").unwrap();
    let (sentence, _) = sentence.split_once('.').unwrap();
    let short: Vec<(u8, String)> = sentence.split(';').filter_map(code).collect();
    assert_eq!(short.len(), manual.len(), "{sentence}");
    for ((code, short), (same, long)) in short.iter().zip(&manual) {
        assert!(
            code == same && long.starts_with(short.as_str()),
            "{short}, {long}"
        );
    }
}

#[test]
fn the_first_of_the_two_commands_plays_the_story() {
    if !can_mount() {
        return;
    }
    let command = block(&readme(), "<!-- story-command -->", "sh");
    assert_eq!(command, ["mount-scripts/try-it"]);
    let temp = TempDir::new();
    let dir = temp.path().join("claims-demo");
    let mut story = Command::new("sh");
    story
        .arg("-c")
        .arg(format!("{} '{}' 2>&1", command[0], dir.display()))
        .current_dir(repository());
    // Built where this test is, with what is built already.
    let target = Path::new(CLAIMFS).parent().unwrap().parent().unwrap();
    story
        .env("CARGO_TARGET_DIR", target)
        .env("XDG_STATE_HOME", temp.path().join("state"));
    plain(&mut story);
    let output = story.stdin(Stdio::null()).output().unwrap();
    unmount(&dir);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    try_it::assert_told(&said);
    assert!(!dir.exists(), "it cleans up after itself");
}

#[test]
fn the_second_of_the_two_commands_runs_these_tests() {
    assert_eq!(
        block(&readme(), "<!-- test-command -->", "sh"),
        ["cargo test"]
    );
}

#[test]
fn the_commands_of_the_manual_exist() {
    let (_, help, _) = text(&Command::new(CLAIMFS).arg("--help").output().unwrap());
    let text = page("commands");
    let table = text
        .split_once("| command | does |")
        .unwrap()
        .1
        .split_once("\n\n")
        .unwrap()
        .0;
    let mut verbs = 0;
    for word in table.split("`claimfs ").skip(1) {
        let verb = word.split([' ', '`']).next().unwrap();
        assert!(
            help.lines()
                .any(|line| line.trim_start().starts_with(&format!("{verb} "))),
            "{verb}"
        );
        verbs += 1;
    }
    assert_eq!(verbs, 22);
}

#[test]
fn help_reads_well_at_80_columns() {
    for verb in [
        &[][..],
        &["mount"],
        &["umount"],
        &["upgrade"],
        &["claim"],
        &["release"],
        &["reserve"],
        &["unreserve"],
        &["hook"],
        &["setup"],
        &["break"],
        &["give"],
        &["wait"],
        &["run"],
        &["events"],
        &["ls"],
        &["show"],
        &["whoami"],
        &["session"],
        &["session", "run"],
        &["session", "ls"],
        &["session", "end"],
        &["doctor"],
        &["completions"],
        &["help"],
    ] {
        let output = Command::new(CLAIMFS)
            .args(verb)
            .arg("--help")
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        let (code, help, _) = text(&output);
        assert_eq!(code, 0);
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{verb:?}: {line}");
        }
    }
}

#[test]
fn the_manual_of_the_mount_is_short_and_lists_its_files() {
    let Some(mount) = Mount::new() else { return };
    let manual = mount.read("README");
    assert!(
        manual.lines().count() < 60,
        "{} lines",
        manual.lines().count()
    );
    for line in manual.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let files = manual.split_once("FILES\n").unwrap().1;
    let mut listed: Vec<&str> = files
        .lines()
        .map(|line| {
            line.split_whitespace()
                .next()
                .unwrap()
                .trim_end_matches('/')
        })
        .collect();
    listed.push("README");
    listed.sort_unstable();
    let mut there = names(&mount.dir);
    // A file without an end is found by its name, and not listed.
    assert!(mount.path("events").exists() && !there.contains(&String::from("events")));
    there.push(String::from("events"));
    there.sort_unstable();
    assert_eq!(listed, there);
    let text = page("semantics");
    for file in &listed {
        assert!(
            text.contains(&format!("├── {file}")) || text.contains(&format!("└── {file}")),
            "{file}"
        );
    }
}

#[test]
fn what_the_manual_tells_works_as_it_tells_it() {
    let Some(mount) = Mount::new() else { return };
    let manual = mount.read("README");
    for command in [
        "set -C; echo $$ > claims/repo || exit; work; rm claims/repo",
        "set -C; echo > claims/NAME",
        "cat claims/NAME; cat leases",
        "cat queue/NAME && { work; rm claims/NAME; }",
        "claimfs run NAME --wait -- COMMAND",
        "claimfs run --any NAME@1..4 --wait -- COMMAND",
        "claimfs give NAME SESSION",
        "claimfs claim NAME --ttl 30s",
        "echo '{\"ttl\":\"30s\"}' > claims/NAME",
        "rm claims/NAME",
        "mv claims/OLD claims/NEW",
        "cat self",
        "echo $$ > sessions/ID",
        "claimfs session run --id ID -- COMMAND",
        "CLAIMFS_SESSION=ID ./worker",
        "rm sessions/ID",
        "CLAIMFS_SESSION=w1 touch claims/x",
        r#"echo '{"claim":["A","B"]}' > control"#,
        "claimfs break NAME",
        "claimfs reserve FILE DIR...; claimfs unreserve FILE DIR...",
    ] {
        assert!(
            manual.contains(command),
            "the manual no longer says: {command}"
        );
    }
    let recipe = "set -C; echo $$ > claims/repo || exit; work; rm claims/repo";
    mount.run(&format!("work() {{ [ -e claims/repo ]; }}; {recipe}"));
    let script = "set -e; set -C; echo > claims/NAME; cat claims/NAME; ls claims; cat leases; rm claims/NAME;
        echo > claims/OLD; mv claims/OLD claims/NEW; ls claims; rm claims/NEW; cat self;
        echo $$ > sessions/ID; cat self; echo > claims/x; rm sessions/ID; ls claims";
    let out = mount.run(script);
    let lines: Vec<&str> = out.lines().collect();
    assert!(manual.contains(r#"{"name","session","token","pid","command","uid","acquired_at"}"#));
    let keys: Value = serde_json::from_str(lines[0]).unwrap();
    let keys: Vec<&String> = keys.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "name",
            "session",
            "token",
            "pid",
            "command",
            "uid",
            "acquired_at",
            "scope"
        ]
    );
    assert_eq!((lines[1], lines[4]), ("NAME", "NEW"));
    let head: Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!(
        (head["leases"].clone(), head["seq"].is_u64()),
        (1.into(), true)
    );
    assert!(
        lines[5].contains("\"rule\":\"posix\"") && lines[6].contains("\"rule\":\"registered\""),
        "{out}"
    );
    assert_eq!(&lines[7..], [""; 0]);
    let worker = "set -C; echo > claims/x; cat self; rm claims/x";
    let output = mount
        .sh(worker)
        .env("CLAIMFS_SESSION", "ID")
        .output()
        .unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("\"session\":\"ID\"")
    );
    let run = mount
        .claimfs(&["session", "run", "--id", "ID", "--", "cat", "self"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(run.stdout)
            .unwrap()
            .contains("\"session\":\"ID\"")
    );
    let turn =
        "work() { cat claims/NAME; }; cat queue/NAME && { work; rm claims/NAME; }; ls claims";
    assert!(mount.run(turn).starts_with("{\"name\":\"NAME\","));
    let deadline = "echo '{\"ttl\":\"30s\"}' > claims/NAME; tail -n 1 leases; rm claims/NAME";
    assert!(mount.run(deadline).contains("\"ttl\":30,\"expires_in\":"));
    let mut other = mount.actor(Some("SESSION"));
    other.claim("own").unwrap();
    for (arguments, says) in [
        (
            &["run", "NAME", "--wait", "--", "echo", "COMMAND"][..],
            "COMMAND\n",
        ),
        (
            &["run", "--any", "NAME@1..4", "--wait", "--", "echo", "ONE"],
            "ONE\n",
        ),
        (
            &[
                "run", "--all", "A", "--all", "B", "--wait", "--", "echo", "ALL",
            ],
            "ALL\n",
        ),
        (
            &["claim", "NAME", "--ttl", "30s"],
            "claims/NAME: taken by session ",
        ),
        (
            &["give", "NAME", "SESSION"],
            "claims/NAME: handed to session SESSION, token ",
        ),
    ] {
        let mut command = mount.claimfs(arguments);
        let output = command.env("CLAIMFS_SESSION", "me").output().unwrap();
        assert!(text(&output).1.starts_with(says), "{:?}", text(&output));
    }
    other.kill();
    // The traps that it warns of.
    let mut other = mount.actor(Some("other"));
    other.claim("x").unwrap();
    assert!(
        mount
            .run("CLAIMFS_SESSION=w1 head -n 1 queue/x")
            .starts_with("note: session w1 is this command alone")
    );
    other.unlink("claims/x").unwrap();
    assert_eq!(
        mount.run("CLAIMFS_SESSION=w1 touch claims/x; ls claims"),
        ""
    );
}

#[test]
fn what_the_manual_tells_of_waiting_and_watching_works_as_it_tells_it() {
    let Some(mount) = Mount::new() else { return };
    let text = page("waiting") + &page("semantics");
    for command in [
        "cat queue/NAME && { work; rm claims/NAME; }",
        "exec 3<events; cat leases; timeout 1 cat <&3",
        "claimfs claim a --ttl 30s",
        "CLAIMFS_SESSION=w1 cat queue/x",
        "{\"ttl\":NAME,\"seconds\":N}",
        "{\"give\":NAME,\"to\":SESSION}",
        "user.claimfs.ttl",
        "user.claimfs.session",
    ] {
        assert!(
            text.contains(command),
            "the manual no longer says: {command}"
        );
    }
    let out = mount.run(
        "exec 3<events; echo > claims/NAME; cat leases; timeout 0.5 cat <&3; \
         echo '{\"ttl\":\"NAME\",\"seconds\":30}' > control; tail -n 1 leases",
    );
    assert!(
        out.contains("\"event\":\"claimed\",\"claim\":\"NAME\"") && out.contains("\"ttl\":30"),
        "{out}"
    );
}

#[test]
fn the_paths_of_the_manual_are_reserved_and_given_back() {
    let Some(mount) = Mount::new() else { return };
    let commands = block(&page("paths"), "<!-- path-commands -->", "sh");
    assert_eq!(commands.len(), 4, "{commands:?}");
    let temp = TempDir::new();
    fs::create_dir_all(temp.path().join("src")).unwrap();
    fs::create_dir_all(temp.path().join("docs")).unwrap();
    let bin = Path::new(CLAIMFS).parent().unwrap().display();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let seen = |commands: &[String]| {
        let mut script = mount.sh(&(commands.join(" && ") + "; cat $CLAIMFS_MOUNT/leases"));
        script.current_dir(temp.path()).env("PATH", &path);
        script.env("CLAIMFS_MOUNT", &mount.dir);
        text(&script.output().unwrap())
    };
    let (_, out, err) = seen(&commands[..1]);
    for name in ["src/lexer.rs", "docs"] {
        let here = fs::canonicalize(temp.path()).unwrap();
        let name = here.join(name);
        let says = format!("{}: reserved by session ", name.display());
        assert!(out.contains(&says), "{out}{err}");
        let listed = format!("\"name\":\"paths{}\"", name.display());
        assert!(out.contains(&listed), "{out}");
    }
    assert_eq!(
        out.matches("\"reason\":\"rename tokens\"").count(),
        2,
        "{out}"
    );
    let (_, out, err) = seen(&commands);
    assert!(
        out.contains("\"leases\":0}") && err.is_empty(),
        "{out}{err}"
    );
    assert!(mount.path("paths/home/me/app").is_dir());
}

#[test]
fn the_lists_of_the_manual_take_what_it_says() {
    let Some(mount) = Mount::new() else { return };
    let commands = block(&page("commands"), "<!-- list-commands -->", "sh");
    let mut script = mount.sh(&commands.join("\n"));
    script
        .env("CLAIMFS_MOUNT", &mount.dir)
        .env("PATH", path_with_claimfs());
    let (code, out, err) = text(&script.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["build@1 1", "db port@8080 2 3"]);
    for (line, name) in lines[2..].iter().zip(["build@1", "db", "port@8080"]) {
        let says = format!("claims/{name}: taken by session ");
        assert!(line.starts_with(&says), "{line}");
    }
    assert_eq!(lines.len(), 5, "{out}");
}

#[test]
fn leases_names_the_event_sequence_that_it_reflects() {
    let Some(mount) = Mount::new() else { return };
    let seq = || -> u64 {
        let text = mount.read("leases");
        let head: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            head["leases"].as_u64().unwrap() as usize,
            text.lines().count() - 1
        );
        head["seq"].as_u64().unwrap()
    };
    assert_eq!(seq(), 0);
    let mut me = mount.actor(Some("me"));
    me.claim("x").unwrap();
    let first = seq();
    assert_eq!(
        first, 3,
        "a session started, a root joined, a name was claimed"
    );
    me.claim("y").unwrap();
    assert_eq!(seq(), first + 1);
}

#[test]
fn the_trap_of_an_export_is_as_the_manual_says() {
    let Some(mount) = Mount::new() else { return };
    let mut script = mount.sh("export CLAIMFS_SESSION=w1; echo > claims/x; cat claims/x; read x");
    let mut script = Guard::spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()));
    assert!(script.line().contains("\"session\":\"sid-"));
}

#[test]
fn the_recipe_for_scripts_in_the_readme_holds_the_name_until_the_script_ends() {
    let Some(mount) = Mount::new() else { return };
    let recipe = block(&readme(), "<!-- script-recipe -->", "sh").join("\n");
    let recipe = recipe.replace("/run/claims", mount.dir.to_str().unwrap());
    assert_eq!(recipe.matches("\nmake ").count(), 1, "{recipe}");
    let make = "make() { echo made; }\n";
    assert_eq!(mount.run(&format!("{make}{recipe}")), "made\n");
    assert_eq!(mount.claims(), [""; 0]);
    // Killed meanwhile: the next has it, though the command that it started goes on.
    let killed = "make() { sleep 1000 & echo $!; kill -9 $$; }\n";
    let mut script = mount.sh(&format!("{killed}{recipe}"));
    let mut script = Guard::spawn(script.stdout(Stdio::piped()).stderr(Stdio::null()));
    let left = script.line();
    script.0.wait().unwrap();
    assert_eq!(mount.run(&format!("{make}{recipe}")), "made\n");
    let left: i32 = left.trim().parse().unwrap();
    assert_eq!(unsafe { libc::kill(left, libc::SIGKILL) }, 0);
    // Refused: it does not get as far as its work.
    let mut holder = mount.actor(Some("w1"));
    holder.claim("repo").unwrap();
    let refused = mount.sh(&format!("{make}{recipe}")).output().unwrap();
    assert_eq!(refused.stdout, b"");
    assert!(!refused.status.success());
}

/// What a person would have to know who does not know which program makes which processes: a row of
/// the manual, and what comes of it, by a script that says which process holds `x` at the end, or
/// nothing.
struct Program {
    row: &'static str,
    needs: &'static str,
    script: &'static str,
    says: &'static str,
}

/// Says who holds x: this shell, another, nobody.
const WHOSE: &str = "whose() { case $(grep '\"name\":\"x\"' leases) in
    *'\"pid\":'$$,*) echo shell;; '') echo nobody;; *) echo other;; esac; }\n";

const PROGRAMS: &[Program] = &[
    Program {
        row: "`python3 -c \"open('claims/x','x')\"`",
        needs: "python3",
        script: "python3 -c \"open('claims/x','x')\"; whose",
        says: "shell",
    },
    Program {
        row: "that Python and its subprocesses;",
        needs: "python3",
        script: "python3 -c \"
import os, subprocess
open('claims/x','x')
subprocess.run('echo hi > claims/x', shell=True, check=True)
os.kill(os.getpid(), 9)\" 2> /dev/null; whose",
        says: "nobody",
    },
    Program {
        row: "`str(os.getpid())` written into it ties it to Python",
        needs: "python3",
        script: "python3 -c \"import os; open('claims/x','x').write(str(os.getpid()))\"; whose",
        says: "nobody",
    },
    Program {
        row: "`node -e \"fs.openSync('claims/x','wx')\"`",
        needs: "node",
        script: "node -e \"fs.openSync('claims/x','wx')\"; whose",
        says: "shell",
    },
    Program {
        row: "a prefork server, before it forks",
        needs: "python3",
        script: "python3 -c \"
import os, signal
open('claims/x','x')
if os.fork() == 0:
    open('claims/x','w').close()
    signal.alarm(2)
    os.kill(os.getppid(), 9)
    signal.pause()
os.wait()\" > /dev/null 2>&1; whose",
        says: "nobody",
    },
    Program {
        row: "a prefork server's worker",
        needs: "python3",
        script: "python3 -c \"
import os
if os.fork() == 0:
    open('claims/x','x')
    os._exit(0)
os.wait()
open('claims/x','w').close()\"; whose",
        says: "shell",
    },
    Program {
        row: "a worker that is killed frees it",
        needs: "python3",
        script: "python3 -c \"
import os
if os.fork() == 0:
    open('claims/x','x')
    os.kill(os.getpid(), 9)
os.wait()\"; whose",
        says: "nobody",
    },
    Program {
        row: "a program that calls `daemon(3)` later",
        needs: "setsid",
        script: "sh -c 'echo > claims/x; setsid sh -c \"rm claims/x\" 2> /dev/null & wait'; whose",
        says: "shell",
    },
    Program {
        row: "`setsid sh -c 'echo > claims/x; work'`",
        needs: "setsid",
        script: "setsid --wait sh -c 'echo > claims/x; test -e claims/x || exit'; whose",
        says: "nobody",
    },
    Program {
        row: "`sudo`, `ssh`, `script`, a tmux pane",
        needs: "script",
        script: "script -qec 'echo > claims/x; ls claims | grep -q x' /dev/null > /dev/null; whose",
        says: "nobody",
    },
    Program {
        row: "`nohup ./deploy.sh &`",
        needs: "nohup",
        script: "echo 'echo > claims/x; sleep 1000 & echo $! >&3; wait' > $deploy
sh -c 'nohup sh $deploy > /dev/null 2>&1 3> $deploy.pid & until [ -e claims/x ]; do :; done'
whose; until [ -s $deploy.pid ]; do :; done; kill $(cat $deploy.pid)
until [ $(whose) != other ]; do :; done; whose",
        says: "other\nshell",
    },
    Program {
        row: "`timeout 60 ./deploy.sh`",
        needs: "timeout",
        script: "timeout 0.5 sh -c 'echo > claims/x; exec sleep 1000'; whose",
        says: "nobody",
    },
    Program {
        row: "`docker exec`, `nsenter` into a sandbox",
        needs: "nsenter",
        script: "unshare --pid --fork --kill-child --mount-proc sleep 1000 & inside=
until inside=$(pgrep -P $!); do :; done
nsenter --target $inside --pid sh -c 'echo > claims/x'
grep -c \"\\\"pid\\\":$inside,\" leases; kill -9 $inside; wait; whose",
        says: "1\nnobody",
    },
];

#[test]
fn the_table_of_programs_in_the_manual_is_as_the_programs_are() {
    let Some(mount) = Mount::new() else { return };
    let (text, temp) = (page("sessions"), TempDir::new());
    for program in PROGRAMS {
        let Program {
            row,
            needs,
            script,
            says,
        } = program;
        assert!(text.contains(row), "the manual no longer says: {row}");
        let there = mount.run(&format!("command -v {needs} || :"));
        if there.is_empty() {
            skip(&format!("{needs} is not installed"));
            continue;
        }
        if *needs == "nsenter" && !root_or_skip("enter a pid namespace") {
            continue;
        }
        let deploy = temp.path().join("deploy.sh");
        let mut command = mount.sh(&format!("{WHOSE}{script}"));
        let output = command.env("deploy", deploy).output().unwrap();
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(said.trim(), *says, "{row}: {output:?}");
        wait_until("the shell's death frees it", || mount.claims().is_empty());
    }
}

#[test]
fn a_claim_below_another_user_ends_with_the_command() {
    if !root_or_skip("become another user") {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else {
        return;
    };
    let as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    // The directories of a test are its user's own, so it is entered first.
    let out = mount.run(&format!(
        "{as_nobody} sh -c 'echo > claims/x; tail -n 1 leases'; ls claims"
    ));
    assert!(
        out.contains("\"uid\":65534") && out.trim().ends_with('}'),
        "{out}"
    );
}
