//! Where records come from.
//!
//! In the order of the flow:
//!
//! * `btf` reads the kernel's type information; `fields` looks up in it what the probes have to know.
//! * `load` puts the probes into the kernel with that knowledge.
//! * `ring` and `protocol` read the per-CPU rings that they write, mapped by `map`; `side` reads the
//!   rare records.
//! * `why` sets up what tells why threads wait; `evidence` reads what was taken of long waits, and
//!   [`symbols`] names the kernel functions in it, [`user_symbols`] those of programs.
//! * [`pids`] knows how the ids in records and those of this process's own PID namespace go together.
//! * [`quotas`] reads which cgroups have a CPU quota, where the kernel does not tell when one is used up.
//! * `threads` reads which threads there are, [`procfs`] those that it is not shown; `clock` relates the records' time to other clocks;
//!   `stats` says what the probes cost.
//! * [`memory`] gives back what that took.
//! * [`Kernel`] is all of that together.
//! * [`check`] says what this host has of what that takes; `trial` tries some of it out.

#[expect(unsafe_code, reason = "libbpf is a C library")]
mod btf;
pub mod check;
#[expect(unsafe_code, reason = "reads a mapping that a probe writes to")]
mod clock;
mod error;
pub mod evidence;
mod fields;
mod kernel;
mod load;
#[expect(unsafe_code, reason = "mappings are raw memory")]
mod map;
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the allocator belongs to the C library")
)]
pub mod memory;
pub mod pids;
pub mod procfs;
mod protocol;
pub mod quotas;
#[expect(unsafe_code, reason = "makes slices of the mapped rings")]
mod ring;
mod settings;
mod side;
#[expect(unsafe_code, reason = "libbpf is a C library")]
mod stats;
pub mod symbols;
mod sync;
mod threads;
#[expect(unsafe_code, reason = "libbpf is a C library")]
mod trial;
pub mod user_symbols;
mod why;

pub use clock::Relation;
pub use error::{StartError, StartFailure, exhausted};
pub use fields::{Fault, Finding, Need};
pub use kernel::{ClockChoice, CpuLosses, Kernel, Losses, Options};
pub use load::release as kernel_release;
pub use stats::{Counting, ProbeStats};
pub use threads::ThreadsError;
pub use why::Lack;
