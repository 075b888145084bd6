//! What can go wrong around the profiler, done to it on purpose: it is stopped and killed, it runs out of memory
//! and of descriptors, and users do to their threads what they can. What is lost is counted, nothing else is,
//! and who stands beside has the figures that are true.
//!
//! Elsewhere: rings that overflow (`privileged_attach::tiny_rings_lose_records_but_invent_no_delay`), a full disk
//! (`privileged_cli::a_full_disk_ends_a_recording_cleanly`), exec from a thread
//! (`privileged_threads`), stops by signals and by a debugger (`privileged_attach::stopped_time_is_blocked_time`).

mod births;
#[path = "../common/mod.rs"]
mod common;
mod groups;
mod limits;
mod names;
mod stalls;
mod support;
