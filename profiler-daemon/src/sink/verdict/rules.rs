//! The rules of the verdict, as data.

use serde::Serialize;

use super::facts::{Bound, Value};

/// What a finding means for the reader. The order is that of a verdict, but that those of one rank stand
/// together, the longest time first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// There can be no verdict. It stands alone.
    None,
    /// A wait that goes on and should have ended long ago.
    Stuck,
    /// There was nothing to do.
    Idle,
    /// It kept threads from their work.
    Problem,
    /// Threads ran; that is no wait.
    Busy,
    /// It kept threads from their work, or it was idleness: what is said with it decides.
    Question,
    /// Rare or small, but worth knowing.
    Note,
    /// How far the rest can be trusted.
    Caveat,
}

impl Kind {
    /// Its name in the report and the documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Stuck => "stuck",
            Self::Idle => "idle",
            Self::Problem => "problem",
            Self::Busy => "busy",
            Self::Question => "question",
            Self::Note => "note",
            Self::Caveat => "caveat",
        }
    }
}

/// What a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// All that the target did.
    Whole,
    /// Waiting for a CPU.
    Queue,
    /// Waiting for a CPU for this cause.
    Cause(&'static str),
    /// Waiting for these reasons.
    Blocked(&'static [&'static str]),
    /// Stays on a run queue that had not ended.
    OpenQueue,
    /// Waits for these reasons that had not ended; for any that is not idle if there are none.
    Open(&'static [&'static str]),
}

/// A limit that a figure must keep for a rule to fire. One that is not known keeps none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// The figure is not less.
    AtLeast(&'static str, Bound),
    /// The figure is less.
    Below(&'static str, Bound),
    /// There is such a figure.
    Known(&'static str),
}

impl Limit {
    /// The figure's name.
    #[must_use]
    pub fn fact(&self) -> &'static str {
        match self {
            Self::AtLeast(fact, _) | Self::Below(fact, _) | Self::Known(fact) => fact,
        }
    }

    /// Whether this value keeps it.
    #[must_use]
    pub fn holds(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::AtLeast(_, bound) => bound.is_reached(value),
            Self::Below(_, bound) => !bound.is_reached(value),
            Self::Known(_) => true,
        }
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name in the report.
    pub name: &'static str,
    /// What its finding means.
    pub kind: Kind,
    /// What it speaks of.
    pub topic: Topic,
    /// When it fires: all of these hold.
    pub when: &'static [Limit],
    /// It does not fire if one of these did; they come before it.
    pub unless: &'static [&'static str],
    /// What it says: `{name}` is a figure, and `[...]` is left out if a figure in it is not known.
    pub says: &'static str,
    /// What to do.
    pub advice: &'static str,
}

impl Rule {
    /// Where its finding stands in a verdict. Running is weighed against what kept threads from it, and a
    /// wait that goes on while nothing else does comes first.
    pub(super) fn rank(&self) -> Kind {
        match (self.kind, self.topic) {
            (Kind::Busy, _) => Kind::Problem,
            (Kind::Question, Topic::Open(_)) => Kind::Stuck,
            (kind, _) => kind,
        }
    }
}

/// The rule for when no other has anything to say but notes and caveats; it has no limits.
pub(super) const FALLBACK: &str = "mixed";

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

const fn share(fact: &'static str, at_least: f64) -> Limit {
    Limit::AtLeast(fact, Bound::Share(at_least))
}

const fn time(fact: &'static str, at_least_ns: u64) -> Limit {
    Limit::AtLeast(fact, Bound::Time(at_least_ns))
}

const fn count(fact: &'static str, at_least: u64) -> Limit {
    Limit::AtLeast(fact, Bound::Count(at_least))
}

/// A wait for a CPU that matters: beside the time that the threads wanted one, beside their work, and at
/// all.
const QUEUED: &[Limit] = &[
    share("share", 0.10),
    share("of_work", 0.05),
    share("of_window", 0.01),
];

/// A wait for what is never idleness.
const HELD_UP: &[Limit] = &[share("share", 0.10), share("of_window", 0.01)];

