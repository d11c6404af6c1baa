//! `claimfs completions SHELL`, and the hidden `claimfs complete KIND` that its scripts call: the
//! names, sessions and mounts that there are.

use std::path::Path;

use clap::ValueEnum;
use clap_complete::Shell;

use super::output;
use super::tool::Mount;
use super::{Exit, Failure};
use crate::core::misleads;
use crate::sys::mountinfo;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell to print the script for
    shell: Shell,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "claimfs", &mut script);
        let script = String::from_utf8_lossy(&script);
        output::list(&match self.shell {
            Shell::Bash => format!("{script}\n{BASH}"),
            Shell::Zsh => zsh(&script),
            Shell::Fish => format!("{script}\n{FISH}"),
            _ => script.into_owned(),
        })?;
        Ok(Exit::Done)
    }
}

/// The script for zsh, with lists in place of the default for some arguments.
fn zsh(script: &str) -> String {
    let mut out = String::new();
    for line in script.lines() {
        let list = ZSH_LISTS
            .iter()
            .find(|(start, ..)| line.trim_start_matches('*').contains(start));
        match list {
            Some((_, default, list)) => {
                let (before, after) = line.rsplit_once(default).unwrap_or((line, ""));
                let list = if after.is_empty() { "" } else { list };
                out.extend([before, list, after, "\n"]);
            }
            None => out.extend([line, "\n"]),
        }
        if line == "#compdef claimfs" {
            out.push_str(ZSH);
        }
    }
    out
}

/// The beginning of an argument in the script, its default, and the list instead.
const ZSH_LISTS: [(&str, &str, &str); 8] = [
    ("':name -- ", ":_default", ":_claimfs_names"),
    ("'::name -- ", ":_default", ":_claimfs_names"),
    ("':session -- ", ":_default", ":_claimfs_sessions"),
    ("':id -- ", ":_default", ":_claimfs_sessions"),
    ("'--session=[", ":_default", ":_claimfs_sessions"),
    ("--any=[", ":_default", ":_claimfs_names"),
    ("--all=[", ":_default", ":_claimfs_names"),
    ("'--mount=[", ":_files", ":_claimfs_mounts"),
];

const ZSH: &str = r#"
_claimfs_list() {
    local kind=$1
    local -a found
    shift
    found=(${(f)"$(claimfs complete $kind 2>/dev/null)"})
    compadd "$@" -a found
}
_claimfs_names() { _claimfs_list leases "$@" }
_claimfs_sessions() { _claimfs_list sessions "$@" }
_claimfs_mounts() { _claimfs_list mounts "$@"; _files -/ "$@" }
"#;

const FISH: &str = r#"
function __fish_claimfs_list
    claimfs complete $argv[1] 2>/dev/null
end
function __fish_claimfs_at
    # The verb is the first of these, and no command has begun.
    set -l words (commandline -opc)
    not contains -- -- $words
    and __fish_claimfs_using_subcommand $argv
end
function __fish_claimfs_words
    # So many words without a dash come before this one, the verb among them.
    set -l words (commandline -opc | string match -v -- '-*')
    test (count $words) -eq (math $argv[1] + 1)
end
complete -c claimfs -n "__fish_claimfs_at claim run" -f -a "(__fish_claimfs_list names)"
complete -c claimfs -n "__fish_claimfs_at show break log release unclaim wait" -f -a "(__fish_claimfs_list leases)"
complete -c claimfs -n "__fish_claimfs_at give; and __fish_claimfs_words 1" -f -a "(__fish_claimfs_list leases)"
complete -c claimfs -n "__fish_claimfs_at give; and __fish_claimfs_words 2" -f -a "(__fish_claimfs_list sessions)"
complete -c claimfs -n "__fish_claimfs_at session; and __fish_seen_subcommand_from end" -f -a "(__fish_claimfs_list sessions)"
complete -c claimfs -n "__fish_claimfs_at claim release" -l session -x -a "(__fish_claimfs_list sessions)"
complete -c claimfs -n "__fish_claimfs_at claim run" -l any -x -a "(__fish_claimfs_list names)"
complete -c claimfs -n "__fish_claimfs_at claim run" -l all -x -a "(__fish_claimfs_list names)"
complete -c claimfs -n "__fish_claimfs_at umount upgrade doctor" -a "(__fish_claimfs_list mounts)"
complete -c claimfs -l mount -r -a "(__fish_claimfs_list mounts)"
"#;

