//! When a flight recorder writes what it keeps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::core::Core;

/// What must be out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A thread of a target got a CPU after so long.
    RunQueueDelay,
    /// A thread of a target has been waiting for a CPU for so long.
    CpuWait,
    /// A thread of a target has been waiting for so long for something else, idleness left aside.
    Blocked,
}

impl What {
    const ALL: [Self; 3] = [Self::RunQueueDelay, Self::CpuWait, Self::Blocked];

    const fn name(self) -> &'static str {
        match self {
            Self::RunQueueDelay => "run-queue-delay",
            Self::CpuWait => "cpu-wait",
            Self::Blocked => "blocked",
        }
    }
}

/// A condition, as `--when` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    what: What,
    over: Duration,
}

/// It is no condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected run-queue-delay, cpu-wait or blocked, then `>` and a time, such as 'run-queue-delay>50ms'"
)]
pub struct NoCondition;

impl FromStr for Condition {
    type Err = NoCondition;

    fn from_str(text: &str) -> Result<Self, NoCondition> {
        let (name, time) = text.split_once('>').ok_or(NoCondition)?;
        let mut all = What::ALL.into_iter();
        let what = all.find(|what| what.name() == name.trim());
        let over = humantime::parse_duration(time.trim()).map_err(|_| NoCondition)?;
        Ok(Self {
            what: what.ok_or(NoCondition)?,
            over,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = humantime::format_duration(self.over);
        write!(f, "{}>{over}", self.what.name())
    }
}

/// Conditions, and which of them were met when somebody last looked.
#[derive(Clone, Debug)]
pub struct Watch {
    conditions: Vec<(Condition, State)>,
}

/// What a condition looked like.
#[derive(Clone, Copy, Debug)]
enum State {
    /// So many delays were over the threshold.
    Counted(u64),
    /// A wait is over the threshold, or none is.
    Met(bool),
}

impl Watch {
    /// Nothing was met so far.
    #[must_use]
    pub fn new(conditions: &[Condition]) -> Self {
        let begin = |condition: &Condition| match condition.what {
            What::RunQueueDelay => (*condition, State::Counted(0)),
            What::CpuWait | What::Blocked => (*condition, State::Met(false)),
        };
        Self {
            conditions: conditions.iter().map(begin).collect(),
        }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// A condition that is met and was not before. A wait that goes on meets it once.
    pub fn look(&mut self, core: &Core) -> Option<Condition> {
        let longest = core.longest_open();
        let mut met = None;
        for (condition, state) in &mut self.conditions {
            let over_ns = u64::try_from(condition.over.as_nanos()).unwrap_or(u64::MAX);
            let is_new = match (condition.what, *state) {
                (What::RunQueueDelay, State::Counted(before)) => {
                    let count = core.delays_above(over_ns);
                    *state = State::Counted(count);
                    count > before
                }
                (what, State::Met(before)) => {
                    let longest_ns = match what {
                        What::Blocked => longest.blocked_ns,
                        _ => longest.queued_ns,
                    };
                    *state = State::Met(longest_ns > over_ns);
                    longest_ns > over_ns && !before
                }
                (_, State::Counted(_)) => false,
            };
            if is_new {
                met.get_or_insert(*condition);
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::{Condition, NoCondition, Watch};
    use crate::core::decode::Event;
    use crate::core::{Core, Selector, Stream, TargetSpec};
    use profiler_ebpf::{RawRecord, Switch, ThreadRecord, Wakeup};

    #[test]
    fn conditions_are_read_and_shown() {
        for text in ["run-queue-delay>50ms", "cpu-wait>1s", "blocked>2m"] {
            let condition: Result<Condition, _> = text.parse();
            assert_eq!(condition.map(|its| its.to_string()), Ok(text.to_owned()));
        }
        for wrong in [
            "",
            "50ms",
            "delay>50ms",
            "blocked>",
            "blocked>5",
            "blocked=5s",
        ] {
            assert_eq!(wrong.parse::<Condition>(), Err(NoCondition), "{wrong}");
        }
    }

    /// A millisecond.
    const MS: u64 = 1_000_000;

    fn feed(core: &mut Core, records: &[RawRecord], until_ns: u64) {
        core.feed(&[Stream::new(records)], until_ns);
    }

    #[test]
    fn each_condition_is_met_once_by_what_it_names() {
        let mut core = Core::new(vec![TargetSpec {
            name: "x".to_owned(),
            selector: Selector::Pid(7),
            per_thread: false,
        }]);
        let asleep = ThreadRecord {
            tid: 7,
            tgid: 7,
            // Uninterruptible: no idleness.
            state: 2,
            ..ThreadRecord::default()
        };
        core.found(&[asleep], 0..=1);
        feed(&mut core, &[], MS);
        core.begin_window();
        let conditions = ["run-queue-delay>5ms", "cpu-wait>5ms", "blocked>5ms"];
        let conditions = conditions.map(|text| text.parse().expect("a condition"));
        let mut watch = Watch::new(&conditions);
        let mut look = |core: &Core| watch.look(core).map(|its| its.to_string());
        feed(&mut core, &[], 4 * MS);
        assert_eq!(look(&core), None);
        feed(&mut core, &[], 8 * MS);
        assert_eq!(look(&core).as_deref(), Some("blocked>5ms"));
        assert_eq!(look(&core), None, "it is the same wait");
        let wakeup = Wakeup {
            ts_ns: 9 * MS,
            tid: 7,
            ..Wakeup::default()
        };
        feed(&mut core, &[Event::Wakeup(wakeup).encode()], 20 * MS);
        assert_eq!(look(&core).as_deref(), Some("cpu-wait>5ms"));
        let switch = Switch {
            ts_ns: 21 * MS,
            next_tid: 7,
            ..Switch::default()
        };
        feed(&mut core, &[Event::Switch(switch).encode()], 22 * MS);
        assert_eq!(look(&core).as_deref(), Some("run-queue-delay>5ms"));
        feed(&mut core, &[], 30 * MS);
        assert_eq!(look(&core), None);
    }
}
