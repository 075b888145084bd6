//! What threads really did in a window, as figures that can be compared with a core's.

use std::collections::BTreeMap;

use schedscope::core::{Figures, LatencyHistogram, Reason, Share};

use super::{Change, DEAD, Machine, Task, TaskState};

/// True figures, in the form in which they are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Truth {
    /// By share.
    pub(crate) time_ns: [u128; 4],
    /// By wait state.
    pub(crate) blocked_ns: [u128; Reason::COUNT],
    pub(crate) runqueue_delay: Distribution,
    pub(crate) offcpu: Distribution,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    pub(crate) wakeups: u64,
    pub(crate) migrations: u64,
    pub(crate) censored: u64,
}

/// All there is to compare of a distribution.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) sum_ns: u128,
    pub(crate) max_ns: u64,
    pub(crate) buckets: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            count,
            sum_ns,
            max_ns,
            ..
        } = self;
        write!(f, "{count} of {sum_ns} ns, at most {max_ns} ns")
    }
}

impl From<&LatencyHistogram> for Distribution {
    fn from(histogram: &LatencyHistogram) -> Self {
        Self {
            count: histogram.count(),
            sum_ns: histogram.sum_ns(),
            max_ns: histogram.max_ns(),
            buckets: histogram.buckets().collect(),
        }
    }
}

impl From<&[u64]> for Distribution {
    fn from(samples: &[u64]) -> Self {
        let mut histogram = LatencyHistogram::default();
        for &sample in samples {
            histogram.record(sample);
        }
        Self::from(&histogram)
    }
}

impl From<&Figures> for Truth {
    fn from(figures: &Figures) -> Self {
        Self {
            time_ns: Share::ALL.map(|share| figures.time(share)),
            blocked_ns: {
                let mut blocked_ns = [0; Reason::COUNT];
                for reason in Reason::all() {
                    blocked_ns[reason.index()] = figures.blocked(reason);
                }
                blocked_ns
            },
            runqueue_delay: Distribution::from(&figures.runqueue_delay),
            offcpu: Distribution::from(&figures.offcpu),
            voluntary: figures.voluntary,
            involuntary: figures.involuntary,
            wakeups: figures.wakeups,
            migrations: figures.migrations,
            censored: figures.censored,
        }
    }
}

impl Truth {
    /// Adds another thread's figures.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, part) in self.time_ns.iter_mut().zip(other.time_ns) {
            *sum += part;
        }
        for (sum, part) in self.blocked_ns.iter_mut().zip(other.blocked_ns) {
            *sum += part;
        }
        self.runqueue_delay.add(&other.runqueue_delay);
        self.offcpu.add(&other.offcpu);
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.wakeups += other.wakeups;
        self.migrations += other.migrations;
        self.censored += other.censored;
    }
}

impl Distribution {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        let mut buckets: BTreeMap<u64, u64> = self.buckets.drain(..).collect();
        for &(end, count) in &other.buckets {
            *buckets.entry(end).or_default() += count;
        }
        self.buckets = buckets.into_iter().collect();
    }
}

/// Who looks, and at what time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// When the window began.
    pub(crate) start_ns: u64,
    pub(crate) at_ns: u64,
    /// From when on the thread counts; the start if that is later.
    pub(crate) admitted_ns: u64,
    /// A thread that was woken is shown as blocked until it gets a CPU: no record says otherwise.
    pub(crate) is_wake_hidden: bool,
}

/// Why a thread waits whose word is this, when nothing else is known of it.
pub(crate) fn reason_of(word: u16) -> Reason {
    match word {
        0x402 => Reason::KthreadIdle,
        0x104 | 0x8 => Reason::Stopped,
        _ => Reason::Unknown,
    }
}

/// Durations of all stays on a run queue and off a CPU that a thread ever finished.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stays {
    pub(crate) queued_ns: Vec<u64>,
    pub(crate) offcpu_ns: Vec<u64>,
}

