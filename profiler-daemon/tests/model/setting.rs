//! What a model machine is like, and the chance that drives it.

/// Random numbers: the same for the same seed, everywhere (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A place in something of this length.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.place(of.len())])
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What the machine is like, and what happens on it.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and all combinations are legal"
)]
pub(crate) struct Config {
    pub(crate) cpus: usize,
    /// Threads that are there at first.
    pub(crate) threads: u32,
    /// Highest thread id; ids are given in a circle, as the kernel does.
    pub(crate) max_tid: u32,
    /// Longest time between two events.
    pub(crate) max_step_ns: u64,
    /// Wakeup records are written.
    pub(crate) wakeups: bool,
    /// Moves between CPUs are recorded.
    pub(crate) moves: bool,
    /// The kernel's enqueue stamps can be compared with the records' clock.
    pub(crate) stamps: bool,
    /// The kernel counts runs.
    pub(crate) counts: bool,
    /// A run without a stamp is counted too, as before Linux 5.14.
    pub(crate) counts_unqueued: bool,
    /// Threads are born and end, get other names, and exec.
    pub(crate) lives: bool,
    /// Processes have several threads, of which any may exec.
    pub(crate) groups: bool,
    /// CPUs are interrupted.
    pub(crate) interrupts: bool,
}

/// How the records tell when a thread was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// By the kernel's stamps alone.
    Stamps,
    /// By both.
    Both,
    /// By wakeup records; the kernel counts runs.
    Wakeups,
    /// By wakeup records; the kernel has no figures of its own.
    Bare,
}

impl Config {
    /// A small machine on which everything happens.
    pub(crate) fn small(kernel: Kernel) -> Self {
        Self {
            cpus: 3,
            threads: 8,
            max_tid: 60,
            max_step_ns: 5_000,
            wakeups: kernel != Kernel::Stamps,
            moves: true,
            stamps: matches!(kernel, Kernel::Stamps | Kernel::Both),
            counts: kernel != Kernel::Bare,
            counts_unqueued: false,
            lives: true,
            groups: true,
            interrupts: true,
        }
    }
}
