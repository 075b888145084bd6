//! Which kernel fields the probes read, where this kernel has them, and what follows where it doesn't.

use profiler_ebpf::{
    Clock,
    config::{ABSENT, Config, programs},
};

use super::btf::{Btf, Field, Parameter};

/// What a field is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing works without it.
    Always,
    /// For stamping records by the run queue's clock; else `bpf_ktime_get_ns` does it.
    RunQueueClock,
    /// For run-queue delay from the kernel's own books; else it takes wakeup records.
    SchedInfo,
    /// For marking waits for block devices.
    IoWait,
    /// Only kernels for more than one CPU have it, and only there it is needed: it says where threads
    /// are.
    Smp,
    /// For reading the system calls that threads wait in.
    Syscall,
    /// For telling precisely which wait a waker ended.
    Waker,
    /// For time without CPU quota.
    Throttling,
    /// For threads throttled one by one, as kernels do since Linux 6.18; the others lack it rightly.
    ThreadThrottling,
    /// For the kind of file that a thread waits for.
    File,
}

impl Need {
    /// What follows if a field of this need is not there.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Always => "the probes can't be loaded",
            Self::RunQueueClock => {
                "records are stamped by bpf_ktime_get_ns, which costs 35 to 55 ns more an event, \
                 and wakeups are recorded too"
            }
            Self::SchedInfo => {
                "run-queue delay is measured from wakeup records, which about doubles the cost"
            }
            Self::IoWait => "waits for block devices are not told apart from other ones",
            Self::Smp => {
                "threads that are there at the start are taken to be on CPU 0 and not to run"
            }
            Self::Syscall => "system calls are not read, so many waits have no reason",
            Self::Waker => "wakers may be matched with waits less exactly",
            Self::Throttling => {
                "time without CPU quota is not told apart from other run-queue delay"
            }
            Self::ThreadThrottling => {
                "throttling is followed by group; before Linux 6.18 this is as it should be"
            }
            Self::File => "waits for files are not told apart by the kind of file",
        }
    }
}

/// A field that the probes read, and whose offset goes into a `C`.
pub(crate) struct Row<C> {
    /// The struct that it is in.
    pub(crate) structure: &'static str,
    /// Its names, newest first: the kernel renames and moves fields.
    pub(crate) paths: &'static [&'static str],
    /// The sizes in bytes that the probes can read; a bit field has none.
    pub(crate) sizes: &'static [u32],
    pub(crate) need: Need,
    /// Stores what was found.
    pub(crate) set: fn(&mut C, Field),
}

/// A row of a field of this many bytes.
macro_rules! row {
    ($need:ident, $structure:literal, [$($path:literal),+], [$($size:literal),+], $field:ident) => {
        $crate::source::fields::Row {
            structure: $structure,
            paths: &[$($path),+],
            sizes: &[$($size),+],
            need: $crate::source::fields::Need::$need,
            set: |config, field| config.$field = field.offset,
        }
    };
}
pub(crate) use row;