const BASH: &str = r#"_claimfs_lists() {
    _claimfs "$@"
    local line="${COMP_LINE:0:COMP_POINT}" cur verb="" part="" previous="" kind="" word
    local -i count=0
    local -a words=() mount=()
    cur="${line##*[[:space:]]}"
    read -ra words <<< "${line%"$cur"}"
    for word in "${words[@]:1}"; do
        case "$previous,$word" in
            --mount,*) mount=(--mount "$word") ;;
            *,--mount=*) mount=("$word") ;;
            *,--) [[ $verb == run || $verb == session ]] && return ;;
            *,-*) ;;
            *) if [[ -z $verb ]]; then verb="$word"; else part="$word"; count+=1; fi ;;
        esac
        previous="$word"
    done
    case "$previous $cur" in
        "--mount "* | *" --mount="*) kind=mounts ;;
        "--session "* | *" --session="*) kind=sessions ;;
        "--any "* | "--all "* | *" --any="* | *" --all="*) kind=names ;;
        *" -"*) return ;;
        *)
            case "$verb,$count,$part" in
                claim,* | run,*) kind=names ;;
                show,* | break,* | log,* | release,* | unclaim,* | wait,* | give,0,*) kind=leases ;;
                give,* | session,1,end) kind=sessions ;;
                umount,* | upgrade,* | doctor,*) kind=mounts ;;
                *) return ;;
            esac
            ;;
    esac
    [[ $cur == --*=* ]] && cur="${cur#*=}"
    COMPREPLY=()
    # The shell replaces only what comes behind a character such as @ or :.
    local behind="${cur%"${2#=}"}"
    while IFS= read -r word; do
        if [[ $word == "$cur"* ]]; then
            COMPREPLY+=("$(printf %q "${word#"$behind"}")")
        fi
    done < <("$1" ${mount[@]+"${mount[@]}"} complete "$kind" 2>/dev/null)
    if [[ $kind == mounts ]]; then
        COMPREPLY+=($(compgen -d -- "$cur"))
    fi
}
complete -F _claimfs_lists -o bashdefault -o default claimfs
"#;

/// The words that a shell completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The claims that somebody holds.
    Names,
    /// Those and the reservations.
    Leases,
    /// The live sessions.
    Sessions,
    /// Where claimfs is mounted.
    Mounts,
}

#[derive(Debug, clap::Args)]
pub(super) struct Complete {
    kind: Kind,
}

impl Complete {
    /// Prints the words, a line each. One that a terminal would not show as it is is left out.
    pub(super) fn run(&self, mount: Option<&Path>) -> Result<Exit, Failure> {
        let words: Vec<String> = match self.kind {
            Kind::Mounts => mountinfo::ours()
                .unwrap_or_default()
                .iter()
                .map(|mount| mount.dir.display().to_string())
                .collect(),
            Kind::Sessions => Mount::find(mount)?.entries("sessions")?,
            Kind::Names | Kind::Leases => {
                let records = Mount::find(mount)?.leases()?;
                let names = records.iter().filter_map(|record| record["name"].as_str());
                let is_wanted = |name: &&str| self.kind == Kind::Leases || !name.contains('/');
                names.filter(is_wanted).map(str::to_owned).collect()
            }
        };
        let words = words.iter().filter(|word| !word.contains(misleads));
        let text: Vec<String> = words.map(|word| format!("{word}\n")).collect();
        output::list(&text.concat())?;
        Ok(Exit::Done)
    }
}
