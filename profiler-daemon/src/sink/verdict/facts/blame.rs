//! Figures of who and what had a part: neighbors, lock holders, peers, and waits that have not ended.

#![expect(
    clippy::unnecessary_wraps,
    reason = "all figures stand in one table, so they have one type"
)]

use std::collections::BTreeMap;

use super::{Figure, Scene, Topic, Value, named};
use crate::sink::report::{
    Ender, LinkRow, Open, ProcessCulprit, Report, ThreadRow, WorstRow, is_idle,
};

fn text(words: String, evidence: &[&str]) -> Figure {
    Figure::new(Value::Text(words), evidence)
}

fn share(part: u64, whole: u64, evidence: &[&str]) -> Option<Figure> {
    let value = Value::Share(part as f64 / whole as f64);
    (whole > 0).then(|| Figure::new(value, evidence))
}

pub(super) fn unit(scene: &Scene<'_>) -> Option<Figure> {
    let mut units = scene.report.threads.iter().map(|row| row.unit.as_str());
    let unit = units.next().filter(|unit| !unit.is_empty())?;
    let is_same = units.all(|other| other == unit);
    Some(text(short(unit).to_owned(), &["/threads/0/unit"])).filter(|_| is_same)
}

const PROCESSES: &str = "/total/culprits_by_process";
const CONTENDED: &str = "/total/runnable_ns/contended";

/// Who had a CPU, seen from the target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    Own,
    Neighbor,
    Interrupts,
}

impl Relation {
    fn of(report: &Report, tgid: u32) -> Self {
        if tgid == 0 {
            Self::Interrupts
        } else if report.threads.iter().any(|row| row.tgid == tgid) {
            Self::Own
        } else {
            Self::Neighbor
        }
    }
}

/// The processes of this relation that had the CPU, with their places, the longest first.
fn holders(report: &Report, relation: Relation) -> Vec<(usize, &ProcessCulprit)> {
    let rows = report.total.culprits_by_process.iter().enumerate();
    rows.filter(|(_, row)| Relation::of(report, row.tgid) == relation)
        .collect()
}

fn held(scene: &Scene<'_>, relation: Relation) -> Option<Figure> {
    let report = scene.report;
    let contended_ns = report.total.figures.runnable_ns.contended;
    let rows = holders(report, relation).into_iter();
    let held_ns = rows.map(|(_, row)| row.ns).sum();
    share(held_ns, contended_ns, &[PROCESSES, CONTENDED])
}

pub(super) fn neighbors(scene: &Scene<'_>) -> Option<Figure> {
    held(scene, Relation::Neighbor)
}

pub(super) fn own(scene: &Scene<'_>) -> Option<Figure> {
    held(scene, Relation::Own)
}

pub(super) fn interrupts(scene: &Scene<'_>) -> Option<Figure> {
    held(scene, Relation::Interrupts)
}

pub(super) fn interrupt(scene: &Scene<'_>) -> Option<Figure> {
    let &(place, row) = holders(scene.report, Relation::Interrupts).first()?;
    Some(text(row.comm.clone(), &[&format!("{PROCESSES}/{place}")]))
}

/// A unit's name as people write it: of a container's id the first twelve digits.
fn short(unit: &str) -> &str {
    const DIGITS: usize = 12;
    let is_id = unit.len() >= 32 && unit.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { &unit[..DIGITS] } else { unit }
}

/// Who is to be named for having had the CPU, and for how long.
fn foremost(report: &Report) -> Option<(String, u64, String)> {
    let others = holders(report, Relation::Neighbor);
    let &(place, first) = others.first()?;
    let same_unit = others.iter().filter(|(_, row)| row.unit == first.unit);
    let (processes, unit_ns) =
        same_unit.fold((0, 0), |(count, ns), (_, row)| (count + 1, ns + row.ns));
    // A unit of many processes is to blame as a whole if the first has no two thirds of its part.
    if processes > 1 && !first.unit.is_empty() && first.ns < unit_ns / 3 * 2 {
        let name = format!("{processes} processes of {}", short(&first.unit));
        return Some((name, unit_ns, PROCESSES.to_owned()));
    }
    let name = named(&first.comm, first.tgid);
    let name = match first.unit.as_str() {
        "" => name,
        unit => format!("{name} ({})", short(unit)),
    };
    Some((name, first.ns, format!("{PROCESSES}/{place}")))
}

