//! Stand-ins for coding agents that edit the files of one tree, each command in a shell of its own
//! POSIX session. They are killed again and again; no edit is lost.
//!
//! `CLAIMFS_TEST_EDITS_SECONDS` is for how long.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{CLAIMFS, Guard, Mount, TempDir, number, plain, wait_until};

const AGENTS: usize = 5;
const DIRECTORIES: usize = 4;
const FILES: usize = 5;

/// An edit of `$1`, a counter: as an agent does it, in several commands.
const EDIT: &str = r#"
file=$1
"$CLAIMFS" reserve --wait -m "edit by $$" "$TREE/$file" > /dev/null || exit 1
mkdir "$OUT/mark.$file" || echo "$file" >> "$OUT/doubles"
count=$(cat "$TREE/$file")
sleep 0.01
echo $((count + 1)) > "$TREE/$file"
echo "$file" >> "$OUT/edits"
rmdir "$OUT/mark.$file"
"$CLAIMFS" unreserve "$TREE/$file"
"#;

const AGENT: &str = r#"
at=$1
while ! [ -e "$OUT/last" ]; do
    at=$(((at * 1103515245 + 12345) % 2147483648))
    setsid -w sh "$OUT/edit.sh" "dir$((at / 7 % 4))/$((at / 65536 % 5)).txt" || exit 1
done
"#;

fn agent(mount: &Mount, temp: &TempDir, at: usize, seed: usize) -> Guard {
    let mut command = Command::new("sh");
    command.args(["-c", AGENT, "agent", &seed.to_string()]);
    plain(&mut command);
    command
        .env("CLAIMFS", CLAIMFS)
        .env("CLAIMFS_MOUNT", &mount.dir)
        // A session of its own also beside what goes on of one that was killed: two of one session
        // would hold a file together.
        .env("CLAIMFS_SESSION", format!("agent{at}-{seed}"))
        .env("OUT", temp.path().join("out"))
        .env("TREE", temp.path().join("tree"))
        .current_dir("/")
        .stdin(Stdio::null());
    Guard::spawn(&mut command)
}

#[test]
fn five_agents_lose_no_edit_of_twenty_files() {
    let Some(mount) = Mount::new() else { return };
    let temp = TempDir::in_memory();
    let (out, tree) = (temp.path().join("out"), temp.path().join("tree"));
    fs::create_dir(&out).unwrap();
    fs::write(
        out.join("edit.sh"),
        EDIT.replace("mark.$file", "mark.$(echo $file | tr / -)"),
    )
    .unwrap();
    for dir in 0..DIRECTORIES {
        let dir = tree.join(format!("dir{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..FILES {
            fs::write(dir.join(format!("{file}.txt")), "0\n").unwrap();
        }
    }
    let time = Duration::from_secs(number("CLAIMFS_TEST_EDITS_SECONDS", 10));
    let mut agents: Vec<Guard> = (0..AGENTS).map(|at| agent(&mount, &temp, at, at)).collect();
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < time {
        std::thread::sleep(Duration::from_secs(2));
        // Its command goes on to its end, and holds what it reserved until then.
        let at = kills % AGENTS;
        agents[at] = agent(&mount, &temp, at, AGENTS + kills);
        kills += 1;
    }
    fs::write(out.join("last"), "").unwrap();
    for agent in &mut agents {
        assert!(agent.0.wait().unwrap().success());
    }
    wait_until("the commands of killed agents", || {
        !mount.read("leases").contains("\"name\"")
            && fs::read_dir(mount.path("sessions")).unwrap().count() == 0
    });
    let edits = fs::read_to_string(out.join("edits"))
        .unwrap()
        .lines()
        .count();
    let counted: usize = (0..DIRECTORIES)
        .flat_map(|dir| (0..FILES).map(move |file| format!("dir{dir}/{file}.txt")))
        .map(|file| {
            fs::read_to_string(tree.join(file))
                .unwrap()
                .trim()
                .parse::<usize>()
                .unwrap()
        })
        .sum();
    println!("{edits} edits by {AGENTS} agents, {kills} kills");
    assert_eq!(edits, counted, "an edit is lost");
    assert!(!out.join("doubles").exists(), "two edited one file at once");
    assert!(edits > AGENTS);
    assert_eq!(mount.run("find paths -type f"), "");
}
