//! How the records' clock relates to `CLOCK_MONOTONIC` and to wall time.
//!
//! The run queue's clock is the scheduler's own: it runs at the same rate as `CLOCK_MONOTONIC` but for
//! what NTP does to the latter, and began at another moment. The distance is measured thus: read
//! `CLOCK_MONOTONIC`, ask for this thread's CPU time, and run a probe that reads this CPU's run-queue
//! clock and then `CLOCK_MONOTONIC`. To answer for the CPU time the kernel brings the run queue's clock
//! up to date (`task_sched_runtime` in kernel/sched/core.c), so its value belongs to a moment between the
//! two readings. (If the thread is moved to another CPU meanwhile, that CPU's clock was brought up to date
//! when it came in there.) Each try gives an interval that the distance is in; the intervals of a few
//! tries, each below a microsecond, are intersected.

use std::os::fd::AsFd;

use aya::{
    Ebpf,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun},
};
use profiler_ebpf::{Clock, ClockReading, config::programs};
use rustix::time::{ClockId, clock_gettime};

use super::{
    error::{StartError, chain},
    load,
    map::Mapping,
    sync::{AtomicU64, Ordering},
};

/// Readings for one measurement.
const TRIES: u32 = 8;

/// The distance between the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// What has to be added to `CLOCK_MONOTONIC` to get the records' time.
    pub offset_ns: i64,
    /// How far the offset can be from the truth at the time of the measurement.
    pub error_ns: u64,
    /// When it was measured, by `CLOCK_MONOTONIC`.
    pub measured_ns: u64,
}

/// The records' clock.
#[derive(Debug)]
pub(crate) struct RecordClock {
    clock: Clock,
    /// Where the probe puts its reading.
    reading: Mapping,
    relation: Relation,
}

impl RecordClock {
    /// Maps the place of the readings and measures for the first time.
    pub(crate) fn new(clock: Clock, map: impl AsFd, ebpf: &Ebpf) -> Result<Self, StartError> {
        let reading = Mapping::new(map, size_of::<ClockReading>())
            .map_err(|error| load::refused("map the clock's reading", &error))?;
        let relation = Relation {
            offset_ns: 0,
            error_ns: 0,
            measured_ns: monotonic_ns(),
        };
        let mut record_clock = Self {
            clock,
            reading,
            relation,
        };
        record_clock.measure(ebpf)?;
        Ok(record_clock)
    }

    /// Which clock it is.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// The last measurement.
    pub(crate) fn relation(&self) -> Relation {
        self.relation
    }

    /// The records' time now.
    pub(crate) fn now_ns(&self) -> u64 {
        monotonic_ns().saturating_add_signed(self.relation.offset_ns)
    }

    /// Measures the relation anew.
    pub(crate) fn measure(&mut self, ebpf: &Ebpf) -> Result<(), StartError> {
        if self.clock == Clock::Monotonic {
            self.relation.measured_ns = monotonic_ns();
            return Ok(());
        }
        let program: &RawTracePoint = load::get(ebpf, programs::READ_CLOCK)?;
        let failed = |reason: String| StartError::Internal {
            action: "read the run queue's clock".to_owned(),
            reason,
        };
        let mut bounds = Vec::with_capacity(TRIES as usize);
        for _ in 0..TRIES {
            let before_ns = monotonic_ns();
            // Only what it does on the way matters.
            let _cpu_time = clock_gettime(ClockId::ThreadCPUTime);
            program
                .test_run(RawTracePointRunOptions::new())
                .map_err(|error| failed(chain(&error)))?;
            let [record_ns, after_ns] = self.read();
            if record_ns == 0 {
                return Err(failed(
                    "bpf_probe_read_kernel failed; is the kernel locked down?".to_owned(),
                ));
            }
            bounds.push(Bounds {
                low: signed_distance(record_ns, after_ns),
                high: signed_distance(record_ns, before_ns),
            });
        }
        let (offset_ns, error_ns) =
            combine(&bounds).ok_or_else(|| failed("no reading".to_owned()))?;
        self.relation = Relation {
            offset_ns,
            error_ns,
            measured_ns: monotonic_ns(),
        };
        Ok(())
    }

    fn read(&self) -> [u64; 2] {
        let words = self.reading.start().cast::<[AtomicU64; 2]>();
        // SAFETY: The mapping is long enough, aligned to a page, and lives as long as the borrow.
        let words = unsafe { words.as_ref() };
        // The probe ran in this thread's own system call, so its stores are there.
        words.each_ref().map(|word| word.load(Ordering::Relaxed))
    }
}

/// What one try says: the offset is not below the one and not above the other.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: i64,
    high: i64,
}

/// The offset and its error that follow from several tries.
///
/// Where they contradict one another, because the CPUs' clocks are apart, the error covers them all.
fn combine(tries: &[Bounds]) -> Option<(i64, u64)> {
    let low = tries.iter().map(|bounds| bounds.low).max()?;
    let high = tries.iter().map(|bounds| bounds.high).min()?;
    let (low, high) = (low.min(high), low.max(high));
    let offset = low.midpoint(high);
    Some((offset, offset.abs_diff(low).max(offset.abs_diff(high))))
}

/// `a - b`, for times less than 292 years apart.
fn signed_distance(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Wall time (`CLOCK_REALTIME`) in nanoseconds since 1970.
pub(crate) fn unix_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither clock is negative, and 2^64 ns are 584 years.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Bounds, combine};

    #[test]
    fn tries_are_intersected() {
        let tries = [Bounds { low: 10, high: 30 }, Bounds { low: 0, high: 20 }];
        assert_eq!(combine(&tries), Some((15, 5)));
    }

    #[test]
    fn a_contradiction_widens_the_error() {
        let tries = [Bounds { low: 0, high: 10 }, Bounds { low: 50, high: 60 }];
        let (offset, error) = combine(&tries).unwrap();
        for edge in [10, 50] {
            assert!(
                offset.abs_diff(edge) <= error,
                "{offset} +- {error} has {edge}"
            );
        }
    }

    #[test]
    fn no_try_says_nothing() {
        assert_eq!(combine(&[]), None);
    }
}
