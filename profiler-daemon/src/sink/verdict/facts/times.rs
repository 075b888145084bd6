//! Figures of how long and how often.

#![expect(
    clippy::unnecessary_wraps,
    reason = "all figures stand in one table, so they have one type"
)]

use super::{Figure, Scene, Topic, Value, escaped, named};
use crate::sink::report::{FigureRow, ThreadRow};

const OBSERVED: &str = "/total/observed_ns";
const RUNNING: &str = "/total/time_ns/running";
const RUNNABLE: &str = "/total/time_ns/runnable";
const BLOCKED: &str = "/total/blocked_ns";
const UNKNOWN: &str = "/total/time_ns/unknown";
const IDLE: &str = "/total/idle_ns";
const WINDOW: &str = "/window/duration_ns";

fn is_part(part_ns: u64, whole_ns: u64) -> Option<Value> {
    (whole_ns > 0).then(|| Value::Share(part_ns as f64 / whole_ns as f64))
}

fn share_of(part_ns: u64, whole_ns: u64, evidence: &[&str]) -> Option<Figure> {
    Some(Figure::new(is_part(part_ns, whole_ns)?, evidence))
}

fn ns(duration_ns: u64, evidence: &[&str]) -> Figure {
    Figure::new(Value::Time(duration_ns), evidence)
}

fn count(count: u64, evidence: &[&str]) -> Figure {
    Figure::new(Value::Count(count), evidence)
}

fn total<'a>(scene: &Scene<'a>) -> &'a FigureRow {
    &scene.report.total.figures
}

pub(super) fn window(scene: &Scene<'_>) -> Option<Figure> {
    Some(ns(scene.report.window.duration_ns, &[WINDOW]))
}

pub(super) fn observed(scene: &Scene<'_>) -> Option<Figure> {
    Some(ns(total(scene).observed_ns, &[OBSERVED]))
}

pub(super) fn active(scene: &Scene<'_>) -> Option<Figure> {
    Some(count(scene.base.active, &["/total/threads"]))
}

/// How much of the topic there was in some figures, and where that stands in them.
fn topic_ns(scene: &Scene<'_>, figures: &FigureRow) -> Option<(u64, Vec<String>)> {
    let queue = &figures.runnable_ns;
    match scene.topic {
        Topic::Queue => Some((
            figures.time_ns.runnable,
            vec!["time_ns/runnable".to_owned()],
        )),
        Topic::Cause(cause) => {
            let (_, ns) = queue.parts().into_iter().find(|&(name, _)| name == cause)?;
            Some((ns, vec![format!("runnable_ns/{cause}")]))
        }
        Topic::Blocked(_) => {
            let reasons = figures
                .blocked_ns
                .iter()
                .filter(|(reason, _)| scene.is_topic(reason));
            let (mut sum_ns, mut fields) = (0, Vec::new());
            for (reason, ns) in reasons {
                sum_ns += ns;
                fields.push(format!("blocked_ns/{}", escaped(reason)));
            }
            Some((sum_ns, fields))
        }
        Topic::Whole | Topic::OpenQueue | Topic::Open(_) => None,
    }
}

/// The topic's time, without that of parked threads.
fn time_ns(scene: &Scene<'_>) -> Option<(u64, Vec<String>)> {
    let (whole_ns, fields) = topic_ns(scene, total(scene))?;
    let parked = scene.base.parked.iter();
    let parked_ns: u64 = parked
        .filter_map(|row| topic_ns(scene, &row.figures))
        .map(|(ns, _)| ns)
        .sum();
    let pointers = fields
        .into_iter()
        .map(|field| format!("/total/{field}"))
        .collect();
    Some((whole_ns.saturating_sub(parked_ns), pointers))
}

pub(super) fn time(scene: &Scene<'_>) -> Option<Figure> {
    let (ns, evidence) = time_ns(scene)?;
    Some(Figure {
        value: Value::Time(ns),
        evidence,
    })
}

