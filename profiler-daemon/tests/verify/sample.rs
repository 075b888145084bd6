//! The kernel's counters, read again and again beside a measurement: what they grew by within its window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// Time between two readings: what is pending at either end of a window is less than this and a tick.
const INTERVAL: Duration = Duration::from_millis(2);

/// The moment, as reports have it.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

/// Reads so many counters at once.
pub(crate) type Read<const N: usize> = Box<dyn FnMut() -> Option<[u64; N]> + Send>;

/// What was read, between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<const N: usize> {
    pub(crate) before_ns: u64,
    pub(crate) after_ns: u64,
    pub(crate) values: [u64; N],
}

impl<const N: usize> Sample<N> {
    pub(crate) fn at_ns(&self) -> u64 {
        self.before_ns.midpoint(self.after_ns)
    }
}

/// Counters that are being read.
pub(crate) struct Series<const N: usize> {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Vec<Sample<N>>>,
}

impl<const N: usize> Series<N> {
    /// Begins to read.
    pub(crate) fn start(mut read: Read<N>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                let before_ns = unix_ns();
                if let Some(values) = read() {
                    samples.push(Sample {
                        before_ns,
                        after_ns: unix_ns(),
                        values,
                    });
                }
                thread::sleep(INTERVAL);
            }
            samples
        });
        Self { stop, reader }
    }

    /// Stops, and hands out what was read.
    pub(crate) fn finish(self) -> Result<Vec<Sample<N>>> {
        self.stop.store(true, Ordering::Release);
        self.reader
            .join()
            .ok()
            .context("the counters were not read")
    }

    /// Stops, and tells what each counter grew by from one moment to another.
    pub(crate) fn grown(self, from_ns: u64, until_ns: u64) -> Result<[u64; N]> {
        let samples = self.finish()?;
        let samples: Vec<_> = samples
            .iter()
            .map(|sample| (sample.at_ns(), sample.values))
            .collect();
        let outside = "the window is not within the time in which the counters were read";
        let from = at(&samples, from_ns).context(outside)?;
        let until = at(&samples, until_ns).context(outside)?;
        Ok(std::array::from_fn(|place| {
            until[place].saturating_sub(from[place])
        }))
    }
}

/// The counters at a moment between two readings.
fn at<const N: usize>(samples: &[(u64, [u64; N])], at_ns: u64) -> Option<[u64; N]> {
    let after = samples.partition_point(|sample| sample.0 < at_ns);
    let (left, right) = (samples.get(after.checked_sub(1)?)?, samples.get(after)?);
    let (part, whole) = (at_ns - left.0, (right.0 - left.0).max(1));
    Some(std::array::from_fn(|place| {
        let grown = u128::from(right.1[place].saturating_sub(left.1[place]));
        let share = grown * u128::from(part) / u128::from(whole);
        left.1[place] + u64::try_from(share).unwrap_or(0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_readings_counters_grow_evenly() {
        let samples = [(100, [10, 0]), (200, [20, 1000]), (300, [20, 1000])];
        assert_eq!(at(&samples, 150), Some([15, 500]));
        assert_eq!(at(&samples, 200), Some([20, 1000]));
        assert_eq!(at(&samples, 250), Some([20, 1000]));
        assert_eq!(at(&samples, 100), None);
        assert_eq!(at(&samples, 301), None);
    }

    #[test]
    fn a_window_beside_the_readings_is_an_error() {
        let series = Series::start(Box::new(|| Some([1])));
        thread::sleep(3 * INTERVAL);
        assert!(series.grown(0, 1).is_err());
        let series = Series::start(Box::new(|| Some([unix_ns()])));
        let pause = Duration::from_millis(200);
        thread::sleep(pause);
        let from_ns = unix_ns();
        thread::sleep(pause);
        let until_ns = unix_ns();
        thread::sleep(pause);
        let grown = series.grown(from_ns, until_ns);
        assert!(grown.is_ok(), "{grown:?}");
    }
}
