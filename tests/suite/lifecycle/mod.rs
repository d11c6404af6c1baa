//! From mount to unmount: the server's start, death, restart and upgrade, where it keeps its state,
//! and what it logs.

/// The journal is written anew while the server goes on.
mod compaction;
/// Mounts without a directory.
mod default_mount;
/// The journal that a server leaves to the next.
pub mod journal;
/// Journals of other versions.
mod journal_versions;
/// Mounts that are refused, and the end of a mount.
mod life;
/// How much the log contains, and how large it becomes.
mod logs;
/// A machine of a test's own.
pub mod machine;
/// Debian's older kernels, in virtual machines.
mod old_kernels;
/// Mounts of other users.
mod other_mounts;
/// What is installed: the package, the static binary and the crate.
mod packages;
/// Servers that are killed in the middle of a call.
mod restart;
/// systemd units, and mount(8).
mod service;
/// Where the state may be kept, and who may read it.
mod state_dir;
/// A mount that outlives its servers.
mod supervisor;
/// Which mount counts, of several, of hidden ones and of other users'.
mod which_mount;