fn base_ns(scene: &Scene<'_>) -> Option<(u64, &'static [&'static str])> {
    const WANTED: &[&str] = &[RUNNING, RUNNABLE, UNKNOWN];
    const WORKING: &[&str] = &[RUNNING, RUNNABLE, UNKNOWN, BLOCKED];
    const NON_IDLE: &[&str] = &[OBSERVED, IDLE];
    match scene.topic {
        Topic::Queue | Topic::Cause(_) => Some((scene.base.wanted_ns, WANTED)),
        Topic::Blocked(reasons) if reasons.iter().all(|reason| super::SURE.contains(reason)) => {
            Some((scene.base.working_ns, WORKING))
        }
        Topic::Blocked(_) => Some((scene.base.non_idle_ns, NON_IDLE)),
        Topic::Whole | Topic::OpenQueue | Topic::Open(_) => None,
    }
}

pub(super) fn base(scene: &Scene<'_>) -> Option<Figure> {
    let (base_ns, evidence) = base_ns(scene)?;
    Some(ns(base_ns, evidence))
}

/// The topic's time as a part of another.
fn topic_of(scene: &Scene<'_>, whole_ns: u64, more: &[&str]) -> Option<Figure> {
    let (part_ns, mut evidence) = time_ns(scene)?;
    evidence.extend(more.iter().map(|&pointer| pointer.to_owned()));
    Some(Figure {
        value: is_part(part_ns, whole_ns)?,
        evidence,
    })
}

pub(super) fn share(scene: &Scene<'_>) -> Option<Figure> {
    let (base_ns, evidence) = base_ns(scene)?;
    topic_of(scene, base_ns, evidence)
}

pub(super) fn of_queue(scene: &Scene<'_>) -> Option<Figure> {
    topic_of(scene, total(scene).time_ns.runnable, &[RUNNABLE])
}

pub(super) fn of_work(scene: &Scene<'_>) -> Option<Figure> {
    topic_of(scene, scene.base.working_ns, &[BLOCKED])
}

pub(super) fn of_window(scene: &Scene<'_>) -> Option<Figure> {
    topic_of(scene, scene.report.window.duration_ns, &[WINDOW])
}

pub(super) fn non_idle_of_window(scene: &Scene<'_>) -> Option<Figure> {
    let window_ns = scene.report.window.duration_ns;
    share_of(scene.base.non_idle_ns, window_ns, &[OBSERVED, IDLE, WINDOW])
}

pub(super) fn working(scene: &Scene<'_>) -> Option<Figure> {
    Some(ns(
        scene.base.working_ns,
        &[RUNNING, RUNNABLE, UNKNOWN, BLOCKED],
    ))
}

pub(super) fn idle(scene: &Scene<'_>) -> Option<Figure> {
    Some(ns(total(scene).idle_ns, &[IDLE]))
}

pub(super) fn idle_share(scene: &Scene<'_>) -> Option<Figure> {
    let idle_ns = total(scene).idle_ns;
    let whole_ns = idle_ns + scene.base.non_idle_ns;
    share_of(idle_ns, whole_ns, &[IDLE, OBSERVED])
}

pub(super) fn ran(scene: &Scene<'_>) -> Option<Figure> {
    Some(ns(total(scene).time_ns.running, &[RUNNING]))
}

fn of_working(scene: &Scene<'_>, part_ns: u64, field: &str) -> Option<Figure> {
    share_of(
        part_ns,
        scene.base.working_ns,
        &[field, RUNNING, RUNNABLE, BLOCKED],
    )
}

pub(super) fn ran_share(scene: &Scene<'_>) -> Option<Figure> {
    of_working(scene, total(scene).time_ns.running, RUNNING)
}

pub(super) fn ran_of_window(scene: &Scene<'_>) -> Option<Figure> {
    let window_ns = scene.report.window.duration_ns;
    share_of(total(scene).time_ns.running, window_ns, &[RUNNING, WINDOW])
}

pub(super) fn queued_share(scene: &Scene<'_>) -> Option<Figure> {
    of_working(scene, total(scene).time_ns.runnable, RUNNABLE)
}

pub(super) fn blocked_share(scene: &Scene<'_>) -> Option<Figure> {
    let sure_ns = scene.base.working_ns.saturating_sub(scene.base.wanted_ns);
    of_working(scene, sure_ns, BLOCKED)
}

fn average(scene: &Scene<'_>, time_ns: u64, evidence: &[&str]) -> Option<Figure> {
    let window_ns = scene.report.window.duration_ns;
    let value = Value::Average(time_ns as f64 / window_ns as f64);
    (window_ns > 0).then(|| Figure::new(value, evidence))
}

pub(super) fn got(scene: &Scene<'_>) -> Option<Figure> {
    average(scene, total(scene).time_ns.running, &[RUNNING, WINDOW])
}

pub(super) fn demand(scene: &Scene<'_>) -> Option<Figure> {
    let figures = total(scene);
    let wanted_ns = figures.time_ns.running + figures.runnable_ns.contended;
    average(
        scene,
        wanted_ns,
        &[RUNNING, "/total/runnable_ns/contended", WINDOW],
    )
}

pub(super) fn unknown(scene: &Scene<'_>) -> Option<Figure> {
    Some(ns(total(scene).time_ns.unknown, &[UNKNOWN]))
}

pub(super) fn unknown_share(scene: &Scene<'_>) -> Option<Figure> {
    let unknown_ns = total(scene).time_ns.unknown;
    share_of(
        unknown_ns,
        scene.base.non_idle_ns,
        &[UNKNOWN, OBSERVED, IDLE],
    )
}

pub(super) fn unknown_of_window(scene: &Scene<'_>) -> Option<Figure> {
    let window_ns = scene.report.window.duration_ns;
    share_of(total(scene).time_ns.unknown, window_ns, &[UNKNOWN, WINDOW])
}

pub(super) fn dropped(scene: &Scene<'_>) -> Option<Figure> {
    let dropped = scene.report.loss.dropped;
    Some(count(dropped, &["/loss/dropped"])).filter(|_| dropped > 0)
}

pub(super) fn shed(scene: &Scene<'_>) -> Option<Figure> {
    let shed = scene.report.loss.shed.as_ref()?;
    Some(count(shed.events, &["/loss/shed/events"]))
}

pub(super) fn waits(scene: &Scene<'_>) -> Option<Figure> {
    let figures = total(scene);
    match scene.topic {
        Topic::Queue | Topic::Cause(_) => Some(count(
            figures.runqueue_delay.count,
            &["/total/runqueue_delay/count"],
        )),
        Topic::Blocked(_) => {
            let rows = figures.explain.iter().enumerate();
            let (mut sum, mut evidence) = (0, Vec::new());
            for (place, row) in rows.filter(|(_, row)| scene.is_topic(&row.reason)) {
                sum += row.count;
                evidence.push(format!("/total/explain/{place}/count"));
            }
            let value = Value::Count(sum);
            (sum > 0).then_some(Figure { value, evidence })
        }
        Topic::Whole | Topic::OpenQueue | Topic::Open(_) => None,
    }
}

pub(super) fn ended_waits(scene: &Scene<'_>) -> Option<Figure> {
    Some(count(total(scene).offcpu.count, &["/total/offcpu/count"]))
}

pub(super) fn p50(scene: &Scene<'_>) -> Option<Figure> {
    let delay = &total(scene).runqueue_delay;
    Some(ns(delay.p50_ns, &["/total/runqueue_delay/p50_ns"])).filter(|_| delay.count > 0)
}

pub(super) fn p99(scene: &Scene<'_>) -> Option<Figure> {
    let delay = &total(scene).runqueue_delay;
    Some(ns(delay.p99_ns, &["/total/runqueue_delay/p99_ns"])).filter(|_| delay.count > 0)
}

/// The thread with most of something, its part of the sum, and its place in the report.
fn most<'a>(
    scene: &Scene<'a>,
    of: impl Fn(&ThreadRow) -> u64,
) -> Option<(usize, &'a ThreadRow, u64)> {
    let rows = scene.report.threads.iter().enumerate();
    rows.map(|(place, row)| (place, row, of(row)))
        .max_by_key(|&(place, _, ns)| (ns, std::cmp::Reverse(place)))
}

