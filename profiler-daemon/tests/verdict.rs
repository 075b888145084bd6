//! The verdict: each rule fires at its limits and not below them, says what is so, and quotes figures
//! that are in the report.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use schedscope::core::reason::DOCS;
use schedscope::sink::report::{
    Culprit, Distribution, Ender, Explain, FigureRow, LinkRow, Loss, Open, OriginRow,
    ProcessCulprit, Report, RunnableRow, Switches, Target, ThreadRow, TimeRow, Times, Total,
    Window, Worst, WorstRow, is_idle,
};
use schedscope::sink::verdict::{FACTS, Finding, Kind, Limit, MOST, RULES, Topic, document, judge};
use support::{MS, expect_file};

const S: u64 = 1_000 * MS;

/// The length of the window of all reports made here.
const WINDOW_NS: u64 = 10 * S;

fn figures() -> FigureRow {
    let distribution = Distribution {
        count: 0,
        sum_ns: 0,
        p50_ns: 0,
        p90_ns: 0,
        p99_ns: 0,
        p999_ns: 0,
        max_ns: 0,
        relative_error: 0.01,
    };
    let none = Times::default();
    FigureRow {
        observed_ns: 0,
        time_ns: TimeRow {
            running: 0,
            runnable: 0,
            blocked: 0,
            unknown: 0,
        },
        runqueue_delay: distribution,
        unknown_shed_ns: None,
        offcpu: distribution,
        runnable_ns: RunnableRow {
            contended: 0,
            throttled: 0,
            placement: 0,
            unknown: 0,
        },
        runnable_by_origin_ns: OriginRow {
            woken: 0,
            preempted: 0,
            yielded: 0,
            forked: 0,
            unknown: 0,
        },
        blocked_ns: BTreeMap::new(),
        idle_ns: 0,
        switches: Switches {
            voluntary: 0,
            involuntary: 0,
        },
        wakeups: 0,
        migrations: 0,
        wakers: Vec::new(),
        wakers_other: none,
        culprits: Vec::new(),
        culprits_other_ns: 0,
        explain: Vec::new(),
        explain_other: none,
        censored_spans: 0,
    }
}

/// A report whose books balance, made thread by thread.
struct Story(Report);

/// What a thread did.
#[derive(Clone, Copy)]
enum Did {
    Ran,
    Contended,
    Throttled,
    Placed,
    Unknown,
    Waited(&'static str),
}
use Did::{Contended, Placed, Ran, Throttled, Waited};

fn add(figures: &mut FigureRow, did: Did, ns: u64) {
    let (times, queue) = (&mut figures.time_ns, &mut figures.runnable_ns);
    let place = match did {
        Ran => &mut times.running,
        Did::Unknown => &mut times.unknown,
        Contended => {
            times.runnable += ns;
            &mut queue.contended
        }
        Throttled => {
            times.runnable += ns;
            &mut queue.throttled
        }
        Placed => {
            times.runnable += ns;
            &mut queue.placement
        }
        Waited(reason) => {
            times.blocked += ns;
            if is_idle(reason) {
                figures.idle_ns += ns;
            }
            figures.blocked_ns.entry(reason.to_owned()).or_default()
        }
    };
    *place += ns;
    figures.observed_ns += ns;
}

impl Story {
    fn new() -> Self {
        let lists = Worst::default();
        Self(Report {
            schema: 1,
            tool: "schedscope",
            version: "1.2.3".to_owned(),
            window: Window {
                start_unix_ns: 0,
                duration_ns: WINDOW_NS,
            },
            target: Target {
                kind: "pid".to_owned(),
                value: "100".to_owned(),
            },
            verdict: Vec::new(),
            loss: Loss {
                events: 0,
                dropped: 0,
                missed: 0,
                inverted: 0,
                censored_spans: 0,
                undecodable: 0,
                unlisted_threads: 0,
                shed: None,
                dropped_by: Vec::new(),
            },
            threads: Vec::new(),
            total: Total {
                threads: 0,
                figures: FigureRow {
                    offcpu: Distribution {
                        count: 1_000,
                        ..figures().offcpu
                    },
                    ..figures()
                },
                culprits_by_process: Vec::new(),
                culprits_by_process_other_ns: 0,
                culprits_by_unit: Vec::new(),
                culprits_by_unit_other_ns: 0,
                waiting: BTreeMap::new(),
                oldest_wait: None,
            },
            worst: lists.clone(),
            stuck: lists,
            conflicts: BTreeMap::new(),
            clock_error_ns: None,
            wakeups_recorded: true,
            notes: Vec::new(),
            exit: None,
        })
    }

