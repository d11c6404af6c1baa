//! The mount inside sandboxes and containers, each of them a real one.

/// Unmounting and mounting again while a sandbox has the mount.
mod beside;
/// Scripts in containers.
mod containers;
/// Sessions in a sandbox.
pub mod sandbox;
