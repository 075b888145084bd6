//! A program that does nothing, at a tracepoint: what remains of a probe's figure when the probe is taken away.
//!
//! It is put together here, two instructions long, so that nothing of it is in what users install.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::Context as _;
use libbpf_sys as libbpf;

/// `r0 = 0`: a 64-bit move of a number (`BPF_ALU64 | BPF_MOV | BPF_K`).
const MOVE: u8 = 0xb7;
/// `exit` (`BPF_JMP | BPF_EXIT`).
const EXIT: u8 = 0x95;

/// The program, attached until it is dropped.
pub(crate) struct Empty {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches one to this tracepoint, in the way that the probes are.
    pub(crate) fn attach(tracepoint: &CStr) -> io::Result<Self> {
        // SAFETY: The name is a C string that lives through the call.
        let id = unsafe {
            libbpf::libbpf_find_vmlinux_btf_id(tracepoint.as_ptr(), libbpf::BPF_TRACE_RAW_TP)
        };
        let mut options = libbpf::bpf_prog_load_opts {
            sz: size_of::<libbpf::bpf_prog_load_opts>() as libbpf::size_t,
            expected_attach_type: libbpf::BPF_TRACE_RAW_TP,
            attach_btf_id: u32::try_from(id).map_err(|_| io::Error::from_raw_os_error(-id))?,
            ..libbpf::bpf_prog_load_opts::default()
        };
        let instruction = |code| libbpf::bpf_insn {
            code,
            ..libbpf::bpf_insn::default()
        };
        let instructions = [instruction(MOVE), instruction(EXIT)];
        // SAFETY: The names are C strings, the count is that of the instructions, the options' size is
        // their own; all live through the call.
        let program = unsafe {
            libbpf::bpf_prog_load(
                libbpf::BPF_PROG_TYPE_TRACING,
                c"schedscope_empty".as_ptr(),
                c"Dual MIT/GPL".as_ptr(),
                instructions.as_ptr(),
                instructions.len() as libbpf::size_t,
                &raw mut options,
            )
        };
        let program = own(program)?;
        // SAFETY: The descriptor is open; a typed tracepoint takes no name.
        let link =
            unsafe { libbpf::bpf_raw_tracepoint_open(std::ptr::null(), program.as_raw_fd()) };
        Ok(Self {
            program,
            _link: own(link)?,
        })
    }

    /// How often it ran while the kernel counted, and the nanoseconds that took.
    pub(crate) fn runs(&self) -> anyhow::Result<(u64, u64)> {
        let path = format!("/proc/self/fdinfo/{}", self.program.as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .with_context(|| format!("{path} should have a line '{name}'"))
        };
        Ok((field("run_cnt:")?, field("run_time_ns:")?))
    }
}

/// Takes a descriptor that a call of libbpf has returned.
fn own(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: The call has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
