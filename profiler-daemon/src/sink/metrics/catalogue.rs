//! Every metric, once: the series, `docs/metrics.md` and, by a test, each other mention come from here.

use std::fmt::Write as _;

use super::buckets::BOUNDS_NS;

pub use super::metric::{Label, Metric, PREFIX, Type};

const TARGET: Label = Label {
    name: "target",
    values: "`host` for all threads of the host, or the name of a configured target",
};

const UNIT: Label = Label {
    name: "unit",
    values: "the systemd unit (`nginx.service`), container (`docker:web`), container of a pod \
             (`NAMESPACE/POD/CONTAINER`) or other cgroup (`/batch`; `/` for none, such as kernel \
             threads); `other` for all that have no series of their own",
};

const CAUSE: Label = Label {
    name: "cause",
    values: "`contended` (another thread or an interrupt had the CPU); `throttled` (the CPU quota of the \
             cgroup was used up); `placement` (the CPU was idle, and on its way to the thread); `unknown`",
};

const STAT: Label = Label {
    name: "stat",
    values: "`p50`, `p90`, `p99`, `p999` (quantiles), `max`",
};

const WAIT: Label = Label {
    name: "state",
    values: "`runnable` (for a CPU), or a reason as in `schedscope_blocked_seconds_total`",
};

const FIGURE: Label = Label {
    name: "figure",
    values: "`running` (on a CPU) or `runnable` (on a run queue)",
};

const PROBE: Label = Label {
    name: "probe",
    values: "the hook in the kernel",
};

