//! What is known of the processes of this host, kept current.
//!
//! What a cgroup means is worked out once for each cgroup, however many processes are in it; of a process
//! it is only kept which cgroup it is in. A process that is born is in its parent's cgroup, so that nothing
//! has to be read for that, and a process that ends before anybody could look is still known. Whoever is
//! asked for is read again when the last look is some seconds old, since processes are moved.
//!
//! What has ended is forgotten after a grace time; a cgroup is forgotten with its last process.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::hierarchy::unit_of;
use super::keeper::LEARN_EVERY;
use super::names::Node;
use super::selection::Selection;
use super::unit::{Unit, clean};
use crate::core::Birth;
use crate::source::pids;

/// Something read is taken to be true for so long.
const FRESH: Duration = Duration::from_secs(10);

/// What has ended is kept for so long, for those who ask late; longer than scrapes usually are apart.
pub const GRACE: Duration = Duration::from_mins(5);

/// Time between two searches for what has ended.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// What a unit is called that there is no room for.
pub const OTHER: &str = "other";

/// Its number.
const NO_ROOM: u32 = u32::MAX;

/// Somebody may have asked for a process before its birth was told. What was read since then stays.
const BEFORE_NEWS: Duration = LEARN_EVERY.saturating_mul(2);

/// Names that are not there yet are looked for again after this time, then after twice as long, up to
/// [`MAX_RETRY`]: kubelet makes its entries a little after the container was started.
const FIRST_RETRY: Duration = Duration::from_secs(5);

const MAX_RETRY: Duration = Duration::from_mins(5);

/// Longest text of a `/proc/PID/cgroup`, in bytes: a line for each of some 14 hierarchies, each path up
/// to 4,096 long. What is beyond is cut.
const MAX_TEXT: u64 = 1 << 16;

/// What was read is read again after this time at the latest: processes are moved now and then.
const REREAD: Duration = Duration::from_mins(1);

/// Which process is in which cgroup, and what those are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Processes that are there, each with the number of its cgroup.
    pub processes: Vec<(u32, u32)>,
    /// The labels of the units of these cgroups.
    pub labels: HashMap<u32, String>,
}

/// What a process is called, and what it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Label of its unit, see [`Unit::label`]; empty if it is not known.
    pub unit: String,
    /// Its own name; empty if it is not known.
    pub name: String,
}

#[derive(Debug)]
struct Cgroup {
    unit: Unit,
    label: String,
    /// When the label's names are to be looked for again, and the time after that.
    retry: Option<(Instant, Duration)>,
}

#[derive(Debug, Default)]
struct Process {
    /// Number of its cgroup, if anybody knows.
    cgroup: Option<u32>,
    /// Its name when it was last asked for.
    name: Box<str>,
    /// When it was last read; never if it only inherited what is known.
    read: Option<Instant>,
    /// When it was first found to have ended.
    gone: Option<Instant>,
}

/// How much is kept, or may be kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Processes, ended ones included. Those that come beyond are not known until others are forgotten.
    pub processes: usize,
    /// Those of them that have ended; beyond, the ones that did so first are forgotten before their time.
    pub ended: usize,
    /// Cgroups. What is in others has the unit [`OTHER`].
    pub cgroups: usize,
}

/// Some 20 MiB, if all of it is used.
const MOST: Size = Size {
    processes: 1 << 17,
    ended: 1 << 17,
    cgroups: 1 << 14,
};

/// For who runs for good: where processes come and go fast, each in a cgroup of its own, what is kept of those that
/// have ended does not grow for as long as they are remembered elsewhere. A kilobyte each, at that.
const MOST_FOR_GOOD: Size = Size {
    ended: 1 << 9,
    ..MOST
};

/// All that is known of processes.
#[derive(Debug)]
pub struct Registry {
    most: Size,
    proc: PathBuf,
    node: Node,
    processes: HashMap<u32, Process>,
    /// Numbers of cgroups by the text of `/proc/PID/cgroup`.
    numbers: HashMap<Box<str>, u32>,
    cgroups: Vec<Option<Cgroup>>,
    free: Vec<u32>,
    swept: Option<Instant>,
    /// How many were born since then.
    born: usize,
    buffer: Vec<u8>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(Path::new("/"))
    }
}

