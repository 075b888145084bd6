//! Snapshots to what a screen shows: rows, one of them in detail, what was of late, and a verdict.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::part;
use super::row::{Group, Level, Row, RowKey};
use crate::core::{
    Account, LatencyHistogram, LongWait, Snapshot, TargetSnapshot, ThreadSnapshot, Who,
};
use crate::sink::report::{Report, ReportFacts};
use crate::sink::verdict::Finding;

/// Ticks whose P99 is kept.
pub const TREND: usize = 60;

/// A verdict is on at least so much of the past, if there is so much: a second is thin evidence.
const VERDICT_NS: u64 = 5_000_000_000;

/// Threads that a verdict looks at one by one; of the others only the sum.
const VERDICT_THREADS: usize = 200;

/// What a screen is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Version of this program.
    pub version: String,
    /// The targets, for the title.
    pub title: String,
    /// Whether wakeups are recorded.
    pub wakeups: bool,
}

/// Over which time figures are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// From the tick before the last to the last.
    #[default]
    Tick,
    /// From the beginning.
    Whole,
}

/// What is known of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Its name.
    pub name: String,
    /// The label of its unit.
    pub unit: String,
}

/// One row in detail.
pub struct Detail<'a> {
    /// What it did, and by whom.
    pub account: Account,
    /// Its longest waits, those that go on first, each with whether it is idleness.
    pub waits: Vec<&'a LongWait>,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Model {
    about: About,
    now: Option<Arc<Snapshot>>,
    tick: Option<Snapshot>,
    /// The snapshots from which the verdict's time may begin, the oldest first.
    past: VecDeque<Arc<Snapshot>>,
    verdict: Vec<Finding>,
    names: HashMap<u32, Names>,
    trends: HashMap<RowKey, VecDeque<u64>>,
}

impl Model {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(about: About) -> Self {
        Self {
            about,
            ..Self::default()
        }
    }

    /// What it is about.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The newest figures, once there are some.
    #[must_use]
    pub fn now(&self) -> Option<&Snapshot> {
        self.now.as_deref()
    }

    /// The figures of the last tick.
    #[must_use]
    pub fn tick(&self) -> Option<&Snapshot> {
        self.tick.as_ref()
    }

    /// What dominates now.
    #[must_use]
    pub fn verdict(&self) -> &[Finding] {
        &self.verdict
    }

    /// Takes in newer figures of the same window: a tick.
    pub fn take(&mut self, snapshot: Arc<Snapshot>) {
        let tick = match &self.now {
            Some(before) => snapshot.since(before),
            None => Snapshot::clone(&snapshot),
        };
        self.remember(&tick);
        self.tick = Some(tick);
        // Two are enough for a beginning that lies between once and twice as long ago; each is as large as
        // all that is known of the threads.
        let is_due = |its: &Arc<Snapshot>| snapshot.at_ns.saturating_sub(its.at_ns) >= VERDICT_NS;
        if self.past.back().is_none_or(is_due) {
            self.past.push_back(Arc::clone(&snapshot));
            if self.past.len() > 2 {
                self.past.pop_front();
            }
        }
        self.now = Some(snapshot);
    }

    /// Forgets all figures, but not the names: what is taken next may be of any time.
    pub fn rewind(&mut self) {
        let (about, names) = (
            std::mem::take(&mut self.about),
            std::mem::take(&mut self.names),
        );
        *self = Self {
            names,
            ..Self::new(about)
        };
    }

    /// Judges what was of late. Apart from [`Self::take`], since it takes names, which come in between.
    pub fn judge(&mut self) {
        let (Some(now), Some(then)) = (&self.now, self.past.front()) else {
            return;
        };
        let late = if Arc::ptr_eq(now, then) {
            Snapshot::clone(now)
        } else {
            now.since(then)
        };
        let worst = late.targets.iter().max_by_key(|target| hurt_ns(target));
        let Some(target) = worst else { return };
        let facts = ReportFacts {
            version: &self.about.version,
            start_unix_ns: 0,
            target_kind: "screen",
            target_value: &self.about.title,
            dropped: &[],
            missed: 0,
            clock_error_ns: None,
            wakeups: self.about.wakeups,
            unit_of: &|tgid| self.unit(tgid),
            name_of: &|tgid| self.process(tgid, ""),
            user_stack_of: &|_, _| Vec::new(),
            notes: &[],
            exit: None,
        };
        self.verdict = Report::new(&late, &shortened(target), &facts).verdict;
    }