    /// One more thread of process 100, with what it did and for how long, in milliseconds.
    fn thread(mut self, did: &[(Did, u64)]) -> Self {
        let mut its = figures();
        for &(did, ms) in did {
            add(&mut its, did, ms * MS);
            add(&mut self.0.total.figures, did, ms * MS);
        }
        let tid = 100 + u32::try_from(self.0.threads.len()).expect("few threads");
        self.0.total.threads += 1;
        self.0.threads.push(ThreadRow {
            tid,
            tgid: 100,
            comm: "web".to_owned(),
            unit: "web.service".to_owned(),
            figures: its,
            parent_tgid: 1,
            start_ns: 0,
            ended: false,
            open: None,
        });
        self
    }

    /// The last thread is still in the midst of this.
    fn still(mut self, reason: &str, ms: u64) -> Self {
        let open = match reason {
            "runnable" => Open {
                state: "runnable",
                reason: None,
                cause: Some("contended"),
                elapsed_ns: ms * MS,
            },
            reason => Open {
                state: "blocked",
                reason: Some(reason.to_owned()),
                cause: None,
                elapsed_ns: ms * MS,
            },
        };
        self.0.threads.last_mut().expect("a thread").open = Some(open);
        self
    }

    /// This process had the CPU.
    fn held(mut self, tgid: u32, ms: u64) -> Self {
        self.0.total.culprits_by_process.push(ProcessCulprit {
            tgid,
            comm: "batch".to_owned(),
            unit: "batch.service".to_owned(),
            ns: ms * MS,
        });
        self
    }

    /// The longest wait for a reason, `None` for a CPU.
    fn longest(mut self, reason: Option<&str>, ms: u64) -> Self {
        let row = wait(reason, ms, None);
        match reason {
            None => self.0.worst.runqueue.push(row),
            Some(_) => self.0.worst.blocked.push(row),
        }
        self
    }

    /// So many waits for a reason.
    fn waits(mut self, reason: &str, count: u64) -> Self {
        self.0.total.figures.explain.push(Explain {
            reason: reason.to_owned(),
            evidence: "system call futex".to_owned(),
            call: Some("futex".to_owned()),
            file: None,
            state: "sleeping",
            iowait: false,
            count,
            ns: 0,
        });
        self
    }

    /// A wait for a lock, which a thread ended that did this meanwhile, in milliseconds: run, be queued,
    /// wait for that reason.
    fn held_lock(mut self, did: [u64; 3], reason: Option<&str>) -> Self {
        let ender = Ender {
            kind: "thread",
            tid: 101,
            comm: "holder".to_owned(),
            irq: None,
        };
        let mut row = wait(Some("lock"), did.iter().sum(), Some(ender));
        row.chain.push(LinkRow {
            tid: 101,
            tgid: 100,
            comm: "holder".to_owned(),
            start_unix_ns: 0,
            duration_ns: row.duration_ns,
            running_ns: did[0] * MS,
            runnable_ns: did[1] * MS,
            blocked_ns: did[2] * MS,
            unknown_ns: 0,
            reason: reason.map(str::to_owned),
            waker: None,
            culprits: vec![Culprit {
                tid: 501,
                tgid: 500,
                comm: "batch-1".to_owned(),
                unit: String::new(),
                ns: did[1] * MS,
            }],
        });
        self.0.worst.blocked.push(row);
        self
    }

