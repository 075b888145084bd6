//! Names of threads for others to point at, also when those have ended.

use std::collections::{BTreeMap, VecDeque};

use profiler_ebpf::{Waking, waker_context};

use super::interrupts::InterruptKind;
use super::thread::{Comm, Thread};
use super::threads::Threads;
use super::timeline::Runner;

/// A thread that had a part in somebody else's wait, or interrupts that had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Its id; 0 for interrupts, and for a thread that is not known any more.
    pub tid: u32,
    /// Its process; 0 when that is not known, and for interrupts.
    pub tgid: u32,
    /// Its name, or that of the interrupts' kind.
    pub comm: Comm,
}

impl Who {
    pub(super) fn of(thread: &Thread) -> Self {
        Self {
            tid: thread.tid,
            tgid: thread.tgid,
            comm: thread.comm,
        }
    }

    /// Interrupts of this kind.
    #[must_use]
    pub fn interrupts(kind: InterruptKind) -> Self {
        Self {
            comm: Comm::from_name(kind.name()),
            ..Self::default()
        }
    }

    /// Whether these are interrupts. No thread can pass for them, whatever it calls itself.
    #[must_use]
    pub fn is_interrupts(&self) -> bool {
        self.tid == 0 && self.comm != Comm::default()
    }

    /// Whether it can be named.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.tid != 0 || self.is_interrupts()
    }
}

/// What kind of thing ends a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WakerKind {
    /// Nobody saw it.
    #[default]
    Unknown,
    /// A thread.
    Thread,
    /// A timer that ran out.
    Timer,
    /// The network softirqs.
    Network,
    /// The block softirq: a device has done its work.
    Block,
    /// Another CPU's interrupt.
    Ipi,
    /// Another interrupt.
    Irq,
}

impl WakerKind {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Thread => "thread",
            Self::Timer => "timer",
            Self::Network => "network",
            Self::Block => "block",
            Self::Ipi => "ipi",
            Self::Irq => "irq",
        }
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waker {
    /// Its kind.
    pub kind: WakerKind,
    /// Of a thread its id, of an interrupt its number; else 0.
    pub number: u32,
}

impl Waker {
    pub(super) fn of(record: &Waking) -> Self {
        // Numbers of softirqs: include/linux/interrupt.h.
        let (kind, number) = match (record.context, record.vector) {
            // The idle task wakes nobody by itself.
            (waker_context::THREAD, _) if record.waker_tid == 0 => (WakerKind::Irq, 0),
            (waker_context::THREAD, _) => (WakerKind::Thread, record.waker_tid),
            (waker_context::TIMER, _) | (waker_context::SOFTIRQ, 1 | 8) => (WakerKind::Timer, 0),
            (waker_context::SOFTIRQ, 2 | 3) => (WakerKind::Network, 0),
            (waker_context::SOFTIRQ, 4 | 5) => (WakerKind::Block, 0),
            (waker_context::SOFTIRQ, _) => (WakerKind::Irq, 0),
            (waker_context::IPI, _) => (WakerKind::Ipi, 0),
            (_, vector) => (WakerKind::Irq, vector),
        };
        Self { kind, number }
    }
}

/// Threads that ended of late.
#[derive(Debug, Default)]
pub(super) struct Departed {
    by_serial: BTreeMap<u64, Who>,
    by_tid: BTreeMap<u32, u64>,
    order: VecDeque<u64>,
}

impl Departed {
    const BOUND: usize = 4096;

    pub(super) fn add(&mut self, thread: &Thread) {
        self.by_serial.insert(thread.serial, Who::of(thread));
        self.by_tid.insert(thread.tid, thread.serial);
        self.order.push_back(thread.serial);
        if self.order.len() > Self::BOUND
            && let Some(serial) = self.order.pop_front()
            && let Some(who) = self.by_serial.remove(&serial)
            && self.by_tid.get(&who.tid) == Some(&serial)
        {
            self.by_tid.remove(&who.tid);
        }
    }

    fn with_tid(&self, tid: u32) -> Option<Who> {
        self.by_serial.get(self.by_tid.get(&tid)?).copied()
    }
}

/// Everybody who can be named.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) threads: &'a Threads,
    pub(super) departed: &'a Departed,
}

impl Names<'_> {
    /// Who had a CPU.
    pub(super) fn runner(self, runner: Runner) -> Who {
        match (runner.kind(), self.threads.get(runner.slot)) {
            (Some(kind), _) => Who::interrupts(kind),
            (None, Some(thread)) if thread.serial == runner.serial => Who::of(thread),
            _ => {
                let departed = self.departed.by_serial.get(&runner.serial);
                departed.copied().unwrap_or_default()
            }
        }
    }

    /// The thread that ended a wait just now, if it was one.
    pub(super) fn waker(self, waker: Waker) -> Option<Who> {
        if waker.kind != WakerKind::Thread {
            return None;
        }
        let alive = self.alive(waker.number).map(Who::of);
        Some(
            alive
                .or_else(|| self.departed.with_tid(waker.number))
                .unwrap_or(Who {
                    tid: waker.number,
                    ..Who::default()
                }),
        )
    }

    /// The living thread with this id.
    pub(super) fn alive(&self, tid: u32) -> Option<&Thread> {
        self.threads
            .find(tid)
            .and_then(|slot| self.threads.get(slot))
    }
}