impl Machine {
    /// What a thread did.
    pub(crate) fn truth(&self, task: Task, view: View) -> Truth {
        let state = &self.tasks[task];
        let from_ns = view.start_ns.max(view.admitted_ns);
        let mut truth = Truth::default();
        let (mut queued, mut offcpu) = (Vec::new(), Vec::new());
        let mut left_ns = None;
        let mut queued_ns = None;
        let mut is_woken = false;
        // On kernels that count a run without a stamp, nothing proves what comes after one.
        let hides_runs = self.config.counts && self.config.counts_unqueued;
        let (mut is_unstamped, mut is_unproven) = (false, false);
        // The CPU before this one, as far as the records and the task iterator tell.
        let mut cpu = state.found_cpu;
        let mut ran_on = None;
        let changes: Vec<(u64, Change)> = state
            .changes
            .iter()
            .copied()
            .filter(|&(ts_ns, _)| ts_ns <= view.at_ns)
            .collect();
        for (place, &(ts_ns, change)) in changes.iter().enumerate() {
            let is_in = ts_ns > view.start_ns && ts_ns >= view.admitted_ns;
            match change {
                Change::Born => queued_ns = Some(ts_ns),
                Change::Wake => {
                    queued_ns = Some(ts_ns);
                    is_woken = true;
                }
                Change::Enter { cpu: to } => {
                    if is_in {
                        truth.wakeups += u64::from(is_woken && queued_ns > Some(view.start_ns));
                        truth.migrations += u64::from(cpu.is_some_and(|from| from != to));
                        let seen = |ns: &u64| {
                            *ns > view.start_ns && *ns >= view.admitted_ns && !is_unproven
                        };
                        queued.extend(queued_ns.filter(seen).map(|ns| ts_ns - ns));
                        match left_ns.filter(seen) {
                            Some(left_ns) => offcpu.push(ts_ns - left_ns),
                            None => {
                                let is_first = left_ns.is_none() && place == 1;
                                let born_in = changes[0].0 > view.start_ns;
                                truth.censored += u64::from(!(is_first && born_in));
                            }
                        }
                    }
                    ran_on = Some(to);
                    if ts_ns > self.attached_ns {
                        cpu = ran_on;
                    }
                    (left_ns, queued_ns, is_woken) = (None, None, false);
                    is_unproven = is_unstamped && hides_runs && ts_ns > self.attached_ns;
                }
                Change::Leave { word, is_preempted } => {
                    let wants_more = is_preempted || word == 0;
                    if is_in {
                        truth.involuntary += u64::from(wants_more);
                        truth.voluntary += u64::from(!wants_more);
                    }
                    if ts_ns > self.attached_ns {
                        cpu = ran_on;
                    }
                    left_ns = Some(ts_ns);
                    queued_ns = wants_more.then_some(ts_ns);
                    is_woken = false;
                    is_unstamped = is_preempted && word != 0;
                }
            }
            let end_ns = changes.get(place + 1).map_or(view.at_ns, |next| next.0);
            let duration_ns = u128::from(end_ns.saturating_sub(ts_ns.max(from_ns)));
            let is_open = place + 1 == changes.len();
            match share_after(state, &changes[..=place], is_open && view.is_wake_hidden) {
                None => {}
                Some((share, word)) => {
                    truth.time_ns[share as usize] += duration_ns;
                    if share == Share::Blocked {
                        truth.blocked_ns[reason_of(word).index()] += duration_ns;
                    }
                }
            }
        }
        truth.runqueue_delay = Distribution::from(&queued[..]);
        truth.offcpu = Distribution::from(&offcpu[..]);
        truth
    }

    /// All waits of a thread, in whatever window.
    ///
    /// A run that begins and ends on the way to sleep has no stamp at either end, and the kernel may
    /// not count it: with `joins_uncounted`, the stays before and after it are taken for one.
    pub(crate) fn stays(&self, task: Task, joins_uncounted: bool) -> Stays {
        let mut stays = Stays::default();
        let (mut left_ns, mut queued_ns) = (None, None);
        let mut is_unstamped = false;
        let mut uncounted_ns = None;
        for &(ts_ns, change) in &self.tasks[task].changes {
            match change {
                Change::Born | Change::Wake => queued_ns = Some(ts_ns),
                Change::Enter { .. } => {
                    stays.queued_ns.extend(queued_ns.map(|ns: u64| ts_ns - ns));
                    stays.offcpu_ns.extend(left_ns.map(|ns: u64| ts_ns - ns));
                    uncounted_ns = left_ns.filter(|_| joins_uncounted && is_unstamped);
                    (left_ns, queued_ns) = (None, None);
                }
                Change::Leave { word, is_preempted } => {
                    is_unstamped = is_preempted && word != 0;
                    let from_ns = uncounted_ns.filter(|_| is_unstamped).unwrap_or(ts_ns);
                    left_ns = Some(from_ns);
                    queued_ns = (is_preempted || word == 0).then_some(from_ns);
                }
            }
        }
        stays
    }

    /// When a thread ended, if it did by then.
    pub(crate) fn ended_ns(&self, task: Task, at_ns: u64) -> Option<u64> {
        let (ts_ns, change) = *self.tasks[task]
            .changes
            .iter()
            .rfind(|change| change.0 <= at_ns)?;
        matches!(change, Change::Leave { word: DEAD, .. }).then_some(ts_ns)
    }

    /// Whether a thread is alive and off the CPU.
    pub(crate) fn is_open(&self, task: Task, at_ns: u64) -> bool {
        let last = self.tasks[task]
            .changes
            .iter()
            .rfind(|change| change.0 <= at_ns);
        last.is_some_and(|&(_, change)| {
            !matches!(
                change,
                Change::Enter { .. } | Change::Leave { word: DEAD, .. }
            )
        })
    }
}

/// What a thread does after its last change; `None` once it has ended.
fn share_after(
    state: &TaskState,
    changes: &[(u64, Change)],
    is_wake_hidden: bool,
) -> Option<(Share, u16)> {
    let &(ts_ns, change) = changes.last()?;
    match change {
        Change::Born => Some((Share::Runnable, 0)),
        Change::Enter { .. } => Some((Share::Running, 0)),
        Change::Leave { word: DEAD, .. } => None,
        Change::Leave { word, is_preempted } if is_preempted || word == 0 => {
            Some((Share::Runnable, word))
        }
        Change::Leave { word, .. } => Some((Share::Blocked, word)),
        Change::Wake => {
            let was_read = state
                .found_queued_ns
                .is_some_and(|read_ns| ts_ns <= read_ns);
            match changes.iter().rev().nth(1) {
                Some(&(_, Change::Leave { word, .. })) if is_wake_hidden && !was_read => {
                    Some((Share::Blocked, word))
                }
                _ => Some((Share::Runnable, 0)),
            }
        }
    }
}
