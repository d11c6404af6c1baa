//! The memory that the allocator keeps (mallopt(3)).
#![allow(unsafe_code)]

/// From how many bytes on an allocation is returned to the machine once it is freed.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 256 * 1024;

/// Has large allocations returned to the machine when they are freed. Without it the allocator
/// raises its threshold and keeps them.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes no pointer. A threshold that is set no longer grows by itself.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}