impl Registry {
    /// Knows nothing yet of the host whose `proc` and other directories are below this one: `/` but in
    /// tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self::bounded(root, MOST)
    }

    /// [`Self::default`] for a process that runs for good, and asks for names again and again.
    #[must_use]
    pub fn for_good() -> Self {
        Self::bounded(Path::new("/"), MOST_FOR_GOOD)
    }

    /// [`Self::new`] that keeps no more than this.
    #[must_use]
    pub fn bounded(root: &Path, most: Size) -> Self {
        Self {
            most,
            proc: root.join("proc"),
            node: Node::new(root),
            processes: HashMap::new(),
            numbers: HashMap::new(),
            cgroups: Vec::new(),
            free: Vec::new(),
            swept: None,
            born: 0,
            buffer: Vec::new(),
        }
    }

    /// Reads which processes there are, and the cgroups of those that are not known yet.
    pub fn discover(&mut self, now: Instant) {
        for tgid in self.alive() {
            let is_known = |its: &Process| its.read.is_some() && its.gone.is_none();
            if !self.processes.get(&tgid).is_some_and(is_known) {
                self.look(tgid, now);
            }
        }
    }

    /// [`Self::discover`], and reads anew those whose last look is some seconds old: they may have been
    /// moved.
    pub fn refresh(&mut self, now: Instant) {
        for tgid in self.alive() {
            let is_fresh = |its: &Process| {
                let read = its.read.filter(|_| its.gone.is_none());
                read.is_some_and(|at| now.saturating_duration_since(at) < FRESH)
            };
            if !self.processes.get(&tgid).is_some_and(is_fresh) {
                self.look(tgid, now);
            }
        }
    }

    /// Takes note of processes that began, in their order. Nothing is read: [`Self::look_at_born`] does.
    pub fn born(&mut self, births: &[Birth], now: Instant) {
        self.born += births.len();
        for birth in births {
            let parent = self.processes.get(&birth.parent_tgid);
            let cgroup = parent.and_then(|parent| parent.cgroup);
            let is_new = |at: Instant| now.saturating_duration_since(at) < BEFORE_NEWS;
            let its = self.processes.get(&birth.tgid);
            let is_known = its.is_some_and(|its| its.read.is_some_and(is_new));
            if !is_known && self.has_place(birth.tgid) {
                let process = Process {
                    cgroup,
                    ..Process::default()
                };
                self.processes.insert(birth.tgid, process);
            }
        }
    }

    /// Reads the cgroups of those that were born of late: the first thing that is done with the first
    /// process of a service or a container is to move it.
    pub fn look_at_born(&mut self, births: &[Birth], now: Instant) {
        for birth in births {
            let is_unread = |process: &Process| process.read.is_none() && process.gone.is_none();
            if self.processes.get(&birth.tgid).is_some_and(is_unread) {
                self.look(birth.tgid, now);
            }
        }
    }

    /// What these processes are called and belong to; nothing of those that nobody ever saw.
    pub fn known(
        &mut self,
        tgids: impl IntoIterator<Item = u32>,
        now: Instant,
    ) -> HashMap<u32, Known> {
        let mut all = HashMap::new();
        for tgid in tgids {
            let is_fresh = |process: &Process| {
                let read = process.read.filter(|_| !process.name.is_empty());
                process.gone.is_some()
                    || read.is_some_and(|at| now.saturating_duration_since(at) < FRESH)
            };
            if !self.processes.get(&tgid).is_some_and(is_fresh) {
                self.look(tgid, now);
                self.read_name(tgid);
            }
            let Some(process) = self.processes.get(&tgid) else {
                continue;
            };
            let known = Known {
                name: process.name.to_string(),
                unit: match process.cgroup {
                    Some(number) => self.label(number, now),
                    None => String::new(),
                },
            };
            if known != Known::default() {
                all.insert(tgid, known);
            }
        }
        self.sweep(now);
        all
    }

    /// Reads again the cgroups of processes that have not been read for long.
    pub fn reread(&mut self, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= REREAD;
        let old: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, its)| its.gone.is_none() && its.read.is_none_or(is_old))
            .map(|(&tgid, _)| tgid)
            .collect();
        for tgid in old {
            self.look(tgid, now);
        }
        self.sweep(now);
    }

    /// Where all processes are that have not ended, as far as known.
    pub fn placed(&mut self, now: Instant) -> Placed {
        let alive = self.processes.iter().filter(|(_, its)| its.gone.is_none());
        let processes: Vec<(u32, u32)> = alive
            .filter_map(|(&tgid, its)| Some((tgid, its.cgroup?)))
            .collect();
        let used: HashSet<u32> = processes.iter().map(|&(_, cgroup)| cgroup).collect();
        let labels = used
            .into_iter()
            .map(|cgroup| (cgroup, self.label(cgroup, now)));
        Placed {
            labels: labels.filter(|(_, label)| label != OTHER).collect(),
            processes,
        }
    }

    /// Forgets what has ended long enough ago, if it is time to.
    pub fn sweep(&mut self, now: Instant) {
        let is_full =
            self.processes.len() >= self.most.processes || self.numbers.len() >= self.most.cgroups;
        // As many may have ended as were born.
        let is_due = is_full || self.born >= self.most.ended;
        let pause = if is_due { FRESH } else { SWEEP_EVERY };
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) < pause {
            return;
        }
        self.swept = Some(now);
        self.born = 0;
        let alive: HashSet<u32> = self.alive().into_iter().collect();
        self.processes.retain(|tgid, process| {
            if alive.contains(tgid) {
                // Its id may have come to mean another process.
                if process.gone.take().is_some() {
                    process.read = None;
                }
                return true;
            }
            let gone = *process.gone.get_or_insert(now);
            // Where there is no room there is no grace.
            !is_full && now.saturating_duration_since(gone) < GRACE
        });
        self.forget_first_ended();
        let used: HashSet<u32> = self
            .processes
            .values()
            .filter_map(|its| its.cgroup)
            .collect();
        self.numbers.retain(|_, number| used.contains(number));
        for (number, cgroup) in (0..).zip(&mut self.cgroups) {
            if cgroup.is_some() && !used.contains(&number) {
                *cgroup = None;
                self.free.push(number);
            }
        }
    }

    /// Forgets of those that have ended as many as are too many, those first that did so first.
    fn forget_first_ended(&mut self) {
        let gone = self.processes.iter();
        let gone = gone.filter_map(|(tgid, its)| Some((its.gone?, *tgid)));
        let mut gone: Vec<(Instant, u32)> = gone.collect();
        let Some(excess) = gone.len().checked_sub(self.most.ended) else {
            return;
        };
        gone.sort_unstable();
        for (_, tgid) in gone.into_iter().take(excess) {
            self.processes.remove(&tgid);
        }
    }

    /// The processes that each of these selections takes, as far as they are known; those that have ended
    /// are left out.
    pub fn select(&mut self, selections: &[Selection], now: Instant) -> Vec<BTreeSet<u32>> {
        let texts: Vec<(Box<str>, u32)> = self
            .numbers
            .iter()
            .map(|(text, number)| (text.clone(), *number))
            .collect();
        // Each cgroup is looked at once, however many processes are in it.
        let mut takers: HashMap<u32, Vec<bool>> = HashMap::new();
        for (text, number) in texts {
            let label = self.label(number, now);
            let cgroup = self.cgroups.get(number as usize).and_then(Option::as_ref);
            let Some(cgroup) = cgroup else { continue };
            let takes = |its: &Selection| its.takes(&text, &cgroup.unit, &label);
            takers.insert(number, selections.iter().map(takes).collect());
        }
        let chosen = |place: usize| {
            let is_in = |process: &Process| {
                let takes = process.cgroup.and_then(|number| takers.get(&number));
                process.gone.is_none() && takes.is_some_and(|takes| takes[place])
            };
            let processes = self.processes.iter();
            let chosen = processes.filter(|(_, process)| is_in(process));
            chosen.map(|(tgid, _)| *tgid).collect()
        };
        (0..selections.len()).map(chosen).collect()
    }

    /// The labels of all units that are known, for those who look for one.
    pub fn labels(&mut self, now: Instant) -> BTreeSet<String> {
        let numbers: Vec<u32> = self.numbers.values().copied().collect();
        let labels = numbers.into_iter().map(|number| self.label(number, now));
        labels.collect()
    }

    /// How much is kept.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            processes: self.processes.len(),
            ended: self
                .processes
                .values()
                .filter(|its| its.gone.is_some())
                .count(),
            cgroups: self.numbers.len(),
        }
    }

    /// Ids of all processes, as in records; none if `/proc` can't be read.
    fn alive(&self) -> Vec<u32> {
        std::fs::read_dir(&self.proc)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(pids::listed_in_records)
            .collect()
    }

    fn has_place(&self, tgid: u32) -> bool {
        self.processes.len() < self.most.processes || self.processes.contains_key(&tgid)
    }

    /// Reads the cgroup of a process. One that has ended keeps what was known of it.
    fn look(&mut self, tgid: u32, now: Instant) {
        if pids::here(tgid).is_none() {
            // What it is called in this PID namespace, if it is in there, is known a moment later: until then
            // it counts for where it was born.
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let text = self.read(tgid, "cgroup", &mut buffer);
        match text {
            Some(text) => {
                let cgroup = self.number(text, now);
                if self.has_place(tgid) {
                    let process = self.processes.entry(tgid).or_default();
                    process.cgroup = cgroup;
                    process.read = Some(now);
                    process.gone = None;
                }
            }
            None => {
                if let Some(process) = self.processes.get_mut(&tgid) {
                    process.gone.get_or_insert(now);
                }
            }
        }
        self.buffer = buffer;
    }

    fn read_name(&mut self, tgid: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let name = self
            .read(tgid, "comm", &mut buffer)
            .map(|name| clean(name.trim_end_matches('\n')));
        if let (Some(name), Some(process)) = (name, self.processes.get_mut(&tgid)) {
            process.name = name.into();
        }
        self.buffer = buffer;
    }

    /// A file of a process; the path is made from a number only.
    fn read<'a>(&self, tgid: u32, file: &str, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
        use std::fmt::Write;
        let tgid = pids::here(tgid)?;
        let mut path = String::with_capacity(32);
        // Writing to a string can't fail.
        let _ = write!(path, "{}/{tgid}/{file}", self.proc.display());
        buffer.clear();
        File::open(path)
            .ok()?
            .take(MAX_TEXT)
            .read_to_end(buffer)
            .ok()?;
        if std::str::from_utf8(buffer).is_err() {
            *buffer = String::from_utf8_lossy(buffer).into_owned().into_bytes();
        }
        std::str::from_utf8(buffer).ok()
    }

    /// The number of the cgroup with this text.
    fn number(&mut self, text: &str, now: Instant) -> Option<u32> {
        if let Some(&number) = self.numbers.get(text) {
            return Some(number);
        }
        if self.numbers.len() >= self.most.cgroups {
            return Some(NO_ROOM);
        }
        let unit = unit_of(text);
        let retry = unit.has_names().then_some((now, FIRST_RETRY));
        let cgroup = Some(Cgroup {
            label: unit.label(None),
            unit,
            retry,
        });
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.cgroups.push(None);
                u32::try_from(self.cgroups.len() - 1).ok()?
            }
        };
        *self.cgroups.get_mut(number as usize)? = cgroup;
        self.numbers.insert(text.into(), number);
        Some(number)
    }

    /// The label of a cgroup, with names as soon as they are there.
    fn label(&mut self, number: u32, now: Instant) -> String {
        let Some(Some(cgroup)) = self.cgroups.get_mut(number as usize) else {
            return OTHER.to_owned();
        };
        if let Some((at, pause)) = cgroup.retry.filter(|(at, _)| *at <= now) {
            let names = self.node.names(&cgroup.unit, now);
            cgroup.retry = names
                .is_none()
                .then(|| (at.max(now) + pause, (pause * 2).min(MAX_RETRY)));
            if names.is_some() {
                cgroup.label = cgroup.unit.label(names.as_ref());
            }
        }
        cgroup.label.clone()
    }
}
