//! What the probes cost, as the kernel counts it.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use libbpf_sys as libbpf;

/// One program's figures since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStats {
    /// The hook.
    pub name: String,
    /// How often it ran while the kernel was counting.
    pub runs: u64,
    /// Nanoseconds that it took, the counting itself included.
    pub run_time_ns: u64,
    /// How often the kernel left it out because it was running already on that CPU. These are records lost, save of
    /// the probes that only mark which interrupt a CPU is in; counted always, on Linux 5.12 and newer.
    pub missed: u64,
}

/// While it lives, the kernel counts the runs and the time of all BPF programs of the host, which costs
/// each run of each of them some 50 nanoseconds.
#[derive(Debug)]
pub struct Counting {
    _fd: OwnedFd,
}

impl Counting {
    /// Begins to count. Needs `CAP_SYS_ADMIN`.
    pub fn start() -> io::Result<Self> {
        aya::sys::enable_stats(aya::sys::Stats::RunTime)
            .map(|fd| Self { _fd: fd })
            .map_err(|error| error.io_error)
    }
}

/// Asks the kernel for a program's figures.
pub(crate) fn read(name: &str, program: BorrowedFd<'_>) -> io::Result<ProbeStats> {
    let mut info = libbpf::bpf_prog_info::default();
    #[expect(clippy::cast_possible_truncation, reason = "the struct has 232 bytes")]
    let mut bytes = size_of::<libbpf::bpf_prog_info>() as u32;
    // SAFETY: The descriptor is open; the kernel writes at most the number of bytes that it is given.
    let result = unsafe {
        libbpf::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut bytes)
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(ProbeStats {
        name: name.to_owned(),
        runs: info.run_cnt,
        run_time_ns: info.run_time_ns,
        missed: info.recursion_misses,
    })
}
