//! Trying out whether the kernel has a kind of map.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use libbpf_sys as libbpf;

/// A kind of map that the probes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapKind {
    /// An array that a process can map (Linux 5.5).
    MappedArray,
    /// A ring buffer (Linux 5.8).
    RingBuffer,
}

/// Creates a small map of this kind, which is gone at once.
pub(crate) fn create(kind: MapKind) -> io::Result<()> {
    let (number, key_bytes, value_bytes, entries, flags) = match kind {
        MapKind::MappedArray => (libbpf::BPF_MAP_TYPE_ARRAY, 4, 8, 1, libbpf::BPF_F_MMAPABLE),
        MapKind::RingBuffer => (libbpf::BPF_MAP_TYPE_RINGBUF, 0, 0, page_bytes(), 0),
    };
    let options = libbpf::bpf_map_create_opts {
        sz: size_of::<libbpf::bpf_map_create_opts>() as libbpf::size_t,
        map_flags: flags,
        ..libbpf::bpf_map_create_opts::default()
    };
    let name = c"schedscope_try".as_ptr();
    // SAFETY: The name is a C string and the options' size is their own; both live through the call.
    let fd = unsafe {
        libbpf::bpf_map_create(
            number,
            name,
            key_bytes,
            value_bytes,
            entries,
            &raw const options,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: The call has just opened this descriptor for us alone.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// A ring buffer's size is a multiple of this.
fn page_bytes() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX)
}