    fn remember(&mut self, tick: &Snapshot) {
        let mut delays: HashMap<RowKey, LatencyHistogram> = HashMap::new();
        for thread in threads(tick) {
            let its = &thread.account.figures.runqueue_delay;
            if its.count() > 0 {
                for level in [Level::Threads, Level::Processes, Level::Units] {
                    delays
                        .entry(self.key(thread, level))
                        .or_default()
                        .merge(its);
                }
            }
        }
        for (key, trend) in &mut self.trends {
            let p99_ns = delays.remove(key).map_or(0, |its| p99(&its));
            trend.push_back(p99_ns);
            if trend.len() > TREND {
                trend.pop_front();
            }
        }
        self.trends
            .retain(|_, trend| trend.iter().any(|&ns| ns > 0));
        for (key, its) in delays {
            self.trends.insert(key, VecDeque::from([p99(&its)]));
        }
    }

    /// Processes of the last tick, and those that had a CPU in it, that nobody has named yet.
    #[must_use]
    pub fn nameless(&self) -> Vec<u32> {
        let mut nameless = HashSet::new();
        for target in self.tick.iter().flat_map(|tick| &tick.targets) {
            let culprits = target.total.detail.culprits.rows().into_iter();
            let tgids = culprits.map(|(_, who, _)| who.tgid);
            nameless.extend(tgids.chain(target.threads.iter().map(|thread| thread.tgid)));
        }
        nameless.remove(&0);
        nameless.retain(|tgid| !self.names.contains_key(tgid));
        nameless.into_iter().collect()
    }

    /// Names a process.
    pub fn name(&mut self, tgid: u32, names: Names) {
        self.names.insert(tgid, names);
    }

    /// Forgets the names, since processes end, and are moved.
    pub fn forget_names(&mut self) {
        self.names.clear();
    }

    fn unit(&self, tgid: u32) -> String {
        match self.names.get(&tgid) {
            Some(names) => names.unit.clone(),
            None => String::new(),
        }
    }

    fn key(&self, thread: &ThreadSnapshot, level: Level) -> RowKey {
        match level {
            Level::Threads => RowKey::Thread(thread.serial),
            Level::Processes => RowKey::Process(thread.tgid),
            Level::Units => RowKey::Unit(self.unit(thread.tgid)),
        }
    }

    fn figures(&self, span: Span) -> Option<&Snapshot> {
        match span {
            Span::Tick => self.tick(),
            Span::Whole => self.now(),
        }
    }

    /// All rows of a level, in no order that means anything. Threads that are only idle make no row
    /// unless `idle`.
    #[must_use]
    pub fn rows(&self, level: Level, span: Span, idle: bool) -> Vec<Row> {
        let Some(snapshot) = self.figures(span) else {
            return Vec::new();
        };
        let label = |who: &Who| self.label(who, level);
        let is_shown = |thread: &&ThreadSnapshot| idle || is_active(thread);
        if level == Level::Threads {
            let threads = threads(snapshot).filter(is_shown);
            return threads
                .map(|thread| self.row(RowKey::Thread(thread.serial), &Group::new(thread), &label))
                .collect();
        }
        let mut groups: BTreeMap<RowKey, Group<'_>> = BTreeMap::new();
        for thread in threads(snapshot) {
            match groups.get_mut(&self.key(thread, level)) {
                Some(group) => group.add(thread),
                None => {
                    groups.insert(self.key(thread, level), Group::new(thread));
                }
            }
        }
        groups
            .into_iter()
            .map(|(key, group)| self.row(key, &group, &label))
            .filter(|row| idle || row.is_active())
            .collect()
    }

    fn row(&self, key: RowKey, group: &Group<'_>, label: &dyn Fn(&Who) -> String) -> Row {
        let thread = group.named();
        let (name, id) = match &key {
            RowKey::Thread(_) => (thread.comm.display(), thread.identity.tid),
            RowKey::Process(tgid) => (self.process(*tgid, &thread.comm.display()), *tgid),
            RowKey::Unit(unit) if unit.is_empty() => ("(not known)".to_owned(), 0),
            RowKey::Unit(unit) => (unit.clone(), 0),
        };
        let trend = self
            .trends
            .get(&key)
            .map(|its| its.iter().copied().collect());
        let unit = self.unit(thread.tgid);
        group.row((key, name, id), unit, trend.unwrap_or_default(), label)
    }