/// All fields. Names and sizes from include/linux/sched.h and kernel/sched/sched.h, Linux 5.10 to 7.2.
pub(crate) const ROWS: &[Row<Config>] = &[
    row!(Always, "task_struct", ["pid"], [4], task_pid),
    row!(Always, "task_struct", ["tgid"], [4], task_tgid),
    row!(Always, "task_struct", ["flags"], [4], task_flags),
    row!(Always, "task_struct", ["comm"], [16], task_comm),
    // `long state` until 5.13; its low four bytes are read.
    row!(
        Always,
        "task_struct",
        ["__state", "state"],
        [4, 8],
        task_state
    ),
    row!(Always, "task_struct", ["exit_state"], [4], task_exit_state),
    row!(
        Always,
        "task_struct",
        ["start_boottime"],
        [8],
        task_start_boottime
    ),
    row!(
        Always,
        "task_struct",
        ["real_parent"],
        [8],
        task_real_parent
    ),
    // A byte since Linux 7; its low byte is read.
    row!(Smp, "task_struct", ["on_cpu"], [1, 4], task_on_cpu),
    // In `task_struct` itself until 5.15.
    row!(
        Smp,
        "task_struct",
        ["thread_info.cpu", "cpu"],
        [4],
        task_cpu
    ),
    row!(
        RunQueueClock,
        "task_struct",
        ["se.cfs_rq"],
        [8],
        task_cfs_rq
    ),
    row!(RunQueueClock, "cfs_rq", ["rq"], [8], cfs_rq_rq),
    row!(RunQueueClock, "rq", ["clock"], [8], rq_clock),
    row!(
        SchedInfo,
        "task_struct",
        ["sched_info.pcount"],
        [8],
        task_pcount
    ),
    row!(
        SchedInfo,
        "task_struct",
        ["sched_info.run_delay"],
        [8],
        task_run_delay
    ),
    row!(
        SchedInfo,
        "task_struct",
        ["sched_info.last_queued"],
        [8],
        task_last_queued
    ),
    Row {
        structure: "task_struct",
        paths: &["in_iowait"],
        sizes: &[],
        need: Need::IoWait,
        set: |config, field| {
            if let Some((bit, _)) = field.bits {
                config.task_in_iowait = field.offset;
                config.task_in_iowait_mask = 1 << bit;
            }
        },
    },
];

/// Why a field can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel has no such field, under any of its names.
    Missing,
    /// It has another size than the probes can read.
    Size {
        /// Its size here in bytes; 0 for a bit field.
        found: u32,
    },
}

/// What was found out about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `struct.field`, by its newest name.
    pub name: String,
    /// What it is needed for.
    pub need: Need,
    /// Where it is: its offset in bytes.
    pub offset: Result<u32, Fault>,
}

/// What the probes are told about this kernel, and how it was found out.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// All offsets that were found; the ring's sizes are not set.
    pub(crate) config: Config,
    /// One for each field.
    pub(crate) findings: Vec<Finding>,
    /// The program for the form that the arguments of `sched_switch` have here, if it is a known one.
    pub(crate) switch_program: Option<&'static str>,
}

/// Looks for all fields.
pub(crate) fn survey(btf: &Btf) -> Survey {
    let mut config = Config::UNSET;
    let findings = ROWS.iter().map(|row| find(btf, row, &mut config)).collect();
    let switch_program = btf
        .tracepoint_parameters("sched_switch")
        .as_deref()
        .and_then(switch_program);
    let has = |offsets: &[u32]| !offsets.contains(&ABSENT);
    if !has(&[config.task_cfs_rq, config.cfs_rq_rq, config.rq_clock]) {
        config.clock = Clock::Monotonic as u32;
    }
    let sched_info = [
        config.task_pcount,
        config.task_run_delay,
        config.task_last_queued,
    ];
    config.has_sched_info = u32::from(has(&sched_info));
    if config.task_in_iowait == ABSENT {
        // No bit of it will be looked at.
        config.task_in_iowait = config.task_pid;
    }
    Survey {
        config,
        findings,
        switch_program,
    }
}

/// Looks for one field.
pub(crate) fn find<C>(btf: &Btf, row: &Row<C>, config: &mut C) -> Finding {
    let name = format!("{}.{}", row.structure, row.paths[0]);
    let found = row
        .paths
        .iter()
        .find_map(|path| btf.field(row.structure, path));
    let offset = match found {
        None => Err(Fault::Missing),
        Some(field) if is_readable(row, field) => {
            (row.set)(config, field);
            Ok(field.offset)
        }
        Some(field) => Err(Fault::Size { found: field.size }),
    };
    Finding {
        name,
        need: row.need,
        offset,
    }
}

