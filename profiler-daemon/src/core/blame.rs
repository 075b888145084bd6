//! Whose doing a wait was: who had the CPU meanwhile, and what kept the waker.

use std::ops::Range;

use super::gaps::{Concern, Gaps};
use super::history::{History, SHORT_NS};
use super::queue::RunQueues;
use super::timeline::Runner;
use super::who::{Names, Waker, Who};
use super::worst::Link;

/// Links of a chain at most.
const MAX_LINKS: usize = 8;

/// Culprits named with one wait.
const MAX_CULPRITS: usize = 5;

/// Culprits of one wait that are told apart: of more, each has little.
pub(super) const MAX_KNOWN: usize = 256;

/// Everything that is asked who did what.
pub(super) struct Witnesses<'a> {
    pub(super) names: Names<'a>,
    pub(super) queues: &'a RunQueues,
    pub(super) history: &'a History,
    pub(super) gaps: &'a Gaps,
}

/// Sums up who had a CPU.
#[derive(Default)]
pub(super) struct Culprits(Vec<(Runner, u64)>);

impl Culprits {
    pub(super) fn add(&mut self, runner: Runner, duration_ns: u64) {
        if let Some((_, ns)) = self.0.iter_mut().find(|(its, _)| *its == runner) {
            *ns += duration_ns;
        } else if self.0.len() < MAX_KNOWN {
            self.0.push((runner, duration_ns));
        }
    }

    /// All of them, with how long each had it.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Runner, u64)> {
        self.0.into_iter()
    }

    /// Those with most of it.
    pub(super) fn name(mut self, names: Names<'_>) -> Vec<(Who, u64)> {
        self.0.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
        let most = self.0.into_iter().take(MAX_CULPRITS);
        most.map(|(runner, ns)| (names.runner(runner), ns))
            .collect()
    }
}

impl Witnesses<'_> {
    /// What kept the waker of a wait, and the waker's waker, from coming earlier in that time.
    pub(super) fn chain(&self, waker: Waker, time_ns: Range<u64>) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        let (mut waker, mut time_ns) = (waker, time_ns);
        while links.len() < MAX_LINKS
            && let Some(who) = self.names.waker(waker)
            && time_ns.end > time_ns.start
        {
            let (link, next) = self.link(who, time_ns);
            // Two that wake each other in turns show no more by repeating it.
            let is_seen = links.iter().any(|its| its.who.tid == who.tid);
            waker = link.waker;
            links.push(link);
            match next {
                Some(next_ns) if !is_seen => time_ns = next_ns,
                _ => break,
            }
        }
        links
    }

    /// What a thread did in this time, and which part of it its own waker decided.
    fn link(&self, who: Who, time_ns: Range<u64>) -> (Link, Option<Range<u64>>) {
        let whole_ns = time_ns.end - time_ns.start;
        let mut link = Link {
            who,
            from_ns: time_ns.start,
            until_ns: time_ns.end,
            running_ns: 0,
            runnable_ns: 0,
            blocked_ns: 0,
            unknown_ns: whole_ns,
            longest: None,
            waker: Waker::default(),
            culprits: Vec::new(),
        };
        // One that has gone has taken its history with it.
        let Some(thread) = self.names.alive(who.tid) else {
            return (link, None);
        };
        let whole = Concern {
            tid: who.tid,
            time_ns: time_ns.start..=time_ns.end,
            running_on: None,
        };
        let is_doubted = self.gaps.doubt(&whole).is_some();
        let (mut longest_ns, mut next, mut queued) = (0, None, None);
        for stay in self.history.within(thread.last_stay, time_ns.clone()) {
            let blocked_ns = cut(&stay.blocked_ns(), &time_ns);
            let runnable_ns = cut(&stay.runnable_ns(), &time_ns);
            link.blocked_ns += length(&blocked_ns);
            link.runnable_ns += length(&runnable_ns);
            if length(&blocked_ns) > longest_ns {
                longest_ns = length(&blocked_ns);
                link.longest = stay.wait;
                link.waker = stay.waker;
                next = Some(blocked_ns);
                queued = None;
            }
            if length(&runnable_ns) > longest_ns {
                longest_ns = length(&runnable_ns);
                link.longest = None;
                link.waker = Waker::default();
                next = None;
                queued = Some((runnable_ns, stay.cpu));
            }
        }
        let off_ns = link.blocked_ns + link.runnable_ns;
        let rest_ns = whole_ns.saturating_sub(off_ns);
        let is_watched = thread.met_ns <= time_ns.start && !is_doubted;
        (link.running_ns, link.unknown_ns) = if is_watched {
            (rest_ns, 0)
        } else {
            (0, rest_ns)
        };
        if let Some((queued_ns, cpu)) = queued {
            let mut culprits = Culprits::default();
            let visit = |runner, duration_ns| culprits.add(runner, duration_ns);
            self.queues
                .timeline
                .divide(cpu, queued_ns, usize::MAX, visit);
            link.culprits = culprits.name(self.names);
        }
        // What its waker decided matters only if that is the larger part.
        let matters = longest_ns > SHORT_NS && longest_ns >= rest_ns;
        (link, next.filter(|_| matters))
    }
}

fn cut(time_ns: &Range<u64>, to_ns: &Range<u64>) -> Range<u64> {
    let start_ns = time_ns.start.clamp(to_ns.start, to_ns.end);
    start_ns..time_ns.end.clamp(start_ns, to_ns.end)
}

fn length(time_ns: &Range<u64>) -> u64 {
    time_ns.end - time_ns.start
}