    fn process(&self, tgid: u32, otherwise: &str) -> String {
        match self.names.get(&tgid) {
            Some(names) if !names.name.is_empty() => names.name.clone(),
            _ => otherwise.to_owned(),
        }
    }

    /// What somebody is called at this level.
    #[must_use]
    pub fn label(&self, who: &Who, level: Level) -> String {
        let comm = who.comm.display();
        match level {
            _ if who.is_interrupts() => comm,
            Level::Threads => format!("{comm}/{}", who.tid),
            Level::Processes => format!("{}/{}", self.process(who.tgid, &comm), who.tgid),
            Level::Units => match self.unit(who.tgid) {
                unit if unit.is_empty() => comm,
                unit => unit,
            },
        }
    }

    /// All rows together.
    #[must_use]
    pub fn total(&self, span: Span) -> Account {
        let mut total = Account::default();
        for target in self.figures(span).iter().flat_map(|its| &its.targets) {
            total.merge(&target.total);
        }
        total
    }

    /// One row in detail; nothing if it is not there any more.
    #[must_use]
    pub fn detail(&self, key: &RowKey, level: Level, span: Span) -> Option<Detail<'_>> {
        let snapshot = self.figures(span)?;
        let mut account: Option<Account> = None;
        for thread in threads(snapshot).filter(|thread| self.key(thread, level) == *key) {
            account.get_or_insert_default().merge(&thread.account);
        }
        let is_its = |wait: &&LongWait| match key {
            RowKey::Thread(serial) => wait.serial == *serial,
            RowKey::Process(tgid) => wait.who.tgid == *tgid,
            RowKey::Unit(unit) => self.unit(wait.who.tgid) == *unit,
        };
        let mut waits: Vec<&LongWait> = Vec::new();
        for target in self.now().iter().flat_map(|now| &now.targets) {
            for worst in [&target.stuck, &target.worst] {
                let of_work = worst.queued.iter().chain(worst.blocked.iter());
                waits.extend(of_work.filter(is_its));
            }
        }
        waits.sort_by_key(|wait| (!wait.is_open, std::cmp::Reverse(wait.duration_ns())));
        Some(Detail {
            account: account?,
            waits,
        })
    }
}

fn threads(snapshot: &Snapshot) -> impl Iterator<Item = &ThreadSnapshot> {
    let targets = snapshot.targets.iter();
    targets.flat_map(|target| target.threads.iter().map(|thread| &**thread))
}

fn p99(histogram: &LatencyHistogram) -> u64 {
    let [_, _, p99_ns, _] = histogram.quantiles_ns();
    p99_ns
}

fn is_active(thread: &ThreadSnapshot) -> bool {
    let parts = part::parts(&thread.account.figures);
    let idle = parts[part::Part::Idle as usize];
    sum(&parts) > idle
}

fn sum(parts: &part::Parts) -> u64 {
    parts.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
}

fn hurt_ns(target: &TargetSnapshot) -> u64 {
    let parts = part::parts(&target.total.figures);
    let hurts = part::Part::ALL.iter().filter(|part| part.hurts());
    hurts
        .map(|part| parts[*part as usize])
        .fold(0, u64::saturating_add)
}

/// The target with those threads only that hurt most: the others are in the total.
fn shortened(target: &TargetSnapshot) -> TargetSnapshot {
    let mut threads = target.threads.clone();
    let hurt = |thread: &ThreadSnapshot| {
        let parts = part::parts(&thread.account.figures);
        let idle = parts[part::Part::Idle as usize];
        sum(&parts) - idle
    };
    if threads.len() > VERDICT_THREADS {
        threads.sort_by_cached_key(|thread| std::cmp::Reverse(hurt(thread)));
        threads.truncate(VERDICT_THREADS);
    }
    TargetSnapshot {
        unlisted: target.unlisted + (target.threads.len() - threads.len()) as u64,
        threads,
        ..target.clone()
    }
}