    /// The longest waits for locks ended so, in milliseconds: by a timer, and by nobody knows what.
    fn timed(mut self, timer_ms: u64, other_ms: u64) -> Self {
        let timer = Ender {
            kind: "timer",
            tid: 0,
            comm: String::new(),
            irq: None,
        };
        let rows = [
            wait(Some("lock"), timer_ms, Some(timer)),
            wait(Some("lock"), other_ms, None),
        ];
        self.0.worst.blocked.extend(rows);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Report)) -> Self {
        change(&mut self.0);
        self
    }

    fn verdict(&self) -> Vec<Finding> {
        judge(&self.0)
    }
}

fn wait(reason: Option<&str>, ms: u64, waker: Option<Ender>) -> WorstRow {
    WorstRow {
        tid: 100,
        tgid: 100,
        comm: "web".to_owned(),
        start_unix_ns: 0,
        cut: false,
        duration_ns: ms * MS,
        open: false,
        reason: reason.map(str::to_owned),
        explain: None,
        origin: None,
        causes: None,
        waker,
        culprits: Vec::new(),
        chain: Vec::new(),
        kernel_stack: Vec::new(),
        user_stack: Vec::new(),
    }
}

fn told(did: &[(Did, u64)]) -> Story {
    Story::new().thread(did)
}

/// A wait of so much of the time that counts, beside time on the CPU; so much idleness makes it small.
fn part(did: Did, per_mille: u64) -> Story {
    told(&[
        (did, per_mille),
        (Ran, 1_000 - per_mille),
        (Waited("sleep"), 9_000),
    ])
}

