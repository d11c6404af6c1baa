//! All faults, in one array. Each is a function on the world of the test, and returns whether it
//! was injected.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::shared::{HOLDS, SLOTS, WAITS};
use super::world::World;
use crate::support::memory::clock;
use crate::support::{Guard, is_root, plain, text};

pub enum Outcome {
    Injected,
    /// Not now: there is nobody whom it could befall.
    Nobody,
    /// Not here, and why.
    Impossible(String),
}

use Outcome::{Impossible, Injected, Nobody};

pub struct Fault {
    pub name: &'static str,
    pub inject: fn(&mut World) -> Outcome,
}

const fn fault(name: &'static str, inject: fn(&mut World) -> Outcome) -> Fault {
    Fault { name, inject }
}

pub const FAULTS: [Fault; 13] = [
    fault("SIGKILL of a holder", |world| kill_client(world, HOLDS)),
    fault("SIGKILL of a waiter", |world| kill_client(world, WAITS)),
    fault("SIGKILL of a client", |world| kill_client(world, 0)),
    fault("SIGKILL of the server", kill_server),
    fault("SIGSTOP of a holder", |world| stop_client(world, HOLDS)),
    fault("SIGSTOP of a waiter", |world| stop_client(world, WAITS)),
    fault("SIGSTOP of the server", stop_server),
    fault("SIGKILL of a client of a stopped server", kill_unseen),
    fault("a dead holder's pid in use again", reuse_pid),
    fault("a jump of the wall clock", jump),
    fault("a full state directory", fill),
    fault("an upgrade in place", upgrade),
    fault("a load of 100 %", load),
];

fn client(world: &mut World, state: u64) -> Option<usize> {
    let first = world.dice.below(SLOTS);
    let mut slots = (0..SLOTS).map(|slot| (first + slot) % SLOTS);
    slots.find(|slot| {
        let is = world.shared.state[*slot].load(SeqCst);
        is & state == state
    })
}

fn pause(world: &mut World, most: usize) {
    sleep(Duration::from_millis(world.dice.below(most) as u64));
}

fn kill_client(world: &mut World, state: u64) -> Outcome {
    let Some(slot) = client(world, state) else {
        return Nobody;
    };
    world.send_kill(slot);
    world.record_loss(slot);
    world.look();
    world.start(slot, None);
    Injected
}

fn server(world: &World) -> Result<i32, Outcome> {
    if !world.is_kept {
        return Err(Impossible("the server has no supervisor here".into()));
    }
    // The supervisor may be about to start one.
    let server = world.mount.server().map(|server| server as i32);
    server.ok_or(Nobody)
}

fn kill_server(world: &mut World) -> Outcome {
    match server(world) {
        Ok(server) if unsafe { libc::kill(server, libc::SIGKILL) } == 0 => Injected,
        Ok(_) => Nobody,
        Err(outcome) => outcome,
    }
}

fn stop_client(world: &mut World, state: u64) -> Outcome {
    let Some(slot) = client(world, state) else {
        return Nobody;
    };
    let until = Instant::now() + Duration::from_millis(20 + world.dice.below(400) as u64);
    world.stop(slot, until);
    Injected
}

fn stop_server(world: &mut World) -> Outcome {
    let server = match server(world) {
        Ok(server) => server,
        Err(outcome) => return outcome,
    };
    unsafe { libc::kill(server, libc::SIGSTOP) };
    pause(world, 60);
    unsafe { libc::kill(server, libc::SIGCONT) };
    Injected
}

/// The server sees nothing of the death until it goes on, and then is asked at once.
fn kill_unseen(world: &mut World) -> Outcome {
    let server = match server(world) {
        Ok(server) => server,
        Err(outcome) => return outcome,
    };
    let slot = world.dice.below(SLOTS);
    unsafe { libc::kill(server, libc::SIGSTOP) };
    world.send_kill(slot);
    // It may be in a request, in which it dies only once that is answered.
    let until = Instant::now() + Duration::from_millis(20);
    let mut is_dead = false;
    while !is_dead && Instant::now() < until {
        sleep(Duration::from_millis(1));
        is_dead = world.has_died(slot);
    }
    let look = is_dead.then(|| world.begin_look());
    pause(world, 20);
    unsafe { libc::kill(server, libc::SIGCONT) };
    if let Some(look) = look {
        world.history.operations.push(look.join().unwrap());
    } else {
        world.record_loss(slot);
        world.look();
    }
    world.start(slot, None);
    Injected
}

