//! `claimfs mount -o remount,…`: changes the flags of an existing mount, and nothing about its
//! server and leases.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

use super::{Exit, Failure, output, tool};
use crate::mount::holder;
use crate::mount::state_dir::{Lock, StateDir};
use crate::supervisor::device::{self, Flags};
use crate::sys::ids::effective_uid;
use crate::sys::mountinfo::Mount;

/// The flags that a mount of claimfs never loses.
const FIXED: [&str; 3] = ["nosuid", "nodev", "nosymfollow"];

/// Options that only matter in fstab(5), and those that mount(8) adds itself.
const IGNORED: [&str; 17] = [
    "remount",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
];

/// Applies options to the mount on a directory. The last of several that contradict each other
/// counts.
pub(super) fn run(dir: &Path, options: &[String], json: bool) -> Result<Exit, Failure> {
    let (dir, mount) = tool::mounted_on(dir)?;
    let shown = dir.display();
    let flags = flags(&mount, options)
        .map_err(|(option, why)| Failure::usage(format!("{shown}: -o remount,{option}: {why}")))?;
    device::remount(&dir, flags).map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if effective_uid() != 0 => "; only root may",
            Some(libc::EPERM | libc::EACCES) => "; only root outside of this sandbox may",
            Some(libc::EBUSY) => "; somebody has a file open for writing, and must close it first",
            _ => "",
        };
        Failure::unavailable(format!("{shown}: cannot be remounted: {error}{remedy}"))
    })?;
    let value = json!({"mount": dir.to_string_lossy(), "remounted": true});
    output::done_quietly(json, &format!("{shown}: remounted"), &value)?;
    Ok(Exit::Done)
}

/// The new flags of the mount. An error is the option that is refused, and why.
fn flags(mount: &Mount, options: &[String]) -> Result<Flags, (String, &'static str)> {
    let has = |flag: &str| mount.flags.split(',').any(|there| there == flag);
    let mut flags = Flags {
        nosymfollow: has("nosymfollow"),
        noexec: has("noexec"),
        read_only: None,
        is_read_only: has("ro"),
    };
    for option in options {
        let refuse = |why| Err((option.clone(), why));
        match &**option {
            "" => {}
            "ro" => flags.read_only = Some(true),
            "rw" => flags.read_only = Some(false),
            "noexec" => flags.noexec = true,
            "nosymfollow" => flags.nosymfollow = true,
            "suid" | "dev" | "symfollow" => {
                return refuse("a claimfs is always nosuid, nodev and nosymfollow");
            }
            "exec" => return refuse("noexec is not taken back; unmount, and mount without it"),
            option if FIXED.contains(&option) || IGNORED.contains(&option) => {}
            option if option.starts_with("x-") || is_so(mount, option) => {}
            _ => {
                return refuse(
                    "only ro, rw, nosuid, nodev and noexec can be changed while it is mounted; unmount, and mount with it",
                );
            }
        }
    }
    // mount(8) passes on every flag that it finds in mountinfo, but those that it was told to
    // remove.
    let is_copied = options.iter().any(|option| option.starts_with("user_id="));
    let is_missing = |flag: &&str| has(flag) && !options.iter().any(|option| option == flag);
    if let Some(flag) = ["nosuid", "nodev", "noexec", "nosymfollow"]
        .iter()
        .find(|flag| is_copied && is_missing(flag))
    {
        let asked = flag.trim_start_matches("no").to_owned();
        return Err((asked, "this is not taken back; unmount, and mount again"));
    }
    Ok(flags)
}

/// Whether the mount has an option already: fstab(5) names all of them.
fn is_so(mount: &Mount, option: &str) -> bool {
    if mount.super_options.split(',').any(|there| there == option) {
        return true;
    }
    let server = holder::of(&StateDir::of(mount).lock(Lock::Server));
    let words =
        server.and_then(|server| fs::read(format!("/proc/{}/cmdline", server.who.pid)).ok());
    let words = words.unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).map(OsStr::from_bytes);
    words.any(|word| {
        let mut given = word.to_str().unwrap_or_default().split(',');
        given.any(|there| there == option)
    })
}