/// Two stories for each rule: one that keeps its limits just so, and one for each limit that is missed by
/// a hair.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "one entry for each rule")]
fn cases() -> Vec<(&'static str, Story, Vec<Story>)> {
    let blocked = |name, reason| (name, part(Waited(reason), 100), vec![
        part(Waited(reason), 99),
        told(&[(Waited(reason), 99), (Ran, 100), (Waited("sleep"), 9_801)]),
    ]);
    // Beside 2 s of the window, so that a share of a fifth lasts 4% of it.
    let maybe = |name, reason| (name, told(&[(Waited(reason), 500), (Ran, 2_000)]), vec![
        told(&[(Waited(reason), 500), (Ran, 2_001)]),
        told(&[(Waited(reason), 499), (Ran, 1_000)]),
    ]);
    // The one wait in the list takes 100 ms, so the mean is a fifth of that.
    let lock = |ms| part(Waited("lock"), ms).waits("lock", 5);
    let busy = |first, second, third| Story::new()
        .thread(&[(Ran, first), (Waited("lock"), 10_000 - first)])
        .thread(&[(Ran, second), (Waited("lock"), 10_000 - second)])
        .thread(&[(Ran, third), (Waited("lock"), 10_000 - third)]);
    vec![
        ("no-time", Story::new(), vec![told(&[(Ran, 1)])]),
        ("too-short",
            told(&[(Ran, 499)]).with(|report| report.window.duration_ns = 499 * MS),
            vec![told(&[(Ran, 500)]).with(|report| report.window.duration_ns = 500 * MS)]),
        ("too-much-lost", told(&[(Did::Unknown, 500), (Ran, 1_500)]), vec![
            told(&[(Did::Unknown, 500), (Ran, 1_501)]),
            // Next to nothing was done, so little is much.
            told(&[(Did::Unknown, 499), (Ran, 100), (Waited("sleep"), 9_401)]),
        ]),
        ("starved", told(&[(Ran, 9_000), (Contended, 1_000)]).still("runnable", 1_000),
            vec![told(&[(Ran, 9_001), (Contended, 999)]).still("runnable", 999)]),
        ("hung", told(&[(Ran, 8_000), (Waited("disk-io"), 2_000)]).still("disk-io", 2_000), vec![
            told(&[(Ran, 8_001), (Waited("disk-io"), 1_999)]).still("disk-io", 1_999),
            told(&[(Ran, 8_000), (Waited("pipe"), 2_000)]).still("pipe", 2_000),
        ]),
        ("stopped-now", told(&[(Ran, 9_000), (Waited("stopped"), 1_000)]).still("stopped", 1_000),
            vec![told(&[(Ran, 9_001), (Waited("stopped"), 999)]).still("stopped", 999)]),
        ("all-waiting", told(&[(Waited("lock"), 10_000)]).still("lock", 10_000), vec![
            told(&[(Waited("lock"), 10_000)]).thread(&[(Ran, 1)]).still("lock", 10_000),
            told(&[(Waited("lock"), 499)]).still("lock", 499),
            told(&[(Waited("event-wait"), 10_000)]).still("event-wait", 10_000),
            // A server without requests, whose first thread waits for the others to end.
            told(&[(Waited("lock"), 10_000)]).still("lock", 10_000).thread(&[(Waited("event-wait"), 1)]),
        ]),
        ("peer-wait", told(&[(Ran, 499), (Waited("sleep"), 9_501)]).thread(&[(Waited("pipe"), 2_000)]).still("pipe", 2_000), vec![
            told(&[(Ran, 500), (Waited("sleep"), 9_500)]).thread(&[(Waited("pipe"), 2_000)]).still("pipe", 2_000),
            told(&[(Ran, 499), (Waited("sleep"), 9_501)]).thread(&[(Waited("pipe"), 1_999)]).still("pipe", 1_999),
            told(&[(Ran, 499), (Waited("sleep"), 9_501)]).thread(&[(Waited("lock"), 2_000)]).still("lock", 2_000),
        ]),
        ("idle", told(&[(Ran, 499), (Waited("event-wait"), 9_501)]), vec![
            told(&[(Ran, 500), (Waited("event-wait"), 9_500)]),
            told(&[(Ran, 499), (Waited("event-wait"), 4_490)]),
            // Many idle threads beside a busy one.
            told(&[(Ran, 10_000)]).thread(&[(Waited("sleep"), 10_000)]).thread(&[(Waited("sleep"), 10_000)]),
        ]),
        // A twentieth of what was wanted, of which a tenth of a second is a hundredth of the window.
        ("throttled", told(&[(Throttled, 100), (Ran, 1_900), (Waited("sleep"), 8_000)]), vec![
            told(&[(Throttled, 100), (Ran, 1_901), (Waited("sleep"), 7_999)]),
            told(&[(Throttled, 99), (Ran, 1_000), (Waited("sleep"), 8_901)]),
            told(&[(Throttled, 100), (Ran, 900), (Waited("disk-io"), 1_001), (Waited("sleep"), 7_999)]),
        ]),
        ("neighbor", part(Contended, 100).held(500, 50), vec![
            part(Contended, 99).held(500, 99),
            part(Contended, 100).held(500, 49),
            part(Contended, 100).held(100, 100),
            told(&[(Contended, 99), (Ran, 100), (Waited("sleep"), 9_801)]).held(500, 99),
            told(&[(Contended, 100), (Ran, 100), (Waited("disk-io"), 1_801), (Waited("sleep"), 7_999)]).held(500, 100),
        ]),
        ("own-threads", part(Contended, 100).held(100, 50),
            vec![part(Contended, 100).held(100, 49), part(Contended, 99).held(100, 99)]),
        ("interrupts", told(&[(Contended, 100), (Ran, 1_900), (Waited("sleep"), 8_000)]).held(0, 10), vec![
            told(&[(Contended, 100), (Ran, 1_900), (Waited("sleep"), 8_000)]).held(0, 9),
            told(&[(Contended, 100), (Ran, 1_901), (Waited("sleep"), 7_999)]).held(0, 10),
            told(&[(Contended, 100), (Ran, 1_900), (Waited("sleep"), 8_000)]).held(500, 100),
        ]),
        ("contended", part(Contended, 100),
            vec![part(Contended, 99), part(Contended, 100).held(500, 100), part(Contended, 100).held(0, 100)]),
        ("placement", part(Placed, 100), vec![part(Placed, 99)]),
        ("cpu-wait",
            told(&[(Contended, 60), (Placed, 40), (Ran, 900), (Waited("sleep"), 9_000)]), vec![
            told(&[(Contended, 60), (Placed, 39), (Ran, 901), (Waited("sleep"), 9_000)]),
            part(Contended, 100),
        ]),
        blocked("disk-io", "disk-io"),
        blocked("fs-sync", "fs-sync"),
        blocked("page-fault", "page-fault"),
        blocked("memory-reclaim", "memory-reclaim"),
        blocked("kernel-lock", "kernel-lock"),
        blocked("stopped", "stopped"),
        blocked("net-send", "net-send"),
        blocked("net-connect", "net-connect"),
        ("lock-holder-queued", lock(100).held_lock([67, 33, 0], None), vec![
            lock(99).held_lock([67, 33, 0], None),
            lock(100).held_lock([68, 32, 0], None),
            lock(100).held_lock([67, 33, 0], None).timed(0, 101),
            part(Waited("lock"), 100).waits("lock", 6).held_lock([67, 33, 0], None),
        ]),
        ("lock-holder-idle", lock(100).held_lock([50, 0, 50], Some("sleep")), vec![
            lock(99).held_lock([50, 0, 50], Some("sleep")),
            lock(100).held_lock([51, 0, 49], Some("sleep")),
            lock(100).held_lock([50, 0, 50], Some("disk-io")),
        ]),
        ("lock-holder-blocked", lock(100).held_lock([67, 0, 33], Some("disk-io")), vec![
            lock(100).held_lock([68, 0, 32], Some("disk-io")),
            lock(100).held_lock([67, 0, 33], Some("sleep")),
        ]),
        ("lock-holder-ran", lock(100).held_lock([33, 32, 35], Some("sleep")), vec![
            lock(100).held_lock([32, 32, 36], Some("sleep")),
            lock(100).held_lock([34, 33, 33], Some("sleep")),
        ]),
        ("lock-timeout", told(&[(Waited("lock"), 500), (Ran, 2_000)]).waits("lock", 50).timed(50, 50), vec![
            told(&[(Waited("lock"), 500), (Ran, 2_000)]).waits("lock", 50).timed(50, 50).longest(Some("lock"), 50),
            told(&[(Waited("lock"), 500), (Ran, 2_001)]).waits("lock", 50).timed(50, 50),
            told(&[(Waited("lock"), 500), (Ran, 2_000)]).waits("lock", 51).timed(50, 50),
        ]),
        maybe("lock", "lock"),
        maybe("pipe", "pipe"),
        maybe("unix-socket", "unix-socket"),
        maybe("net-recv", "net-recv"),
        maybe("tty", "tty"),
        maybe("child-wait", "child-wait"),
        maybe("io-uring", "io-uring"),
        maybe("exit", "exit"),
        maybe("other", "other(getrandom)"),
        maybe("unknown-reason", "unknown"),
        ("busy", told(&[(Ran, 1_500), (Waited("disk-io"), 500), (Waited("sleep"), 8_000)]), vec![
            told(&[(Ran, 1_500), (Waited("disk-io"), 501), (Waited("sleep"), 7_999)]),
            told(&[(Ran, 999), (Waited("sleep"), 9_001)]),
        ]),
        ("one-busy-thread", busy(8_000, 1_999, 1),
            vec![busy(7_999, 1_000, 1), busy(8_000, 2_000, 1), busy(8_000, 1_999, 0)]),
        ("long-queue", part(Contended, 50).longest(None, 50), vec![
            part(Contended, 50).longest(None, 49),
            part(Contended, 100).longest(None, 50),
        ]),
        ("long-wait", part(Waited("disk-io"), 50).longest(Some("disk-io"), 200), vec![
            part(Waited("disk-io"), 50).longest(Some("disk-io"), 199),
            part(Waited("disk-io"), 50).longest(Some("pipe"), 200),
            part(Waited("disk-io"), 100).longest(Some("disk-io"), 200),
        ]),
        ("open-wait", told(&[(Ran, 8_000), (Waited("pipe"), 2_000)]).still("pipe", 2_000), vec![
            told(&[(Ran, 8_001), (Waited("pipe"), 1_999)]).still("pipe", 1_999),
            told(&[(Ran, 8_000), (Waited("event-wait"), 2_000)]).still("event-wait", 2_000),
        ]),
        ("mixed", told(&[(Ran, 700), (Contended, 60), (Waited("disk-io"), 80), (Waited("fs-sync"), 80), (Waited("net-send"), 80), (Waited("sleep"), 9_000)]),
            vec![part(Waited("disk-io"), 300)]),
        ("few-waits",
            part(Waited("disk-io"), 300).with(|report| report.total.figures.offcpu.count = 9), vec![
            part(Waited("disk-io"), 300).with(|report| report.total.figures.offcpu.count = 10),
            told(&[(Ran, 10_000)]).with(|report| report.total.figures.offcpu.count = 0),
        ]),
        ("some-unknown", told(&[(Did::Unknown, 100), (Ran, 1_900), (Waited("sleep"), 8_000)]), vec![
            told(&[(Did::Unknown, 100), (Ran, 1_901), (Waited("sleep"), 7_999)]),
            told(&[(Did::Unknown, 99), (Ran, 500), (Waited("sleep"), 9_401)]),
        ]),
    ]
}