pub(super) fn culprit(scene: &Scene<'_>) -> Option<Figure> {
    let (name, _, pointer) = foremost(scene.report)?;
    Some(text(name, &[&pointer]))
}

pub(super) fn culprit_share(scene: &Scene<'_>) -> Option<Figure> {
    let (_, ns, pointer) = foremost(scene.report)?;
    let contended_ns = scene.report.total.figures.runnable_ns.contended;
    share(ns, contended_ns, &[&pointer, CONTENDED])
}

pub(super) fn call(scene: &Scene<'_>) -> Option<Figure> {
    let rows = scene.report.total.figures.explain.iter().enumerate();
    let (place, row) = rows
        .filter(|(_, row)| scene.is_topic(&row.reason) && row.call.is_some())
        .max_by_key(|&(place, row)| (row.ns, std::cmp::Reverse(place)))?;
    let file = row.file.map(|file| format!(" on a {file}"));
    let call = row.call.as_deref().unwrap_or_default();
    Some(text(
        format!("{call}{}", file.unwrap_or_default()),
        &[&format!("/total/explain/{place}")],
    ))
}

pub(super) fn lock(scene: &Scene<'_>) -> Option<Figure> {
    let rows = scene.report.total.figures.explain.iter().enumerate();
    let first = rows
        .filter(|(_, row)| scene.is_topic(&row.reason))
        .max_by_key(|&(place, row)| (row.ns, std::cmp::Reverse(place)));
    let Some((place, row)) = first else {
        return Some(text("locks".to_owned(), &[]));
    };
    let kind = match row.call.as_deref().unwrap_or_default() {
        call if call.starts_with("futex") => "futexes (mutexes, condition variables, joins)",
        call if call.starts_with("sem") => "semaphores",
        "flock" | "fcntl" => "file locks",
        _ => "locks",
    };
    Some(text(kind.to_owned(), &[&format!("/total/explain/{place}")]))
}

/// The longest waits of the topic that have ended.
fn ended<'a>(scene: &Scene<'a>) -> Vec<(String, &'a WorstRow)> {
    let worst = &scene.report.worst;
    let (name, rows) = match scene.topic {
        Topic::Queue | Topic::Cause(_) => ("runqueue", &worst.runqueue),
        _ => ("blocked", &worst.blocked),
    };
    let is_topic = |row: &WorstRow| match row.reason.as_deref() {
        None => true,
        Some(reason) => scene.is_topic(reason),
    };
    rows.iter()
        .enumerate()
        .filter(|(_, row)| is_topic(row) && !row.open)
        .map(|(place, row)| (format!("/worst/{name}/{place}"), row))
        .collect()
}

pub(super) fn looked(scene: &Scene<'_>) -> Option<Figure> {
    let rows = ended(scene);
    let pointers: Vec<&str> = rows.iter().map(|(pointer, _)| pointer.as_str()).collect();
    let count = Value::Count(rows.len() as u64);
    (!rows.is_empty()).then(|| Figure::new(count, &pointers))
}

fn first<'a>(scene: &Scene<'a>) -> Option<(String, &'a WorstRow)> {
    ended(scene).into_iter().next()
}

pub(super) fn typical(scene: &Scene<'_>) -> Option<Figure> {
    let rows = ended(scene);
    let sum_ns: u64 = rows.iter().map(|(_, row)| row.duration_ns).sum();
    let longest_ns = sum_ns as f64 / rows.len() as f64;
    let pointers: Vec<&str> = rows.iter().map(|(pointer, _)| pointer.as_str()).collect();
    let value = Value::Share(scene.mean_ns()? / longest_ns);
    (sum_ns > 0).then(|| Figure::new(value, &pointers))
}

pub(super) fn longest(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, row) = first(scene)?;
    let value = Value::Time(row.duration_ns);
    Some(Figure::new(value, &[&format!("{pointer}/duration_ns")]))
}

pub(super) fn longest_thread(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, row) = first(scene)?;
    Some(text(named(&row.comm, row.tid), &[&pointer]))
}

pub(super) fn longest_reason(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, row) = first(scene)?;
    Some(text(row.reason.clone()?, &[&format!("{pointer}/reason")]))
}

pub(super) fn longest_held_by(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, row) = first(scene)?;
    let culprit = row.culprits.first()?;
    let is_most = culprit.ns >= row.duration_ns / 2;
    let name = named(&culprit.comm, culprit.tid);
    Some(text(name, &[&format!("{pointer}/culprits/0")])).filter(|_| is_most)
}