/// The next process has the pid of the dead one, and the id of its session.
fn reuse_pid(world: &mut World) -> Outcome {
    if !world.is_inside {
        return Impossible("no pid namespace of its own without root".into());
    }
    let Some(slot) = client(world, HOLDS) else {
        return Nobody;
    };
    let (session, pid) = (world.shared.sessions[slot].load(SeqCst), world.pid(slot));
    world.send_kill(slot);
    world.record_loss(slot);
    // Nobody asks before the pid is in use again.
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
    // Another process may have come first.
    let is_reused = world.start(slot, Some(session)) == pid;
    world.look();
    if is_reused { Injected } else { Nobody }
}

fn jump(world: &mut World) -> Outcome {
    const DAY: i64 = 86_400;
    if let Some(why) = &world.no_clock {
        return Impossible(why.clone());
    }
    let to = [0, 1, -1, 3600, -3600, DAY, -400 * DAY, 400 * DAY][world.dice.below(8)];
    let from = world.shared.ahead.swap(to, SeqCst);
    if from == to { Nobody } else { Injected }
}

fn fill(world: &mut World) -> Outcome {
    let Some(small) = &world.small else {
        return Impossible("no filesystem of its own without root".into());
    };
    if world.full_until.is_some() {
        return Nobody;
    }
    let path = small.0.path().join("fill");
    world.history.full.push((clock(), u64::MAX));
    let mut file = File::create(&path).unwrap();
    for size in [1 << 16, 1 << 12] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
    let time = 20 + world.dice.below(300) as u64;
    world.full_until = Some(Instant::now() + Duration::from_millis(time));
    Injected
}

fn upgrade(world: &mut World) -> Outcome {
    if !world.is_kept {
        return Impossible("the server has no supervisor here".into());
    }
    let from = clock();
    let mut command = world.mount.claimfs(&["upgrade"]);
    let (code, _, error) = text(&command.arg(&world.mount.dir).output().unwrap());
    if code == 0 {
        return Injected;
    }
    // Its outcome is told in the state directory.
    if !world.history.is_full(from, clock()) {
        world.complain(format!("claimfs upgrade: exit {code}: {error}"));
    }
    Nobody
}

fn load(world: &mut World) -> Outcome {
    if world.load.is_some() {
        return Nobody;
    }
    let busy = || {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        plain(&mut command);
        Guard::spawn(command.stdin(Stdio::null()))
    };
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let busy = (0..=processors).map(|_| busy()).collect();
    let time = 100 + world.dice.below(700) as u64;
    world.load = Some((busy, Instant::now() + Duration::from_millis(time)));
    Injected
}

/// A claimfs whose wall clock can be moved, or why there is none here.
pub fn movable(program: &Path, dir: &Path, clock: &Path) -> Result<(), String> {
    let library = dir.join("clock.so");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/suite/faults/histories/clock.c"
    );
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall"]);
    cc.arg(format!("-DOFFSET=\"{}\"", clock.display()));
    let built = cc.arg("-o").arg(&library).arg(source).output();
    match built {
        Err(error) => return Err(format!("cc: {error}")),
        Ok(output) if !output.status.success() => return Err(format!("cc: {:?}", text(&output))),
        Ok(_) => {}
    }
    let library = library.display();
    let script = format!(
        "#!/bin/sh\nLD_PRELOAD='{library}' exec '{}' \"$@\"\n",
        crate::support::CLAIMFS
    );
    fs::write(program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(program, mode).unwrap();
    Ok(())
}

/// Whether the wall clock of the server moves with what it is told, as far as a file shows that is
/// made now.
pub fn moves(world: &World) -> Result<(), String> {
    const HOUR: i64 = 3600;
    world.shared.ahead.store(24 * HOUR, SeqCst);
    let path = world.mount.path("claims/clock");
    fs::create_dir(&path).unwrap();
    let made = fs::metadata(&path)
        .and_then(|data| data.modified())
        .unwrap();
    fs::remove_dir(&path).unwrap();
    world.shared.ahead.store(0, SeqCst);
    let ahead = made.duration_since(SystemTime::now()).unwrap_or_default();
    if ahead.as_secs() < 23 * HOUR as u64 {
        return Err("the preloaded clock has no effect".to_owned());
    }
    Ok(())
}

/// A place for the state directory that can be filled up.
pub fn small() -> Option<crate::faults::full_disk::Small> {
    is_root().then(|| crate::faults::full_disk::Small::new(8192))
}