/// A wait that may be idleness.
const MAYBE: &[Limit] = &[share("share", 0.20), share("of_window", 0.05)];

const fn blocked(
    name: &'static str,
    kind: Kind,
    reasons: &'static [&'static str],
    says: &'static str,
    advice: &'static str,
) -> Rule {
    Rule {
        name,
        kind,
        topic: Topic::Blocked(reasons),
        when: match kind {
            Kind::Question => MAYBE,
            _ => HELD_UP,
        },
        unless: &[],
        says,
        advice,
    }
}

/// Of the rules on locks the first that fires speaks: this is the one at that place in [`LOCKS`].
const fn lock(
    place: usize,
    kind: Kind,
    when: &'static [Limit],
    says: &'static str,
    advice: &'static str,
) -> Rule {
    let (before, from) = LOCKS.split_at(place);
    Rule {
        name: from[0],
        kind,
        topic: Topic::Blocked(&["lock"]),
        when,
        unless: before,
        says,
        advice,
    }
}

/// The longest waits are not so much longer than the others that nothing follows from them for those.
const TYPICAL: Limit = share("typical", 0.20);

const LOCKS: &[&str] = &[
    "lock-holder-queued",
    "lock-holder-idle",
    "lock-holder-blocked",
    "lock-holder-ran",
    "lock-timeout",
    "lock",
];

/// Reasons that mean something is wrong if such a wait lasts.
const MUST_END: &[&str] = &[
    "disk-io",
    "fs-sync",
    "page-fault",
    "memory-reclaim",
    "kernel-lock",
];

/// Reasons that depend on somebody else. A futex is not among them: in most programs some thread waits in
/// one for the others to end.
const PEERS: &[&str] = &[
    "pipe",
    "unix-socket",
    "net-recv",
    "net-send",
    "net-connect",
    "tty",
    "io-uring",
    "other",
];