fn names(story: &Story) -> Vec<&'static str> {
    story.verdict().iter().map(|finding| finding.rule).collect()
}

#[test]
fn each_rule_fires_at_its_limits_and_not_below() {
    let cases = cases();
    let tried: BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(tried, rules, "each rule has a case");
    for (name, fires, others) in &cases {
        assert!(names(fires).contains(name), "{name}: {:?}", fires.verdict());
        for (place, story) in others.iter().enumerate() {
            let found = names(story);
            assert!(!found.contains(name), "{name}, story {place}: {found:?}");
        }
    }
}

#[test]
fn each_finding_quotes_figures_that_are_in_the_report() {
    for (name, story, others) in cases() {
        for story in std::iter::once(story).chain(others) {
            let value = serde_json::to_value(&story.0).expect("a report is JSON");
            for finding in story.verdict() {
                assert!(!finding.evidence.is_empty(), "{name}: {finding:?}");
                for pointer in &finding.evidence {
                    assert!(value.pointer(pointer).is_some(), "{name}: {pointer}");
                }
                assert!(!finding.text.contains(['{', '?', '[']), "{finding:?}");
                assert!(finding.text.ends_with('.'), "{finding:?}");
            }
        }
    }
}

#[test]
fn a_verdict_says_something_and_not_too_much() {
    for (name, story, others) in cases() {
        for story in std::iter::once(story).chain(others) {
            let verdict = story.verdict();
            assert!((1..=MOST).contains(&verdict.len()), "{name}: {verdict:?}");
            let is_alone = verdict.len() == 1;
            let is_none = verdict.iter().any(|finding| finding.kind == Kind::None);
            assert!(is_alone || !is_none, "{name}: {verdict:?}");
        }
    }
}