/// The waits in the list of the longest that one thread ended, if it ended at least half of them.
struct Woken<'a> {
    name: String,
    count: u64,
    links: Vec<&'a LinkRow>,
    pointers: Vec<String>,
}

fn woken<'a>(scene: &Scene<'a>) -> Option<Woken<'a>> {
    let rows = ended(scene);
    let by = |row: &'a WorstRow| row.waker.as_ref().filter(|its| its.kind == "thread");
    let mut counts: BTreeMap<u32, (usize, &Ender)> = BTreeMap::new();
    for (_, row) in &rows {
        if let Some(ender) = by(row) {
            counts.entry(ender.tid).or_insert((0, ender)).0 += 1;
        }
    }
    let (tid, (count, ender)) = counts
        .into_iter()
        .max_by_key(|&(tid, (count, _))| (count, std::cmp::Reverse(tid)))?;
    if tid == 0 || count < rows.len().div_ceil(2) {
        return None;
    }
    let its = rows
        .into_iter()
        .filter(|(_, row)| by(row).is_some_and(|ender| ender.tid == tid));
    let (pointers, its): (Vec<String>, Vec<&WorstRow>) = its.unzip();
    Some(Woken {
        name: named(&ender.comm, tid),
        count: its.len() as u64,
        links: its
            .iter()
            .filter_map(|row| row.chain.first())
            .filter(|link| link.tid == tid)
            .collect(),
        pointers,
    })
}

impl Woken<'_> {
    fn figure(&self, value: Value) -> Figure {
        Figure {
            value,
            evidence: self.pointers.clone(),
        }
    }

    fn part(&self, of: impl Fn(&LinkRow) -> u64) -> Option<f64> {
        let whole_ns: u64 = self.links.iter().map(|link| link.duration_ns).sum();
        let part_ns: u64 = self.links.iter().map(|link| of(link)).sum();
        (whole_ns > 0).then(|| part_ns as f64 / whole_ns as f64)
    }

    fn share(&self, of: impl Fn(&LinkRow) -> u64) -> Option<Figure> {
        Some(self.figure(Value::Share(self.part(of)?)))
    }
}

/// What a waker waited for is idleness, or nobody knows of any.
fn is_idle_link(link: &LinkRow) -> bool {
    link.reason.as_deref().is_some_and(is_idle)
}

fn idle_ns(link: &LinkRow) -> u64 {
    if is_idle_link(link) {
        link.blocked_ns
    } else {
        0
    }
}

fn kept_ns(link: &LinkRow) -> u64 {
    link.blocked_ns - idle_ns(link)
}

pub(super) fn waker(scene: &Scene<'_>) -> Option<Figure> {
    let woken = woken(scene)?;
    Some(woken.figure(Value::Text(woken.name.clone())))
}

pub(super) fn waker_waits(scene: &Scene<'_>) -> Option<Figure> {
    let woken = woken(scene)?;
    Some(woken.figure(Value::Count(woken.count)))
}

pub(super) fn waker_queued(scene: &Scene<'_>) -> Option<Figure> {
    woken(scene)?.share(|link| link.runnable_ns)
}

pub(super) fn waker_ran(scene: &Scene<'_>) -> Option<Figure> {
    woken(scene)?.share(|link| link.running_ns)
}

pub(super) fn waker_blocked(scene: &Scene<'_>) -> Option<Figure> {
    woken(scene)?.share(kept_ns)
}

pub(super) fn waker_idle(scene: &Scene<'_>) -> Option<Figure> {
    woken(scene)?.share(idle_ns)
}

pub(super) fn waker_held_by(scene: &Scene<'_>) -> Option<Figure> {
    let woken = woken(scene)?;
    let mut sums: BTreeMap<u32, (u64, String)> = BTreeMap::new();
    for culprit in woken.links.iter().flat_map(|link| &link.culprits) {
        let name = || (0, named(&culprit.comm, culprit.tid));
        sums.entry(culprit.tid).or_insert_with(name).0 += culprit.ns;
    }
    let (_, name) = sums.into_values().max_by_key(|its| its.0)?;
    Some(woken.figure(Value::Text(name)))
}

/// The reason of most of the waker's own waiting.
fn reason_of(woken: &Woken<'_>) -> Option<String> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for link in &woken.links {
        if let Some(reason) = &link.reason {
            *sums.entry(reason).or_default() += link.blocked_ns;
        }
    }
    let (reason, _) = sums.into_iter().max_by_key(|its| its.1)?;
    Some(reason.to_owned())
}