fn is_readable<C>(row: &Row<C>, field: Field) -> bool {
    match field.bits {
        // One bit can be tested; what is wider would be a number.
        Some((_, width)) => row.sizes.is_empty() && width == 1,
        None => row.sizes.contains(&field.size),
    }
}

/// The program for the form that the parameters of `sched_switch` have.
///
/// They are nameless in the type information, but their types tell them apart.
fn switch_program(parameters: &[Parameter]) -> Option<&'static str> {
    let is_task = |parameter: &Parameter| *parameter == Parameter::PointerTo("task_struct".into());
    let is_bool = |parameter: &Parameter| *parameter == Parameter::Value("_Bool".into());
    let is_state = |parameter: &Parameter| *parameter == Parameter::Value("unsigned int".into());
    match parameters {
        [preempt, prev, next] if is_bool(preempt) && is_task(prev) && is_task(next) => {
            Some(programs::SCHED_SWITCH_WITHOUT_STATE)
        }
        [preempt, a, b, c] if is_bool(preempt) && is_task(b) => {
            if is_task(a) && is_state(c) {
                Some(programs::SCHED_SWITCH)
            } else if is_state(a) && is_task(c) {
                Some(programs::SCHED_SWITCH_STATE_FIRST)
            } else {
                None
            }
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Btf, Fault, Need, Parameter, Row, programs, survey, switch_program};
    use crate::source::btf::VMLINUX;

    fn task() -> Parameter {
        Parameter::PointerTo("task_struct".to_owned())
    }

    fn value(name: &str) -> Parameter {
        Parameter::Value(name.to_owned())
    }

    #[test]
    fn each_form_of_the_switch_has_its_program() {
        let (preempt, state) = (value("_Bool"), value("unsigned int"));
        let cases = [
            (
                vec![preempt.clone(), task(), task(), state.clone()],
                Some(programs::SCHED_SWITCH),
            ),
            (
                vec![preempt.clone(), state.clone(), task(), task()],
                Some(programs::SCHED_SWITCH_STATE_FIRST),
            ),
            (
                vec![preempt.clone(), task(), task()],
                Some(programs::SCHED_SWITCH_WITHOUT_STATE),
            ),
            (vec![preempt.clone(), task(), state.clone(), task()], None),
            (vec![task(), task()], None),
            (vec![preempt, task(), task(), value("long")], None),
            (vec![], None),
        ];
        for (parameters, expected) in cases {
            assert_eq!(switch_program(&parameters), expected, "{parameters:?}");
        }
    }

    #[test]
    fn every_field_is_documented() {
        expect_documented(super::ROWS);
    }

    /// Fails unless the documentation has a line of each of these fields, with its sizes.
    #[track_caller]
    pub(crate) fn expect_documented<C>(rows: &[Row<C>]) {
        let text = include_str!("../../../docs/kernel-fields.md");
        for row in rows {
            let name = format!("`{}.{}`", row.structure, row.paths[0]);
            let line = text
                .lines()
                .find(|line| line.starts_with('|') && line.contains(&name));
            let line = line.unwrap_or_else(|| panic!("docs/kernel-fields.md has no row of {name}"));
            for size in row.sizes {
                assert!(line.contains(&size.to_string()), "{size} bytes in: {line}");
            }
        }
    }

    #[test]
    fn the_running_kernel_has_what_is_always_needed() {
        let Ok(btf) = Btf::parse(std::path::Path::new(VMLINUX)) else {
            println!(
                "not run: source::fields::tests::the_running_kernel_has_what_is_always_needed: no {VMLINUX}"
            );
            return;
        };
        let survey = survey(&btf);
        for finding in survey.findings {
            if finding.need == Need::Always {
                assert!(finding.offset.is_ok(), "{finding:?}");
            }
            let is_unexpected = matches!(finding.offset, Err(Fault::Size { .. }));
            assert!(!is_unexpected, "{finding:?}");
        }
        assert!(survey.switch_program.is_some());
    }
}