#[test]
fn each_reason_that_is_no_idleness_has_a_rule() {
    for doc in DOCS.iter().filter(|doc| !doc.idle) {
        let is_about =
            |topic| matches!(topic, Topic::Blocked(reasons) if reasons.contains(&doc.name));
        assert!(
            RULES.iter().any(|rule| is_about(rule.topic)),
            "{}",
            doc.name
        );
    }
}

#[test]
fn rules_speak_only_of_figures_that_there_are() {
    let facts: BTreeSet<&str> = FACTS.iter().map(|fact| fact.name).collect();
    assert_eq!(facts.len(), FACTS.len(), "each has its own name");
    let mut used = BTreeSet::new();
    for rule in RULES {
        let said = rule
            .says
            .split('{')
            .skip(1)
            .filter_map(|part| part.split('}').next());
        used.extend(said.chain(rule.when.iter().map(Limit::fact)));
        let before: BTreeSet<&str> = RULES
            .iter()
            .map(|other| other.name)
            .take_while(|name| *name != rule.name)
            .collect();
        for name in rule.unless {
            assert!(before.contains(name), "{}: {name}", rule.name);
        }
    }
    assert_eq!(
        used, facts,
        "each figure is used, and each that is used is one"
    );
}

#[test]
fn the_most_important_comes_first() {
    let story = told(&[
        (Ran, 3_000),
        (Throttled, 4_000),
        (Waited("disk-io"), 2_000),
        (Waited("lock"), 1_000),
    ])
    .thread(&[(Waited("disk-io"), 10_000)])
    .still("disk-io", 10_000);
    assert_eq!(names(&story), ["hung", "throttled", "disk-io"]);
    let verdict = story.verdict();
    assert_eq!(
        verdict[0].text,
        "web/101 has been waiting for disk-io for 10.0s (since before the window), and still does."
    );
    assert_eq!(
        verdict[1].text,
        "The CPU quota of their cgroup (web.service) held threads back for 57% of the time they wanted to \
         run (4.00s of 7.00s); that is 100% of all their waiting for a CPU."
    );
    assert_eq!(
        verdict[2].text,
        "Threads waited for a disk for 22% of their working time (2.00s of 9.00s)."
    );
    assert_eq!(verdict[2].evidence[0], "/total/blocked_ns/disk-io");
}

