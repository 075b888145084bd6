//! What is measured, as data: the workloads, and who watches them meanwhile.

use super::bars;

/// The work that a workload does, and how it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// `perf bench` with these words and so many loops: it tells how long it took.
    Perf {
        words: &'static [&'static str],
        loops: u32,
        loops_flag: &'static str,
    },
    /// The project's own workload with these words, for a while: it tells how often its threads waited.
    Turns {
        words: &'static [&'static str],
        millis: u32,
    },
    /// The same, and only what the probes take for each switch is of interest: the host idles otherwise,
    /// and time that passes says nothing.
    Idle {
        words: &'static [&'static str],
        millis: u32,
    },
}

/// A workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// As it is chosen on the command line.
    pub(crate) name: &'static str,
    /// As tables call it.
    pub(crate) title: &'static str,
    pub(crate) work: Work,
    /// Kept to the last CPU.
    pub(crate) pinned: bool,
    /// More programs of the project's own workload beside it.
    pub(crate) beside: &'static [&'static [&'static str]],
    /// So many times in a round it is measured with each mode that is [`Mode::is_judged`]. A shared machine is
    /// faster or slower by a fifth from one second to the next; only the median of many runs says what a few
    /// hundredths are.
    pub(crate) repeats: usize,
}

/// All workloads.
pub(crate) const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "pipe-pinned",
        title: "`perf bench sched pipe`, both ends on one CPU",
        work: Work::Perf {
            words: &["pipe"],
            loops: 90_000,
            loops_flag: "-l",
        },
        pinned: true,
        beside: &[],
        repeats: 6,
    },
    Workload {
        name: "pipe",
        title: "`perf bench sched pipe`, on any CPU",
        work: Work::Perf {
            words: &["pipe"],
            loops: 60_000,
            loops_flag: "-l",
        },
        pinned: false,
        beside: &[],
        repeats: 1,
    },
    Workload {
        name: "messaging",
        title: "`perf bench sched messaging`, 2 groups of 40 processes",
        work: Work::Perf {
            words: &["messaging", "-g", "2"],
            loops: 150,
            loops_flag: "-l",
        },
        pinned: false,
        beside: &[],
        repeats: 1,
    },
    Workload {
        name: "futex",
        title: "8 pairs that pass a turn by futex, on one CPU",
        work: Work::Turns {
            words: &["pingpong", "--threads", "8"],
            millis: 800,
        },
        pinned: true,
        beside: &[],
        repeats: 1,
    },
    Workload {
        name: "mix",
        title: "16 pairs that pass a turn by pipes, beside 2 threads on each CPU that compute",
        work: Work::Turns {
            words: &["pingpong", "--threads", "16", "--kind", "pipe"],
            millis: 1500,
        },
        pinned: false,
        beside: &[
            &["spin", "--cpu", "0", "--threads", "2"],
            &["spin", "--cpu", "1", "--threads", "2"],
        ],
        repeats: 1,
    },
    Workload {
        name: "idle",
        title: "a host that idles: a thread that sleeps a millisecond at a time",
        work: Work::Idle {
            words: &["sleep-loop", "--period", "1ms"],
            millis: 3000,
        },
        pinned: false,
        beside: &[],
        repeats: 1,
    },
];

/// As many switches as the host can do: one pair on each CPU.
pub(crate) const STORM: Workload = Workload {
    name: "storm",
    title: "one pair on each CPU that passes a turn by futex",
    work: Work::Turns {
        words: &["storm"],
        millis: 3000,
    },
    pinned: false,
    beside: &[],
    repeats: 1,
};

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `schedscope run`, with what the configuration says beyond the default.
    Service { config: &'static str },
    /// `schedscope` with these words; `{pid}` is the workload's, `{file}` a file for what it writes.
    Schedscope { words: &'static [&'static str] },
    /// A program of `libbpf-tools`.
    Libbpf {
        program: &'static str,
        words: &'static [&'static str],
    },
    /// bpftrace with its own `runqlat.bt`.
    Bpftrace,
    /// `perf sched record`.
    Perf,
}

/// A way to watch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// As it is chosen on the command line, and in tables.
    pub(crate) name: &'static str,
    pub(crate) tool: Tool,
}

/// Service with all that it can record.
pub(crate) const EVERYTHING: &str = "[probes]\nwakeups = true\nwakers = true\nstacks = \"1ms\"\n\
     [[target]]\nname = \"all\"\ncomm = \"*\"\n";

const REPORT: &[&str] = &["--output", "json", "--output-file", "{file}"];

/// The words that every measuring by hand ends with.
pub(crate) fn report_words() -> &'static [&'static str] {
    REPORT
}

/// All ways, ours first.
pub(crate) const MODES: [Mode; 11] = [
    Mode {
        name: "service",
        tool: Tool::Service { config: "" },
    },
    Mode {
        name: "service, everything",
        tool: Tool::Service { config: EVERYTHING },
    },
    Mode {
        name: "attach, no stacks",
        tool: Tool::Schedscope {
            words: &["attach", "{pid}", "--follow", "--stacks", "off"],
        },
    },
    Mode {
        name: "attach",
        tool: Tool::Schedscope {
            words: &["attach", "{pid}", "--follow"],
        },
    },
    Mode {
        name: "top",
        tool: Tool::Schedscope { words: &["top"] },
    },
    Mode {
        name: "record",
        tool: Tool::Schedscope {
            words: &["record", "-o", "{recording}"],
        },
    },
    Mode {
        name: "runqlat",
        tool: Tool::Libbpf {
            program: "runqlat",
            words: &[],
        },
    },
    Mode {
        name: "runqlat -P",
        tool: Tool::Libbpf {
            program: "runqlat",
            words: &["-P"],
        },
    },
    Mode {
        name: "offcputime",
        tool: Tool::Libbpf {
            program: "offcputime",
            words: &[],
        },
    },
    Mode {
        name: "runqlat.bt",
        tool: Tool::Bpftrace,
    },
    Mode {
        name: "perf sched record",
        tool: Tool::Perf,
    },
];

impl Mode {
    /// Whether a bar holds what it costs against something.
    pub(crate) fn is_judged(&self) -> bool {
        bars::JUDGED.contains(&self.name)
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.tool, Tool::Service { .. } | Tool::Schedscope { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::{MODES, WORKLOADS, bars::JUDGED};

    #[test]
    fn names_are_each_there_once() {
        let mut names: Vec<&str> = WORKLOADS.iter().map(|its| its.name).collect();
        names.extend(MODES.iter().map(|its| its.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_judged_is_there() {
        for name in JUDGED {
            assert!(MODES.iter().any(|mode| mode.name == name), "{name}");
        }
    }
}
