//! Completion scripts for shells, and the words that they complete.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{CLAIMFS, Mount, TempDir, plain, skip, text};

fn run(command: &mut Command) -> (i32, String, String) {
    text(&command.stdin(Stdio::null()).output().unwrap())
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = run(Command::new(CLAIMFS).args(["completions", shell]));
        assert!(
            code == 0 && out.contains("claimfs") && out.contains("umount"),
            "{shell}"
        );
    }
    assert_eq!(
        run(Command::new(CLAIMFS).args(["completions", "nonsense"])).0,
        2
    );
}

/// A mount on which w1 holds two claims and a reservation.
fn mount() -> Option<(Mount, crate::support::Actor)> {
    let mount = Mount::new()?;
    let mut holder = mount.actor(Some("w1"));
    for name in ["build@1", "build@2", "a name", "evil\n\u{1b}"] {
        holder.claim(name).unwrap();
    }
    holder.mkdir("paths/srv").unwrap();
    holder
        .open_mode("paths/srv/app", libc::O_CREAT | libc::O_WRONLY, 0o644)
        .unwrap();
    Some((mount, holder))
}

#[test]
fn complete_lists_names_sessions_and_mounts_that_a_terminal_can_show() {
    let Some((mount, _holder)) = mount() else {
        return;
    };
    let words = |kind: &str| {
        let (code, out, err) = run(&mut mount.claimfs(&["complete", kind]));
        assert_eq!((code, err.as_str()), (0, ""));
        let mut words: Vec<String> = out.lines().map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    assert_eq!(words("names"), ["a name", "build@1", "build@2"]);
    assert_eq!(
        words("leases"),
        ["a name", "build@1", "build@2", "paths/srv/app"]
    );
    assert_eq!(words("sessions"), ["w1"]);
    assert!(words("mounts").contains(&mount.dir.display().to_string()));
}

/// A shell that is there, with `claimfs` in its PATH, and a completion script at `$script`.
fn shell(mount: &Mount, temp: &TempDir, shell: &str, text: &str) -> Option<String> {
    if Command::new(shell).arg("--version").output().is_err() {
        skip(&format!("{shell} is not installed"));
        return None;
    }
    let script = temp.path().join("script");
    let (_, completions, _) = run(Command::new(CLAIMFS).args(["completions", shell]));
    std::fs::write(&script, completions).unwrap();
    let bin = Path::new(CLAIMFS).parent().unwrap().to_str().unwrap();
    let mut command = Command::new(shell);
    command.args(["-c", text]).current_dir("/");
    command
        .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()))
        .env("HOME", temp.path())
        .env("CLAIMFS_MOUNT", &mount.dir)
        .env("script", &script);
    plain(&mut command);
    let (code, out, err) = run(&mut command);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    Some(out)
}

#[test]
fn bash_completes_names_sessions_and_mounts() {
    let Some((mount, _holder)) = mount() else {
        return;
    };
    let temp = TempDir::new();
    // As the shell calls it: the words are split at @ and =, too.
    let ask = r#"
        . "$script"
        ask() {
            COMP_LINE="$1" COMP_POINT=${#1} COMPREPLY=()
            local cur="${1##*[[:space:]@=:]}" rest
            rest="${1%"$cur"}"
            read -ra COMP_WORDS <<< "${rest//@/ @ }"
            COMP_CWORD=${#COMP_WORDS[@]}
            COMP_WORDS+=("$cur")
            _claimfs_lists claimfs "$cur" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s|' "${COMPREPLY[@]}"; echo
        }
        ask 'claimfs claim b'
        ask 'claimfs show a'
        ask 'claimfs wait build@'
        ask 'claimfs give build@1 '
        ask 'claimfs session end w'
        ask 'claimfs claim --session w'
        ask 'claimfs run --any=bui'
        ask "claimfs --mount $CLAIMFS_MOUNT show paths"
        ask 'claimfs run x -- b'
        ask 'claimfs umount /'
        ask 'claimfs show --js'"#;
    let Some(said) = shell(&mount, &temp, "bash", ask) else {
        return;
    };
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..8],
        [
            "build@1|build@2|",
            "a\\ name|",
            "1|2|",
            "w1|",
            "w1|",
            "w1|",
            "build@1|build@2|",
            "paths/srv/app|",
        ],
        "{said}"
    );
    assert!(!lines[8].contains("build@1"), "{said}");
    assert!(lines[9].contains(&*mount.dir.to_string_lossy()), "{said}");
    assert_eq!(lines[10], "--json|", "{said}");
}

#[test]
fn fish_completes_names_sessions_and_mounts() {
    let Some((mount, _holder)) = mount() else {
        return;
    };
    let temp = TempDir::new();
    let ask = r#"
        source $script
        for line in 'claimfs claim b' 'claimfs give build@1 ' 'claimfs session end ' 'claimfs claim --session '
            complete -C $line | string replace -r '\t.*' ''
            echo .
        end
        complete -C "claimfs umount "
        complete -C "claimfs run x -- b""#;
    let Some(said) = shell(&mount, &temp, "fish", ask) else {
        return;
    };
    let parts: Vec<&str> = said.split(".\n").collect();
    assert_eq!(
        parts[..4],
        ["build@1\nbuild@2\n", "w1\n", "w1\n", "w1\n"],
        "{said}"
    );
    assert!(parts[4].contains(&*mount.dir.to_string_lossy()), "{said}");
    assert!(!parts[4].contains("build@1"), "{said}");
}