#[test]
fn what_is_stuck_comes_before_idleness() {
    // One thread wakes from a sleep now and then, a little of what it did is unknown, and another waits for
    // a pipe throughout.
    let story = told(&[(Ran, 21), (Did::Unknown, 12), (Waited("sleep"), 9_967)])
        .thread(&[(Waited("pipe"), 10_000)])
        .still("pipe", 10_000);
    assert_eq!(names(&story), ["peer-wait", "idle"]);
}

#[test]
fn threads_that_do_nothing_hide_nothing() {
    // A pool of fifty that waits on a futex throughout, beside one thread that is throttled.
    let mut story = told(&[(Ran, 2_000), (Throttled, 8_000)]);
    for _ in 0..50 {
        story = story
            .thread(&[(Waited("lock"), 10_000)])
            .still("lock", 10_000);
    }
    assert_eq!(names(&story), ["throttled"]);
    // A pool that wakes now and then hides it as little, though it is asked about.
    let mut story = told(&[(Ran, 2_000), (Throttled, 8_000)]);
    for _ in 0..50 {
        story = story.thread(&[(Waited("lock"), 9_999), (Ran, 1)]);
    }
    assert_eq!(names(&story), ["throttled", "lock"]);
}

#[test]
fn figures_are_given_as_numbers() {
    let story = part(Throttled, 500);
    let value = serde_json::to_value(story.verdict()).expect("a verdict is JSON");
    assert_eq!(value[0]["rule"], "throttled");
    assert_eq!(value[0]["kind"], "problem");
    assert_eq!(value[0]["figures"]["share"], 0.5);
    assert_eq!(value[0]["figures"]["time_ns"], 500 * MS);
    assert_eq!(value[0]["figures"]["unit"], "web.service");
}

#[test]
fn the_documented_rules_are_these() {
    expect_file("../docs/verdicts.md", &document());
}
