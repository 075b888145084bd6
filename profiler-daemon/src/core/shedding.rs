//! Records that were left out on purpose: for how long, of how many threads, and how many.

use profiler_ebpf::{Kind, Shed, shed};

/// Records left out on purpose, as far as was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShedCounts {
    /// Switches with nobody who is kept on either side.
    pub switches: u64,
    /// Wakeups of threads that are not kept.
    pub wakeups: u64,
    /// Who woke them.
    pub wakings: u64,
    /// Their moves to other CPUs.
    pub migrations: u64,
}

impl ShedCounts {
    pub(super) fn add(&mut self, record: &Shed) {
        self.switches = self.switches.saturating_add(record.switches);
        self.wakeups = self.wakeups.saturating_add(u64::from(record.wakeups));
        self.wakings = self.wakings.saturating_add(u64::from(record.wakings));
        self.migrations = self.migrations.saturating_add(u64::from(record.migrations));
    }

    /// By the kind of record.
    pub fn by_kind(&self) -> impl Iterator<Item = (Kind, u64)> + use<> {
        [
            (Kind::Switch, self.switches),
            (Kind::Wakeup, self.wakeups),
            (Kind::Waking, self.wakings),
            (Kind::Migrate, self.migrations),
        ]
        .into_iter()
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = self.by_kind().map(|(_, count)| count);
        counts.fold(0, u64::saturating_add)
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            switches: self.switches.saturating_sub(earlier.switches),
            wakeups: self.wakeups.saturating_sub(earlier.wakeups),
            wakings: self.wakings.saturating_sub(earlier.wakings),
            migrations: self.migrations.saturating_sub(earlier.migrations),
        }
    }
}

/// Whether all threads are kept, and were, since the window began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shedding {
    /// One thread in 2 to this power is kept now; 0 if all are.
    pub shift: u8,
    /// The same when fewest were kept.
    pub most_shift: u8,
    /// For how long not all threads were kept, in nanoseconds.
    pub duration_ns: u64,
    /// How often that has begun, once that went on already included.
    pub times: u64,
    /// Since when it has gone on, if it does.
    since_ns: u64,
}

impl Shedding {
    /// The fraction of threads that is kept with this shift.
    #[must_use]
    pub fn fraction(shift: u8) -> f64 {
        0.5f64.powi(i32::from(shift.min(shed::MAX_SHIFT)))
    }

    pub(super) fn take_in(&mut self, record: &Shed) {
        let shift = record.shift.min(shed::MAX_SHIFT);
        if self.shift == 0 && shift > 0 {
            self.times += 1;
            self.since_ns = record.ts_ns;
        }
        if self.shift > 0 && shift == 0 {
            *self = self.as_of(record.ts_ns);
        }
        self.shift = shift;
        self.most_shift = self.most_shift.max(shift);
    }

    pub(super) fn begin_window(&mut self, start_ns: u64) {
        *self = Self {
            shift: self.shift,
            most_shift: self.shift,
            duration_ns: 0,
            times: u64::from(self.shift > 0),
            since_ns: start_ns,
        };
    }

    /// With what goes on counted up to this time.
    pub(super) fn as_of(&self, at_ns: u64) -> Self {
        if self.shift == 0 {
            return *self;
        }
        let elapsed_ns = at_ns.saturating_sub(self.since_ns);
        Self {
            duration_ns: self.duration_ns.saturating_add(elapsed_ns),
            since_ns: at_ns,
            ..*self
        }
    }

    /// What was added since `earlier`. How few were kept in between is not known apart from the two ends.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let duration_ns = self.duration_ns.saturating_sub(earlier.duration_ns);
        let most_shift = match duration_ns {
            0 => self.shift,
            _ if self.most_shift > earlier.most_shift => self.most_shift,
            _ => self.shift.max(earlier.shift).max(1),
        };
        Self {
            duration_ns,
            most_shift,
            times: self.times.saturating_sub(earlier.times),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shedding;
    use profiler_ebpf::Shed;

    fn told(ts_ns: u64, shift: u8) -> Shed {
        Shed {
            ts_ns,
            shift,
            ..Shed::default()
        }
    }

    #[test]
    fn time_counts_while_anybody_is_left_out() {
        let mut shedding = Shedding::default();
        for (ts_ns, shift) in [(10, 0), (100, 1), (150, 3), (200, 2), (300, 0), (350, 0)] {
            shedding.take_in(&told(ts_ns, shift));
        }
        shedding.take_in(&told(400, 1));
        let now = shedding.as_of(410);
        assert_eq!((now.duration_ns, now.times), (210, 2));
        assert_eq!((now.shift, now.most_shift), (1, 3));
        shedding.begin_window(420);
        let now = shedding.as_of(430);
        assert_eq!((now.duration_ns, now.times), (10, 1));
        assert_eq!((now.shift, now.most_shift), (1, 1));
        let before = now;
        shedding.take_in(&told(440, 0));
        let now = shedding.as_of(500).since(&before);
        assert_eq!((now.duration_ns, now.times), (10, 0));
        assert_eq!((now.shift, now.most_shift), (0, 1));
    }
}