macro_rules! catalogue {
    ($($(#[doc = $doc:literal])* $id:ident = $metric:expr;)+) => {
        $($(#[doc = $doc])* pub const $id: Metric = $metric;)+
        /// All metrics, in the order in which they are served.
        pub const CATALOGUE: &[&Metric] = &[$(&$id),+];
    };
}

catalogue! {
    /// Run-queue delay.
    RUNQUEUE_DELAY = Metric {
        name: "runqueue_delay",
        kind: Type::Histogram,
        unit: Some("seconds"),
        help: "How long threads waited for a CPU, from being put on a run queue to running",
        labels: &[TARGET],
        note: "A wait is counted when it has ended. A wait whose beginning was not seen is not counted \
               here, but in `schedscope_censored_waits_total`.",
    };
    /// Run-queue delay of late.
    RUNQUEUE_DELAY_WINDOW = Metric {
        name: "runqueue_delay_window",
        kind: Type::Gauge,
        unit: Some("seconds"),
        help: "Quantiles and maximum of the run-queue delays of the last minute",
        labels: &[TARGET, STAT],
        note: "Of the waits that ended in the last `metrics.window` or up to 10 s more; 0 if there were none. \
               A quantile is at most 0.8% above the true one and never below it; the maximum is exact if it \
               is the largest ever, else as a quantile. Absent in the first 10 s.",
    };
    /// Time off the CPU.
    OFFCPU = Metric {
        name: "offcpu",
        kind: Type::Histogram,
        unit: Some("seconds"),
        help: "How long threads were off the CPU, from leaving it to coming back",
        labels: &[TARGET],
        note: "The wait for a CPU at the end is part of it.",
    };
    /// Time by state.
    THREAD_TIME = Metric {
        name: "thread_time",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that threads spent in each state, waits that have not ended included",
        labels: &[
            TARGET,
            Label {
                name: "state",
                values: "`running`; `runnable` (on a run queue); `blocked` (waiting for something else); \
                         `unknown` (records were lost, left out or contradict one another)",
            },
        ],
        note: "The sum over the states is the time observed, exactly. Without wakeup records a thread that \
               was woken counts as blocked until it gets a CPU; what then turns out to have been runnable \
               moves over, and since a counter can't shrink, `blocked` stands still until it has caught \
               up.",
    };
    /// Unknown time by cause.
    UNKNOWN = Metric {
        name: "unknown",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time of threads of which it is not known what they did, by why that is so",
        labels: &[
            TARGET,
            Label {
                name: "cause",
                values: "`lost` (records were lost or contradict one another); `shed` (records of the thread were \
                         left out, because there were more than could be read)",
            },
        ],
        note: "Sums to `schedscope_thread_time_seconds_total{state=\"unknown\"}`.",
    };
    /// Blocked time by reason.
    BLOCKED = Metric {
        name: "blocked",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Blocked time of threads by reason, waits that have not ended included",
        labels: &[
            TARGET,
            Label {
                name: "reason",
                values: "`lock`, `event-wait`, `sleep`, `disk-io`, `fs-sync`, `net-recv`, `net-send`, \
                         `net-connect`, `net-accept`, `pipe`, `unix-socket`, `tty`, `page-fault`, \
                         `memory-reclaim`, `kernel-lock`, `child-wait`, `stopped`, `io-uring`, \
                         `kthread-idle`, `exit`, `other` (a system call that says nothing of what it waits \
                         for), `unknown`; `docs/classification.md` has the meaning of each",
            },
        ],
        note: "Sums to `schedscope_thread_time_seconds_total{state=\"blocked\"}`. `event-wait`, `sleep`, \
               `kthread-idle` and `net-accept` are plain idleness. What an open wait is taken for can be \
               corrected when it ends; what was counted wrong is not taken back, but what comes next is \
               counted less.",
    };
    /// Time on run queues by cause and origin.
    RUNNABLE = Metric {
        name: "runnable",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that threads were on a run queue, by what kept them from a CPU and how it began",
        labels: &[
            TARGET,
            CAUSE,
            Label {
                name: "origin",
                values: "`woken`; `preempted`; `yielded`; `forked`; `unknown` (before it was seen)",
            },
        ],
        note: "Sums to `schedscope_thread_time_seconds_total{state=\"runnable\"}`.",
    };
    /// Who held the CPU.
    INTERFERENCE = Metric {
        name: "interference",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that threads were on a run queue while somebody else had the CPU, by who that was",
        labels: &[
            Label {
                name: "victim",
                values: "whose threads waited: `host` for all threads of the host, or the name of a \
                         configured target",
            },
            Label {
                name: "culprit",
                values: "who had the CPU: the systemd unit (`nginx.service`, `user@1000.service/app.service`), \
                         container (`docker:web`, or the start of its id), container of a pod \
                         (`NAMESPACE/POD/CONTAINER`, or `pod:UID` if the node's files don't tell names) or other \
                         cgroup (`/batch`); the name of a process that belongs to none, up to a `/` (`kworker`); \
                         a kind of interrupts (`network softirq`); `other` for all that have no series of their own",
            },
        ],
        note: "Time in which a CPU quota was used up is nobody's. Each victim has at most 32 culprits. Where \
               there are more, one that takes much gets the series of the one that took least of late; \
               that one's ends, and begins at 0 if it comes back. So does one that took nothing for an \
               hour. A target's culprits include its own threads. For `host`, what belongs to short or old \
               stays may be missing.",
    };
    /// Switches.
    SWITCHES = Metric {
        name: "switches",
        kind: Type::Counter,
        unit: None,
        help: "Times that threads left a CPU",
        labels: &[
            TARGET,
            Label {
                name: "kind",
                values: "`voluntary` (in order to wait), `involuntary` (it still wanted to run)",
            },
        ],
        note: "",
    };
    /// Wakeups.
    WAKEUPS = Metric {
        name: "wakeups",
        kind: Type::Counter,
        unit: None,
        help: "Waits that ended in the thread getting a CPU",
        labels: &[TARGET],
        note: "",
    };
    /// Migrations.
    MIGRATIONS = Metric {
        name: "migrations",
        kind: Type::Counter,
        unit: None,
        help: "Times that a thread got another CPU than the one it had before",
        labels: &[TARGET],
        note: "",
    };
    /// Threads.
    THREADS = Metric {
        name: "threads",
        kind: Type::Gauge,
        unit: None,
        help: "Threads alive",
        labels: &[TARGET],
        note: "",
    };
    /// Open waits.
    OPEN_WAITS = Metric {
        name: "open_waits",
        kind: Type::Gauge,
        unit: None,
        help: "Waits and stays on a run queue that have not ended",
        labels: &[TARGET],
        note: "Their time so far is in `schedscope_thread_time_seconds_total`; the histograms get them \
               when they end.",
    };
    /// Threads that wait, by what for.
    WAITING_THREADS = Metric {
        name: "waiting_threads",
        kind: Type::Gauge,
        unit: None,
        help: "Threads that wait now, by what they wait for",
        labels: &[TARGET, WAIT],
        note: "",
    };
    /// The oldest wait that has not ended.
    OLDEST_WAIT = Metric {
        name: "oldest_wait",
        kind: Type::Gauge,
        unit: Some("seconds"),
        help: "How long the thread has waited that waits longest now, by what it waits for",
        labels: &[TARGET, WAIT],
        note: "What lies before the service's start is not counted. 0 if nobody waits so. A thread that is \
               stuck shows here while it is stuck; threads that have nothing to do grow old in \
               `event-wait`, `sleep`, `kthread-idle` and `net-accept`, and so does a `lock` that is a \
               condition variable or a join.",
    };
    /// Censored waits.
    CENSORED_WAITS = Metric {
        name: "censored_waits",
        kind: Type::Counter,
        unit: None,
        help: "Waits that the histograms don't have because not all of them was seen",
        labels: &[TARGET],
        note: "One for most threads that were there when the service started, and those that a loss \
               cut.",
    };
    /// Run-queue delay by unit.
    UNIT_RUNQUEUE_DELAY = Metric {
        name: "unit_runqueue_delay",
        kind: Type::Histogram,
        unit: Some("seconds"),
        help: "How long threads of a unit waited for a CPU, from being put on a run queue to running",
        labels: &[UNIT],
        note: "As `schedscope_runqueue_delay_seconds`, of all threads of a unit: systemd unit, container or pod. \
               The unit of a process is read when it begins and every minute; a process that is moved counts for \
               its old unit until then. At most `units.max` units have series; a unit without processes has \
               them for five more minutes, and less if others need the place.",
    };
    /// Run-queue delay by unit of late.
    UNIT_RUNQUEUE_DELAY_WINDOW = Metric {
        name: "unit_runqueue_delay_window",
        kind: Type::Gauge,
        unit: Some("seconds"),
        help: "Quantiles and maximum of the run-queue delays of a unit in the last minute",
        labels: &[UNIT, STAT],
        note: "As `schedscope_runqueue_delay_window_seconds`.",
    };
    /// Time of a unit's threads.
    UNIT_THREAD_TIME = Metric {
        name: "unit_thread_time",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that threads of a unit spent in each state, waits that have not ended included",
        labels: &[
            UNIT,
            Label {
                name: "state",
                values: "`running`; `runnable` (on a run queue); `blocked` (waiting for something that keeps \
                         it from its work); `idle` (waiting with nothing to do: `event-wait`, `sleep`, \
                         `kthread-idle`, `net-accept`); `unknown` (nobody knows what it did, or what it waited \
                         for)",
            },
        ],
        note: "",
    };
    /// Runnable time of a unit's threads.
    UNIT_RUNNABLE = Metric {
        name: "unit_runnable",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that threads of a unit were on a run queue, by what kept them from a CPU",
        labels: &[UNIT, CAUSE],
        note: "Sums to `schedscope_unit_thread_time_seconds_total{state=\"runnable\"}`.",
    };
    /// Threads of a unit.
    UNIT_THREADS = Metric {
        name: "unit_threads",
        kind: Type::Gauge,
        unit: None,
        help: "Threads of a unit that are alive",
        labels: &[UNIT],
        note: "",
    };
    /// The oldest runnable thread of a unit.
    UNIT_OLDEST_RUNNABLE = Metric {
        name: "unit_oldest_runnable",
        kind: Type::Gauge,
        unit: Some("seconds"),
        help: "How long the thread of a unit has been on a run queue that is there longest now",
        labels: &[UNIT],
        note: "0 if there is none. Without wakeup records only threads that were preempted are seen here.",
    };
    /// Who slows whom.
    UNIT_INTERFERENCE = Metric {
        name: "unit_interference",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that threads of a unit were on a run queue while another unit, or itself, had the CPU",
        labels: &[
            Label { name: "victim", values: "whose threads waited: a unit as above" },
            Label { name: "culprit", values: "which unit had the CPU, or `interrupts`" },
        ],
        note: "Time in which a CPU quota was used up is nobody's, and stays that have not ended are not in it. \
               Each victim has at most 8 culprits; where there are more, one that takes much gets the series \
               of the one that took least of late.",
    };
    /// Units.
    UNITS = Metric {
        name: "units",
        kind: Type::Gauge,
        unit: None,
        help: "Units that have series of their own",
        labels: &[],
        note: "At `units.max` there is no room for more: what comes then is `other`.",
    };
    /// Records read.
    EVENTS = Metric {
        name: "events",
        kind: Type::Counter,
        unit: None,
        help: "Records read from the probes",
        labels: &[Label {
            name: "kind",
            values: "`switch`, `wakeup`, `fork`, `gap`, `rename`, `exec`, `waking`, `migrate`, `throttle`, \
                     `cgroup-move`, `throttled`",
        }],
        note: "",
    };
    /// Records lost.
    EVENTS_DROPPED = Metric {
        name: "events_dropped",
        kind: Type::Counter,
        unit: None,
        help: "Records lost because a ring was full",
        labels: &[
            Label { name: "cpu", values: "the CPU's number" },
            Label { name: "kind", values: "as in `schedscope_events_total`" },
        ],
        note: "Should not grow. Where it does, `state=\"unknown\"` grows with it, and `ring.records_per_cpu` \
               is too small.",
    };
    /// Records left out.
    EVENTS_SHED = Metric {
        name: "events_shed",
        kind: Type::Counter,
        unit: None,
        help: "Records left out on purpose, because there were more than could be read",
        labels: &[Label { name: "kind", values: "`switch`, `wakeup`, `waking` or `migrate`" }],
        note: "Counted by the probes, exactly. Records of `schedscope_events_total` with those that were left \
               out and dropped are all that happened. `docs/overload.md` says what is left out and what follows.",
    };
    /// The part of the threads that is followed.
    KEPT = Metric {
        name: "threads_kept",
        kind: Type::Gauge,
        unit: Some("ratio"),
        help: "Part of the host's threads that is followed: 1 unless there is more than can be read",
        labels: &[],
        note: "While it is below 1, all figures of the host, of targets and of units lack what the other threads \
               did; those of threads that are followed are complete. It goes up again by itself.",
    };
    /// How long threads were left out.
    SHEDDING = Metric {
        name: "shedding",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time in which not all threads were followed",
        labels: &[],
        note: "Of the whole host, not of each thread.",
    };
    /// Records of an unknown kind.
    EVENTS_UNDECODABLE = Metric {
        name: "events_undecodable",
        kind: Type::Counter,
        unit: None,
        help: "Records of a kind that this version does not know",
        labels: &[],
        note: "Is 0.",
    };
    /// Contradictions.
    CONFLICTS = Metric {
        name: "conflicts",
        kind: Type::Counter,
        unit: None,
        help: "Contradictions between records, or between a record and the kernel's own figures",
        labels: &[Label {
            name: "conflict",
            values: "its name; each with the rule that settles it is in `docs/architecture.md`",
        }],
        note: "No conflict makes a sample of a wait that can't be trusted.",
    };
    /// Ring fill.
    RING_FILL = Metric {
        name: "ring_fill",
        kind: Type::Gauge,
        unit: Some("ratio"),
        help: "Fullest that a ring was when it was drained, since the last scrape",
        labels: &[],
        note: "At 1 records are lost.",
    };
    /// Age of the figures.
    WATERMARK_LAG = Metric {
        name: "watermark_lag",
        kind: Type::Gauge,
        unit: Some("seconds"),
        help: "How old the figures of this scrape are",
        labels: &[],
        note: "",
    };
    /// Clock error.
    CLOCK_ERROR = Metric {
        name: "clock_error",
        kind: Type::Gauge,
        unit: Some("seconds"),
        help: "How far the clocks of two CPUs may be apart",
        labels: &[],
        note: "The error of a single wait that began on one CPU and ended on another. Absent when it was \
               not measured.",
    };
    /// Drains.
    DRAINS = Metric {
        name: "drains",
        kind: Type::Counter,
        unit: None,
        help: "Times that the rings were drained",
        labels: &[],
        note: "",
    };
    /// Wakeups of the daemon.
    DRAIN_WAKEUPS = Metric {
        name: "drain_wakeups",
        kind: Type::Counter,
        unit: None,
        help: "Times that the daemon woke up to see to the rings",
        labels: &[],
        note: "On an idle host about two a second.",
    };
    /// Resynchronizations.
    RESYNCS = Metric {
        name: "resyncs",
        kind: Type::Counter,
        unit: None,
        help: "Times that all threads were read again because records had been lost",
        labels: &[],
        note: "",
    };
    /// Comparisons with the kernel's books.
    SELF_CHECKS = Metric {
        name: "self_checks",
        kind: Type::Counter,
        unit: None,
        help: "Threads whose figures were held against /proc/TID/schedstat",
        labels: &[Label {
            name: "result",
            values: "`agrees`; `differs` by more than 5 ms and 1% in ten seconds; `unsure`: it agrees only if \
                     what was unknown of the thread is taken for what the kernel has more",
        }],
        note: "Some threads that have run of late, others every ten seconds. `differs` should stay rare: what it \
               counts was measured wrongly, or records were lost.",
    };
    /// What was compared.
    SELF_CHECKED = Metric {
        name: "self_checked",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time of the threads that were held against /proc/TID/schedstat, as either side has it",
        labels: &[FIGURE, Label {
            name: "source",
            values: "`schedscope` or `kernel`",
        }],
        note: "Without threads of which some time was unknown.",
    };
    /// What came of it.
    SELF_CHECK_RATIO = Metric {
        name: "self_check",
        kind: Type::Gauge,
        unit: Some("ratio"),
        help: "Time of the threads that were held against /proc/TID/schedstat, ours to the kernel's",
        labels: &[FIGURE],
        note: "Since the service started; there is none before the first comparison. Away from 1 by more than \
               0.02 over hours, the figures are not to be trusted.",
    };
    /// Time of the probes.
    PROBE_RUN = Metric {
        name: "probe_run",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "Time that the kernel measured in a probe while it was sampled",
        labels: &[PROBE],
        note: "Sampled every `probes.stats_interval`, so it is not all the time that the probe took: divide \
               its rate by that of `schedscope_probe_runs_total` for the cost of a run, and multiply by \
               that of `schedscope_events_total`. The measuring itself, some 50 ns a run, is in it.",
    };
    /// Runs of the probes.
    PROBE_RUNS = Metric {
        name: "probe_runs",
        kind: Type::Counter,
        unit: None,
        help: "Runs of a probe while it was sampled",
        labels: &[PROBE],
        note: "",
    };
    /// Missed runs of the probes.
    PROBE_MISSED = Metric {
        name: "probe_missed",
        kind: Type::Counter,
        unit: None,
        help: "Runs of a probe that the kernel left out because it was running already on that CPU",
        labels: &[PROBE],
        note: "Each is a record lost that no ring counts, save of `hrtimer_expire_entry` and \
               `hrtimer_expire_exit`, which only mark that a timer wakes: a timer may interrupt another one. Of the \
               others it should be 0; Linux before 5.12 does not count them.",
    };
    /// CPU time of the daemon.
    PROCESS_CPU = Metric {
        name: "process_cpu",
        kind: Type::Counter,
        unit: Some("seconds"),
        help: "CPU time of this process; that of the probes is not in it",
        labels: &[],
        note: "",
    };
    /// Memory of the daemon.
    PROCESS_MEMORY = Metric {
        name: "process_resident_memory",
        kind: Type::Gauge,
        unit: Some("bytes"),
        help: "Memory that this process has in RAM, the mapped rings included",
        labels: &[],
        note: "",
    };
    /// The program.
    BUILD = Metric {
        name: "build",
        kind: Type::Info,
        unit: None,
        help: "The program",
        labels: &[Label { name: "version", values: "its version" }],
        note: "",
    };
    /// The probes.
    PROBES = Metric {
        name: "probes",
        kind: Type::Info,
        unit: None,
        help: "How the probes measure on this host",
        labels: &[
            Label { name: "kernel", values: "the kernel's release" },
            Label { name: "clock", values: "`run-queue` or `monotonic`" },
            Label { name: "wakeups", values: "`true` if wakeups are recorded, else `false`" },
        ],
        note: "",
    };
}

/// The documentation.
#[must_use]
pub fn document() -> String {
    let mut text = "\
# Metrics

`schedscope run` serves them at `/metrics`, in the format that the client likes best: OpenMetrics text (1.0.0),
Prometheus protobuf, or Prometheus text (0.0.4) for all others. Times are in seconds; counters only grow while
the service runs.

When a counter or a histogram began is told in the protobuf form, of each one. A Prometheus that can use it
(`--enable-feature=created-timestamp-zero-ingestion`, 2.50 and newer) asks for protobuf by itself. OpenMetrics text would
tell it as `_created` series, which Prometheus without that flag stores as so many series more; they are not served.

## Buckets and their error

All histograms have these bounds, in seconds:

"
    .to_owned();
    let bounds: Vec<String> = BOUNDS_NS
        .iter()
        .map(|&ns| format!("{}", ns as f64 / 1e9))
        .collect();
    text += &crate::sink::text::wrap(&format!("`{}`, `+Inf`.", bounds.join("`, `")), 110, 0);
    text += "
Durations are kept in finer buckets, each at most 1/128 wide, whose edges are not these round bounds. A
duration counts towards a bound only if its whole finer bucket lies within it. So a bound never counts a
duration that is longer, and misses only such that are less than 0.8% shorter. `_sum` and `_count` are exact.

The protobuf form has native histograms beside them (schema 5: each bucket is 2.2% wide; by unit schema 3, 9.1%).
There, too, a duration counts where the end of its finer bucket lies. So a quantile of a native histogram is the
true one to within 3.0% (by unit 9.9%), plus what the interpolation in a bucket of few waits may be off.
Prometheus takes them with `--enable-feature=native-histograms`, and then asks for protobuf by itself.

OpenMetrics and protobuf have exemplars at the run-queue delays of targets: of each bucket that holds one of
the target's twenty longest waits, which thread waited, what woke it (`waker`), and who had the CPU (`culprit`).

## All metrics

| metric | type | labels | meaning |
|---|---|---|---|
";
    for metric in CATALOGUE {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{}`", label.name))
            .collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            metric.series(),
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    for metric in CATALOGUE {
        let _ = write!(text, "\n### `{}`\n\n", metric.series());
        let note = if metric.note.is_empty() { "" } else { ". " };
        let sentence = format!("{}{note}{}", metric.help, metric.note);
        let end = if metric.note.is_empty() { "." } else { "" };
        text += &crate::sink::text::wrap(&(sentence + end), 110, 0);
        if !metric.labels.is_empty() {
            text.push('\n');
        }
        for label in metric.labels {
            let line = format!("* `{}`: {}.", label.name, label.values);
            text += &crate::sink::text::wrap(&line, 110, 2);
        }
    }
    text
}
