//! Schedscope's kernel probes.
//!
//! One file per hook, and beside them what the hooks share: `config` (what the daemon found out about
//! this kernel), `task` (reading kernel structs), `clock`, `ring` (the per-CPU rings) and `side` (the
//! channel for rare records). What tells why a thread waits is optional and has its own settings (`why`):
//! `registers` (the system call), `context` (who wakes), `interrupts`, `cgroup` and `evidence`.
//!
//! Work per event is constant: no hash lookup, no stack walk, no string on the path of a switch.

#![no_std]
#![no_main]
// To set a register to a number that the compiler does not know; see `settings`.
#![feature(asm_experimental_arch)]
#![expect(
    unsafe_code,
    reason = "the probes read the kernel's memory and write to mapped rings"
)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "to take a field's address through a raw pointer and to access it count as two"
)]
#![expect(
    clippy::inline_always,
    reason = "a call costs what some of the programs cost in all, and hides from the verifier what is constant"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "records carry the low bits where the wire contract says so"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros of aya pass the context by value"
)]

mod cgroup;
mod cgroup_attach_task;
mod clock;
mod config;
mod context;
mod evidence;
mod interrupts;
mod open_waits;
mod pids;
mod read_clock;
mod registers;
mod ring;
mod sched_migrate_task;
mod sched_process_exec;
mod sched_switch;
mod sched_wakeup;
mod sched_wakeup_new;
mod sched_waking;
mod side;
mod task;
mod task_rename;
mod threads;
mod throttle;
mod why;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Nothing here panics: a program with a path to this loop would not pass the verifier.
    loop {}
}

// Several helpers are only for programs that declare a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
