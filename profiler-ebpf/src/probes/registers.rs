//! A thread's registers as they were when it came into the kernel, and the system call in them.

use aya_ebpf::helpers::bpf_task_pt_regs;
use profiler_ebpf::{config::ABSENT, syscall};

use crate::{
    task::{Struct, Task},
    why::{read, why, why_at},
};

/// A register: where the kernel gave their typed address by one load, else by the helper.
macro_rules! field {
    ($registers:expr, $field:ident) => {
        if why!(regs_from_stack) == ABSENT {
            $registers.typed.field(why_at!($field))
        } else {
            read($registers.address, why!($field)).unwrap_or_default()
        }
    };
}

/// The registers of a user thread that is in the kernel (`struct pt_regs`).
pub(crate) struct Registers {
    typed: Struct,
    address: *const u8,
}

impl Registers {
    /// Those of a thread that has a user side.
    #[inline(always)]
    pub(crate) fn of(task: Task) -> Self {
        let distance = why!(regs_from_stack);
        if distance == ABSENT {
            // SAFETY: The pointer is the kernel's own.
            let registers = unsafe { bpf_task_pt_regs(task.0.as_ptr().cast_mut().cast()) };
            let address = registers as *const u8;
            Self {
                typed: Struct::from_kernel(address.cast()),
                address,
            }
        } else {
            let stack: *const u8 = task.0.field(why_at!(task_stack));
            Self {
                typed: task.0,
                address: stack.wrapping_add(distance as usize),
            }
        }
    }

    /// The system call's number by the native ABI, or one of [`syscall`].
    #[inline(always)]
    pub(crate) fn syscall(&self) -> u16 {
        // 32 bits of it are enough: -1 outside of calls, and bit 30 is set by the x32 ABI.
        let number: u32 = field!(self, regs_syscall);
        if number == u32::MAX {
            return syscall::NONE;
        }
        let mode: u8 = field!(self, regs_mode);
        let is_foreign = u32::from(mode) & why!(regs_mode_mask) == why!(regs_mode_foreign);
        if is_foreign || number >= u32::from(syscall::FOREIGN_ABI) {
            return syscall::FOREIGN_ABI;
        }
        number as u16
    }

    /// The call's first argument.
    #[inline(always)]
    pub(crate) fn first_argument(&self) -> u64 {
        field!(self, regs_argument)
    }
}