pub(super) fn waker_for(scene: &Scene<'_>) -> Option<Figure> {
    let woken = woken(scene)?;
    Some(woken.figure(Value::Text(reason_of(&woken)?)))
}

pub(super) fn waker_did(scene: &Scene<'_>) -> Option<Figure> {
    let woken = woken(scene)?;
    let reason = reason_of(&woken).map(|reason| format!(" ({reason})"));
    let reason = reason.unwrap_or_default();
    let (did, part) = [
        ("ran".to_owned(), woken.part(|link| link.running_ns)?),
        (
            "was itself waiting for a CPU".to_owned(),
            woken.part(|link| link.runnable_ns)?,
        ),
        (
            format!("was itself waiting{reason}"),
            woken.part(|link| link.blocked_ns)?,
        ),
    ]
    .into_iter()
    .max_by(|left, right| left.1.total_cmp(&right.1))?;
    let words = format!("{did} for {} of them", Value::Share(part).words());
    (part > 0.0).then(|| woken.figure(Value::Text(words)))
}

pub(super) fn timer_share(scene: &Scene<'_>) -> Option<Figure> {
    let rows = ended(scene);
    let is_timer = |row: &WorstRow| row.waker.as_ref().is_some_and(|its| its.kind == "timer");
    let timers = rows.iter().filter(|(_, row)| is_timer(row)).count() as u64;
    let pointers: Vec<&str> = rows.iter().map(|(pointer, _)| pointer.as_str()).collect();
    share(timers, rows.len() as u64, &pointers)
}

/// The topic's waits that have not ended.
fn open<'a>(scene: &Scene<'a>) -> Vec<(usize, &'a ThreadRow, &'a Open)> {
    let is_topic = |open: &Open| match scene.topic {
        Topic::OpenQueue => open.state == "runnable",
        Topic::Open(_) => open
            .reason
            .as_deref()
            .is_some_and(|reason| open.state == "blocked" && scene.is_topic(reason)),
        _ => false,
    };
    let rows = scene.report.threads.iter().enumerate();
    let mut open: Vec<_> = rows
        .filter_map(|(place, row)| Some((place, row, row.open.as_ref()?)))
        .filter(|(_, _, open)| is_topic(open))
        .collect();
    open.sort_by_key(|(_, _, open)| std::cmp::Reverse(open.elapsed_ns));
    open
}

fn oldest<'a>(scene: &Scene<'a>) -> Option<(String, &'a ThreadRow, &'a Open)> {
    let (place, row, open) = open(scene).into_iter().next()?;
    Some((format!("/threads/{place}"), row, open))
}

pub(super) fn stuck_thread(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, row, _) = oldest(scene)?;
    Some(text(
        named(&row.comm, row.tid),
        &[&format!("{pointer}/comm")],
    ))
}

pub(super) fn stuck_for(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, _, open) = oldest(scene)?;
    let value = Value::Time(open.elapsed_ns);
    Some(Figure::new(value, &[&format!("{pointer}/open/elapsed_ns")]))
}

pub(super) fn or_longer(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, row, open) = oldest(scene)?;
    let is_whole = open.elapsed_ns >= row.figures.observed_ns;
    let words = "since before the window".to_owned();
    Some(text(words, &[&format!("{pointer}/observed_ns")])).filter(|_| is_whole)
}

pub(super) fn stuck_reason(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, _, open) = oldest(scene)?;
    Some(text(
        open.reason.clone()?,
        &[&format!("{pointer}/open/reason")],
    ))
}

pub(super) fn stuck_cause(scene: &Scene<'_>) -> Option<Figure> {
    let (pointer, _, open) = oldest(scene)?;
    let cause = match open.cause? {
        "contended" => "others have it",
        "throttled" => "the quota of its cgroup is used up",
        "placement" => "its CPU is idle",
        _ => return None,
    };
    Some(text(cause.to_owned(), &[&format!("{pointer}/open/cause")]))
}

pub(super) fn stuck_others(scene: &Scene<'_>) -> Option<Figure> {
    let open = open(scene);
    let (_, _, first) = open.first()?;
    let others = open.iter().skip(1);
    let others = others.filter(|its| its.2.elapsed_ns >= first.elapsed_ns / 2);
    let words = match others.count() {
        0 => return None,
        1 => "another thread".to_owned(),
        count => format!("{count} others"),
    };
    Some(text(words, &["/total/waiting"]))
}