fn lone<'a>(scene: &Scene<'a>) -> Option<(usize, &'a ThreadRow, Value)> {
    const MOST_OF_IT: f64 = 0.8;
    let (whole_ns, _) = time_ns(scene)?;
    let is_parked = |row: &ThreadRow| scene.base.parked.iter().any(|its| std::ptr::eq(*its, row));
    let of = |row: &ThreadRow| match topic_ns(scene, &row.figures) {
        Some((ns, _)) if !is_parked(row) => ns,
        _ => 0,
    };
    let (place, row, part_ns) = most(scene, of)?;
    let share = is_part(part_ns, whole_ns)?;
    let is_most = matches!(share, Value::Share(share) if share >= MOST_OF_IT);
    (scene.base.active >= 3 && is_most).then_some((place, row, share))
}

pub(super) fn one_thread(scene: &Scene<'_>) -> Option<Figure> {
    let (place, row, _) = lone(scene)?;
    let name = Value::Text(named(&row.comm, row.tid));
    Some(Figure::new(name, &[&format!("/threads/{place}")]))
}

pub(super) fn one_thread_share(scene: &Scene<'_>) -> Option<Figure> {
    let (place, _, share) = lone(scene)?;
    Some(Figure::new(share, &[&format!("/threads/{place}")]))
}

fn busiest<'a>(scene: &Scene<'a>) -> Option<(&'a ThreadRow, u64, String)> {
    let (place, row, ran_ns) = most(scene, |row| row.figures.time_ns.running)?;
    let pointer = format!("/threads/{place}/time_ns/running");
    (ran_ns > 0).then_some((row, ran_ns, pointer))
}

pub(super) fn busy_thread(scene: &Scene<'_>) -> Option<Figure> {
    let (row, _, pointer) = busiest(scene)?;
    Some(Figure::new(
        Value::Text(named(&row.comm, row.tid)),
        &[&pointer],
    ))
}

pub(super) fn busy_thread_share(scene: &Scene<'_>) -> Option<Figure> {
    let (row, ran_ns, pointer) = busiest(scene)?;
    share_of(ran_ns, row.figures.observed_ns, &[&pointer])
}

pub(super) fn busy_thread_of_all(scene: &Scene<'_>) -> Option<Figure> {
    let (_, ran_ns, pointer) = busiest(scene)?;
    share_of(ran_ns, total(scene).time_ns.running, &[&pointer, RUNNING])
}

pub(super) fn weight_ns(scene: &Scene<'_>) -> u64 {
    match scene.topic {
        Topic::Whole => total(scene).time_ns.running,
        _ => time_ns(scene).map_or(0, |(ns, _)| ns),
    }
}
