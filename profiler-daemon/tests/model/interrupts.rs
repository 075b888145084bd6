//! Interrupts of the model machine: they take a part of the time between two looks, nobody says which.

use profiler_ebpf::interrupt::KINDS;
use schedscope::core::decode::Event;

use super::{Machine, number};

/// What a CPU spent in interrupts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupts {
    spent_ns: [u32; KINDS],
    looked_ns: u64,
    /// What was told: from when, until when, and how much in all. The first record is the measure of
    /// the second and not in it.
    pub(crate) told: Vec<(u64, u64, u64)>,
    is_measured: bool,
}

impl Machine {
    /// Looks at a CPU, as the probes do at a switch there, at a wakeup to it, and at a move from it.
    pub(crate) fn tell_interrupts(&mut self, by: usize, cpu: usize) {
        if !self.config.interrupts {
            return;
        }
        let now_ns = self.now_ns;
        let its = &mut self.interrupts[cpu];
        let within_ns = now_ns - its.looked_ns;
        its.looked_ns = now_ns;
        if self.random.one_in(3) {
            return;
        }
        let mut room_ns = within_ns;
        for spent_ns in &mut its.spent_ns {
            let ns = self.random.below(room_ns / 2 + 1);
            room_ns -= ns;
            *spent_ns = spent_ns.wrapping_add(u32::try_from(ns).expect("steps are short"));
        }
        if !self.is_attached || room_ns == within_ns {
            return;
        }
        if its.is_measured {
            its.told
                .push((now_ns - within_ns, now_ns, within_ns - room_ns));
        }
        its.is_measured = true;
        let record = profiler_ebpf::Interrupts {
            ts_ns: now_ns,
            spent_ns: its.spent_ns,
            within_ns: u32::try_from(within_ns).unwrap_or(u32::MAX),
            cpu: u16::try_from(number(cpu)).expect("few CPUs"),
            ..profiler_ebpf::Interrupts::default()
        };
        self.emit(by, Event::Interrupts(record));
    }
}