/// All rules. One that silences another comes before it.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule {
        name: "no-time", kind: Kind::None, topic: Topic::Whole, unless: &[],
        when: &[Limit::Below("observed", Bound::Time(1))],
        says: "No verdict: nothing of the target was seen.",
        advice: "Check the target, and measure again.",
    },
    Rule {
        name: "too-short", kind: Kind::None, topic: Topic::Whole, unless: &[],
        when: &[Limit::Below("window", Bound::Time(500 * MS))],
        says: "No verdict: {window} is too short to tell what is usual.",
        advice: "Measure for some seconds: --duration 5s.",
    },
    Rule {
        name: "too-much-lost", kind: Kind::None, topic: Topic::Whole, unless: &[],
        when: &[share("unknown_share", 0.25), share("unknown_of_window", 0.05)],
        says: "No verdict: {unknown_share} of the threads' non-idle time ({unknown}) is unknown[, since {dropped} events of the host were dropped][, since threads were left out: {shed} events of the host].",
        advice: "Measure again, with larger rings (--ring-records) if events were dropped or left out.",
    },
    Rule {
        name: "starved", kind: Kind::Stuck, topic: Topic::OpenQueue, unless: &[],
        when: &[time("stuck_for", S)],
        says: "{stuck_thread} has been ready to run for {stuck_for}[ ({or_longer})], and still has no CPU[: {stuck_cause}].",
        advice: "See who has its CPUs (CPU HELD BY), its priority and affinity, and the quota of its cgroup.",
    },
    Rule {
        name: "hung", kind: Kind::Stuck, topic: Topic::Open(MUST_END), unless: &[],
        when: &[time("stuck_for", 2 * S)],
        says: "{stuck_thread} has been waiting for {stuck_reason} for {stuck_for}[ ({or_longer})], and still does[; so do {stuck_others}].",
        advice: "Such a wait should take milliseconds: look for a hanging device or file system (dmesg, iostat -x), and at the kernel stack with --explain.",
    },
    Rule {
        name: "stopped-now", kind: Kind::Stuck, topic: Topic::Open(&["stopped"]), unless: &[],
        when: &[time("stuck_for", S)],
        says: "{stuck_thread} has been stopped for {stuck_for}[ ({or_longer})], and still is[; so are {stuck_others}].",
        advice: "Find who stopped it: a debugger (TracerPid in /proc/PID/status), the freezer of its cgroup, or a signal; kill -CONT ends the last.",
    },
    Rule {
        name: "all-waiting", kind: Kind::Question, topic: Topic::Open(&[]), unless: &["starved", "hung", "stopped-now"],
        when: &[Limit::Below("active", Bound::Count(1)), Limit::Below("idle", Bound::Time(1)), time("stuck_for", 500 * MS)],
        says: "No thread ran, and none was idle. {stuck_thread} has been waiting for {stuck_reason} for {stuck_for}[ ({or_longer})][; so have {stuck_others}].",
        advice: "Either nobody has work for it, or whom it waits for is stuck: look at the other end; --user-stacks shows where in the program it waits.",
    },
    Rule {
        name: "peer-wait", kind: Kind::Question, topic: Topic::Open(PEERS), unless: &["starved", "hung", "stopped-now", "all-waiting"],
        when: &[time("stuck_for", 2 * S), Limit::Below("non_idle_of_window", Bound::Share(0.05))],
        says: "{stuck_thread} has been waiting for {stuck_reason} for {stuck_for}[ ({or_longer})], and still does[; so do {stuck_others}]; nothing else keeps the target from its work.",
        advice: "Whoever is at the other end is stuck, or has nothing to say: look there.",
    },
    Rule {
        name: "idle", kind: Kind::Idle, topic: Topic::Whole, unless: &["starved", "hung", "stopped-now", "all-waiting"],
        when: &[share("idle_share", 0.90), Limit::Below("non_idle_of_window", Bound::Share(0.05))],
        says: "Threads that were active or idle had nothing to do for {idle_share} of their time: they are not the bottleneck.",
        advice: "Look at what should give them work.",
    },
    Rule {
        name: "throttled", kind: Kind::Problem, topic: Topic::Cause("throttled"), unless: &[],
        when: &[share("share", 0.05), share("of_work", 0.05), share("of_window", 0.01)],
        says: "The CPU quota of their cgroup[ ({unit})] held threads back for {share} of the time they wanted to run ({time} of {base}); that is {of_queue} of all their waiting for a CPU.",
        advice: "Raise the quota (cpu.max, CPUQuota=) or run fewer threads.",
    },
    Rule {
        name: "neighbor", kind: Kind::Problem, topic: Topic::Cause("contended"), unless: &[],
        when: &[share("share", 0.10), share("of_work", 0.05), share("of_window", 0.01), share("neighbors", 0.5), Limit::Known("culprit")],
        says: "Others had the CPU for {share} of the time threads wanted to run ({time} of {base}): {culprit} for {culprit_share} of that[; {one_thread} waited {one_thread_share} of it].",
        advice: "Give the threads CPUs of their own (cpuset, affinity), or the others less weight (cpu.weight, nice) or a quota.",
    },
    Rule {
        name: "own-threads", kind: Kind::Problem, topic: Topic::Cause("contended"), unless: &[],
        when: &[share("share", 0.10), share("of_work", 0.05), share("of_window", 0.01), share("own", 0.5)],
        says: "Threads waited for each other to leave the CPU for {share} of the time they wanted to run ({time} of {base}): they wanted {demand} CPUs on average and ran on {got}.",
        advice: "Give the process more CPUs (affinity, cpuset), or run fewer threads at a time.",
    },
    Rule {
        name: "interrupts", kind: Kind::Problem, topic: Topic::Cause("contended"), unless: &[],
        when: &[share("share", 0.05), share("of_work", 0.05), share("of_window", 0.01), share("interrupts", 0.1)],
        says: "Interrupts had {interrupts} of the CPU time that threads waited for ({time} of {base} were contended): foremost the {interrupt}.",
        advice: "See which ones (/proc/interrupts, /proc/softirqs), and move them to other CPUs (smp_affinity, irqbalance, RPS) or make them fewer (interrupt coalescing).",
    },
    Rule {
        name: "contended", kind: Kind::Problem, topic: Topic::Cause("contended"), unless: &["neighbor", "own-threads", "interrupts"],
        when: QUEUED,
        says: "Other threads had the CPU for {share} of the time threads wanted to run ({time} of {base})[, foremost {culprit} with {culprit_share} of it].",
        advice: "Too many threads want these CPUs: see CPU HELD BY for whose they are.",
    },
    Rule {
        name: "placement", kind: Kind::Problem, topic: Topic::Cause("placement"), unless: &[],
        when: QUEUED,
        says: "For {share} of the time threads wanted to run ({time} of {base}) their CPU was idle and had not begun to run them yet[; half of the waits were over in {p50}, 99% in {p99}].",
        advice: "Waking an idle CPU takes that long here: look at its idle states (cpuidle, /dev/cpu_dma_latency), and on a virtual machine at its host (steal time).",
    },
    Rule {
        name: "cpu-wait", kind: Kind::Problem, topic: Topic::Queue, unless: &["throttled", "neighbor", "own-threads", "interrupts", "contended", "placement"],
        when: QUEUED,
        says: "Threads waited for a CPU for {share} of the time they wanted to run ({time} of {base}), for no single cause.",
        advice: "See \"Waiting for a CPU\" for the causes.",
    },
    blocked("disk-io", Kind::Problem, &["disk-io"],
        "Threads waited for a disk for {share} of their working time ({time} of {base})[, in {waits} waits][; the longest took {longest}][; mostly in {call}].",
        "Look at the device (iostat -x) and whether others load it; read less, or keep it in memory."),
    blocked("fs-sync", Kind::Problem, &["fs-sync"],
        "Threads waited for data to be safe on a disk for {share} of their working time ({time} of {base})[, in {waits} waits][; the longest took {longest}][; mostly in {call}].",
        "Sync less often or many writes at once, or use a faster device; look at it with iostat -x."),
    blocked("page-fault", Kind::Problem, &["page-fault"],
        "Threads waited for pages of memory to be brought in for {share} of their working time ({time} of {base})[, in {waits} waits][; the longest took {longest}].",
        "Memory is short (memory.pressure, swap), or a mapped file is not cached yet: lock or preload it, or give more memory."),
    blocked("memory-reclaim", Kind::Problem, &["memory-reclaim"],
        "Threads waited for memory to be freed for {share} of their working time ({time} of {base})[; the longest wait took {longest}].",
        "The host or the cgroup is out of memory (memory.max, memory.high, memory.events): raise the limit or use less."),
    blocked("kernel-lock", Kind::Problem, &["kernel-lock"],
        "Threads waited for locks inside the kernel for {share} of their working time ({time} of {base})[; {waker} ended {waker_waits} of the {looked} longest waits][; mostly in {call}].",
        "--explain shows the kernel stacks: mmap_lock means changes of the address space (mmap, munmap, faults), an inode's lock means one file used by many."),
    blocked("stopped", Kind::Problem, &["stopped"],
        "Threads were stopped for {share} of their working time ({time} of {base})[; {waker} continued them in {waker_waits} of the {looked} longest waits].",
        "Find who stops them: a debugger or tracer, the freezer of the cgroup, or signals."),
    blocked("net-send", Kind::Problem, &["net-send"],
        "Threads waited for room to send to a network peer for {share} of their working time ({time} of {base}).",
        "The peer reads too slowly, or the network is full: look at the peer, and at send queues with ss -ti."),
    blocked("net-connect", Kind::Problem, &["net-connect"],
        "Threads waited for a network peer to accept connections for {share} of their working time ({time} of {base})[; the longest took {longest}].",
        "Look at the peer's backlog (ss -ltn) and at lost packets."),
    lock(0, Kind::Problem,
        &[share("share", 0.10), share("of_window", 0.01), Limit::Known("waker"), TYPICAL, share("waker_queued", 0.33)],
        "Threads waited on {lock} for {share} of their non-idle time ({time} of {base}); {waker} ended {waker_waits} of the {looked} longest waits, and was itself waiting for a CPU for {waker_queued} of them[, mostly behind {waker_held_by}].",
        "Whoever holds the lock gets no CPU: see to its CPU first (quota, affinity, priority, the neighbor)."),
    lock(1, Kind::Question,
        &[share("share", 0.10), share("of_window", 0.01), Limit::Known("waker"), TYPICAL, share("waker_idle", 0.5)],
        "Threads waited on {lock} for {share} of their non-idle time ({time} of {base}); {waker} ended {waker_waits} of the {looked} longest waits, and was itself idle ({waker_for}) for {waker_idle} of them.",
        "If that is a mutex, it is held across that wait: release it first. If it is a queue of work, there was none, and all is well."),
    lock(2, Kind::Problem,
        &[share("share", 0.10), share("of_window", 0.01), Limit::Known("waker"), TYPICAL, share("waker_blocked", 0.33)],
        "Threads waited on {lock} for {share} of their non-idle time ({time} of {base}); {waker} ended {waker_waits} of the {looked} longest waits, and was itself waiting ({waker_for}) for {waker_blocked} of them.",
        "Whoever is waited for waits itself: see to that wait first, or do not hold the lock across it."),
    lock(3, Kind::Problem,
        &[share("share", 0.10), share("of_window", 0.01), Limit::Known("waker"), TYPICAL, share("waker_ran", 0.33)],
        "Threads waited on {lock} for {share} of their non-idle time ({time} of {base}); {waker} ended {waker_waits} of the {looked} longest waits, and ran for {waker_ran} of them.",
        "The others wait for what that thread does: shorten its work under the lock, or split the lock."),
    lock(4, Kind::Question,
        &[share("share", 0.20), share("of_window", 0.05), TYPICAL, share("timer_share", 0.5)],
        "Threads waited on {lock} for {share} of their non-idle time ({time} of {base}), and {timer_share} of the longest waits ended by a timeout.",
        "Nobody woke them: they poll, or had nothing to do; --user-stacks shows where in the program they wait."),
    lock(5, Kind::Question, MAYBE,
        "Threads waited on {lock} for {share} of their non-idle time ({time} of {base})[, in {waits} waits][; {waker} ended {waker_waits} of the {looked} longest].",
        "A contended lock, or a pool without work: --user-stacks shows where in the program they wait."),
    blocked("pipe", Kind::Question, &["pipe"],
        "Threads waited for the other end of a pipe for {share} of their non-idle time ({time} of {base})[; {waker} ended {waker_waits} of the {looked} longest waits][, and {waker_did}].",
        "Look at the process at the other end: it is slow, or there is nothing to pass on."),
    blocked("unix-socket", Kind::Question, &["unix-socket"],
        "Threads waited for the other end of a Unix socket for {share} of their non-idle time ({time} of {base})[; {waker} ended {waker_waits} of the {looked} longest waits][, and {waker_did}].",
        "Look at the process at the other end: it is slow, or has nothing to ask."),
    blocked("net-recv", Kind::Question, &["net-recv"],
        "Threads waited for data from a network peer for {share} of their non-idle time ({time} of {base})[; the longest took {longest}][; {waker} ended {waker_waits} of the {looked} longest waits].",
        "For a client the peer or the network is slow: look there. A server that waits for requests is idle."),
    blocked("tty", Kind::Question, &["tty"],
        "Threads waited for a terminal for {share} of their non-idle time ({time} of {base}).",
        "Somebody has to type, or to read what is written."),
    blocked("child-wait", Kind::Question, &["child-wait"],
        "Threads waited for child processes for {share} of their non-idle time ({time} of {base})[; {waker} ended {waker_waits} of the {looked} longest waits].",
        "Measure the children: they have the time."),
    blocked("io-uring", Kind::Question, &["io-uring"],
        "Threads waited for completions of an io_uring for {share} of their non-idle time ({time} of {base}).",
        "Look at what was submitted: a slow device or peer, or nothing to do."),
    blocked("exit", Kind::Question, &["exit"],
        "Threads waited for the other threads of their process to end for {share} of their non-idle time ({time} of {base}).",
        "See \"Still waiting\" for what the last threads wait for."),
    blocked("other", Kind::Question, &["other"],
        "Threads waited in system calls that do not say what for, for {share} of their non-idle time ({time} of {base})[, mostly in {call}].",
        "--explain shows the kernel stacks."),
    blocked("unknown-reason", Kind::Question, &["unknown"],
        "For {share} of the threads' non-idle time ({time} of {base}) they waited, and nothing tells what for.",
        "Measure with reasons and stacks on (see schedscope check for what this host lacks)."),
    Rule {
        name: "busy", kind: Kind::Busy, topic: Topic::Whole, unless: &[],
        when: &[share("ran_share", 0.75), share("ran_of_window", 0.10)],
        says: "Threads ran for {ran_share} of their working time ({ran} of {working}), on {got} CPUs on average: what takes time is their own work.",
        advice: "A CPU profiler (perf record) shows what they do.",
    },
    Rule {
        name: "one-busy-thread", kind: Kind::Note, topic: Topic::Whole, unless: &[],
        when: &[count("active", 3), share("busy_thread_share", 0.8), share("busy_thread_of_all", 0.8)],
        says: "One thread, {busy_thread}, ran {busy_thread_share} of its time and did {busy_thread_of_all} of all that {active} threads ran: it sets the pace.",
        advice: "More CPUs or threads will not help unless its work is divided.",
    },
    Rule {
        name: "long-queue", kind: Kind::Note, topic: Topic::Queue, unless: &["idle", "throttled", "neighbor", "own-threads", "contended", "placement", "cpu-wait"],
        when: &[time("longest", 50 * MS)],
        says: "Waiting for a CPU is {share} of the time threads wanted to run, but one wait took {longest}: {longest_thread}[, while {longest_held_by} had the CPU].",
        advice: "See \"Longest run-queue delays\" for when and why.",
    },
    Rule {
        name: "long-wait", kind: Kind::Note, topic: Topic::Blocked(MUST_END), unless: &["hung", "disk-io", "fs-sync", "page-fault", "memory-reclaim", "kernel-lock"],
        when: &[time("longest", 200 * MS)],
        says: "Waiting for disks, memory or the kernel is {share} of the working time, but one wait ({longest_reason}) took {longest}: {longest_thread}.",
        advice: "See \"Longest waits\" for when, and what ended it.",
    },
    Rule {
        name: "open-wait", kind: Kind::Note, topic: Topic::Open(PEERS), unless: &["hung", "all-waiting", "peer-wait"],
        when: &[time("stuck_for", 2 * S)],
        says: "{stuck_thread} has been waiting for {stuck_reason} for {stuck_for}[ ({or_longer})], and still does[; so do {stuck_others}].",
        advice: "Nothing to do, or the other end is stuck: look there.",
    },
    Rule {
        name: FALLBACK, kind: Kind::Busy, topic: Topic::Whole, unless: &[],
        when: &[],
        says: "Nothing dominates in {observed} of the threads' time[: of their working time ({working}) they ran {ran_share}, waited {queued_share} for a CPU, and {blocked_share} for disks, memory or the kernel].",
        advice: "See where each thread's time went below.",
    },
    Rule {
        name: "few-waits", kind: Kind::Caveat, topic: Topic::Whole, unless: &["busy", "idle", "starved", "hung", "stopped-now", "all-waiting"],
        when: &[Limit::Below("ended_waits", Bound::Count(10))],
        says: "All this rests on few waits: {ended_waits} ended within {window}.",
        advice: "Measure longer before you act on it.",
    },
    Rule {
        name: "some-unknown", kind: Kind::Caveat, topic: Topic::Whole, unless: &[],
        when: &[share("unknown_share", 0.05), share("unknown_of_window", 0.01)],
        says: "{unknown_share} of the threads' non-idle time ({unknown}) is unknown[, since {dropped} events of the host were dropped][, since threads were left out: {shed} events of the host]; it counts as none of the above.",
        advice: "Larger rings (--ring-records) lose less.",
    },
];
