//! Memory that the allocator keeps though nobody uses it any more. The one of the GNU C library is told to keep
//! little; others give back by themselves, or can't be told.

/// From this size on a block is a mapping of its own, which goes back to the kernel as soon as it is free. Left to
/// itself the allocator would raise that to 32 MiB as larger blocks come and go, and keep them.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: libc::c_int = 256 << 10;

/// Has large blocks go back to the kernel when they are free. For the start of a process.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: It has no preconditions, and locks what it works on by itself (mallopt(3)). Failing leaves everything
    // as it is.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
    }
}

/// Gives back what is free. Reading the kernel's types to start takes some 20 MiB in small blocks.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: It has no preconditions, and locks what it works on by itself (malloc_trim(3)). What it returns
    // says whether there was something, which changes nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}
