//! What this host has of what the probes need, and what follows from what it lacks.
//!
//! Only finds out; how it is shown is somebody else's business.

mod why;

use std::{fs, io, path::Path};

use profiler_ebpf::{Clock, config::programs, ring::MIN_RECORDS};

use super::{
    btf::{self, Btf, VMLINUX},
    fields::{self, Fault, Finding, Need},
    kernel::{Kernel, Options},
    load, pids,
    trial::{self, MapKind},
};

/// What was found out about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Ok,
    /// It is not.
    Missing,
    /// It can't be told, mostly for want of a permission.
    Unknown,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The host as a whole.
    Host,
    /// What this process may do.
    Permission,
    /// Parts of the kernel's BPF machinery.
    Machinery,
    /// Places in the kernel that probes are attached to.
    Hook,
    /// Fields of kernel structs.
    Field,
    /// Everything together, tried out.
    Trial,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub topic: Topic,
    /// What was looked for.
    pub name: String,
    /// Whether it is there.
    pub state: State,
    /// What was found, in words.
    pub found: String,
    /// Without it nothing can be measured.
    pub essential: bool,
    /// What follows if it isn't there, and what helps against it.
    pub consequence: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// In the order in which a reader wants them.
    pub rows: Vec<Row>,
}

impl Facts {
    /// Whether nothing that is needed is known to be missing, and the probes could be loaded.
    #[must_use]
    pub fn can_measure(&self) -> bool {
        let hinders = |row: &&Row| row.essential && row.state != State::Ok;
        let tried = self.rows.iter().find(|row| row.topic == Topic::Trial);
        // What was tried out and works, works: an oddity in the rows above doesn't hinder it.
        tried.is_some_and(|row| row.state == State::Ok)
            || !self.rows.iter().any(|row| hinders(&row))
    }
}

/// Looks at everything. Loads the probes once, with small rings, and removes them.
#[must_use]
pub fn look() -> Facts {
    let mut rows = host();
    let capabilities = Capabilities::of_self();
    rows.extend(permissions(capabilities.as_ref()));
    rows.extend(machinery());
    match Btf::parse(Path::new(VMLINUX)) {
        Ok(btf) => {
            rows.push(btf_row(State::Ok, "readable".to_owned()));
            rows.extend(hooks(&btf));
            rows.extend(why::rows(&btf));
            rows.extend(fields::survey(&btf).findings.iter().map(field));
            rows.extend(super::why::survey(&btf).1.iter().map(field));
        }
        Err(error) => rows.push(btf_row(missing_or_unknown(&error), error.to_string())),
    }
    rows.extend(trial());
    why::settle(&mut rows);
    rows.sort_by_key(|row| row.topic);
    Facts { rows }
}

fn row(topic: Topic, name: &str, state: State, found: impl Into<String>) -> Row {
    Row {
        topic,
        name: name.to_owned(),
        state,
        found: found.into(),
        essential: false,
        consequence: String::new(),
    }
}

impl Row {
    fn essential(mut self) -> Self {
        self.essential = true;
        self
    }

    fn otherwise(mut self, consequence: impl Into<String>) -> Self {
        self.consequence = consequence.into();
        self
    }
}

/// The oldest kernel that the probes are made for.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Since this one, BPF maps are counted against the cgroup's memory and not against `RLIMIT_MEMLOCK`.
const MEMORY_BY_CGROUP: (u32, u32) = (5, 11);

fn host() -> Vec<Row> {
    let release = load::release();
    let version = version_of(&release);
    let new_enough = match version {
        Some(version) if version >= OLDEST_KERNEL => State::Ok,
        Some(_) => State::Missing,
        None => State::Unknown,
    };
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    let architecture = std::env::consts::ARCH;
    let known = matches!(architecture, "x86_64" | "aarch64");
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    let jit_state = match jit.as_deref().map(str::trim) {
        Ok("0") => State::Missing,
        Ok(_) => State::Ok,
        // The file belongs to the network; without it nothing can turn the JIT compiler off.
        Err(_) => State::Unknown,
    };
    let namespace = pids::namespace();
    let namespace_state = match &namespace {
        Ok(namespace) if pids::is_first(namespace) => State::Ok,
        Ok(_) => State::Missing,
        Err(_) => State::Unknown,
    };
    let cpus = match (load::possible_cpus(), std::thread::available_parallelism()) {
        (Ok(possible), Ok(usable)) => row(
            Topic::Host,
            "CPUs",
            State::Ok,
            format!("{possible} possible, {usable} for this process"),
        ),
        (Err(error), _) | (_, Err(error)) => {
            row(Topic::Host, "CPUs", State::Unknown, error.to_string())
        }
    };
    vec![
        row(
            Topic::Host,
            &format!("Linux {oldest_major}.{oldest_minor} or newer"),
            new_enough,
            release,
        )
        .essential()
        .otherwise("older kernels lack the task iterator and more: use a newer one"),
        row(
            Topic::Host,
            "x86-64 or arm64",
            if known { State::Ok } else { State::Missing },
            architecture,
        )
        .otherwise("the probes were never tried on this architecture"),
        cpus.essential()
            .otherwise("there is a ring for each possible CPU: mount /sys"),
        row(
            Topic::Host,
            "first PID namespace",
            namespace_state,
            namespace.unwrap_or_else(|error| error.to_string()),
        )
        .otherwise(
            "reports have the host's thread ids (what is given by id is found), and of processes outside \
             of this namespace neither units nor, at the start, anything is known: share the host's \
             (hostPID, --pid=host)",
        ),
        row(
            Topic::Host,
            "BPF JIT compiler",
            jit_state,
            jit.map_or_else(|error| error.to_string(), |text| text.trim().to_owned()),
        )
        .otherwise(
            "the kernel interprets the probes, which multiplies their cost: \
             sysctl net.core.bpf_jit_enable=1",
        ),
    ]
}

/// The first two numbers of a release such as `6.18.1-cloud`.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The capabilities that matter, as bits of their numbers (include/uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_BPF", 39),
    ("CAP_PERFMON", 38),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_RESOURCE", 24),
];

/// Effective capabilities.
struct Capabilities(u64);

impl Capabilities {
    fn of_self() -> Option<Self> {
        Self::in_status(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn in_status(status: &str) -> Option<Self> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    fn has(&self, wanted: &str) -> bool {
        CAPABILITIES
            .iter()
            .any(|(name, bit)| *name == wanted && self.0 >> bit & 1 == 1)
    }

    fn names(&self) -> String {
        let names: Vec<_> = CAPABILITIES
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| self.has(name))
            .collect();
        if names.is_empty() {
            "none of them".to_owned()
        } else {
            names.join(", ")
        }
    }
}

fn permissions(capabilities: Option<&Capabilities>) -> Vec<Row> {
    let state = |is_enough: fn(&Capabilities) -> bool| match capabilities {
        Some(capabilities) if is_enough(capabilities) => State::Ok,
        Some(_) => State::Missing,
        None => State::Unknown,
    };
    let names = capabilities.map_or(
        "/proc/self/status can't be read".to_owned(),
        Capabilities::names,
    );
    let is_admin = |capabilities: &Capabilities| capabilities.has("CAP_SYS_ADMIN");
    let may_load = |capabilities: &Capabilities| {
        capabilities.has("CAP_SYS_ADMIN")
            || (capabilities.has("CAP_BPF") && capabilities.has("CAP_PERFMON"))
    };
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown");
    let (lockdown_state, lockdown_found) = lockdown_mode(lockdown);
    vec![
        row(
            Topic::Permission,
            "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN",
            state(may_load),
            names.clone(),
        )
        .essential()
        .otherwise(
            "the probes can't be loaded: run as root, or give these capabilities, for instance by \
             AmbientCapabilities= of a systemd unit",
        ),
        row(Topic::Permission, "CAP_SYS_ADMIN", state(is_admin), names)
            .otherwise("what the probes cost can't be counted; all else works"),
        row(
            Topic::Permission,
            "kernel not locked down for confidentiality",
            lockdown_state,
            lockdown_found,
        )
        .essential()
        .otherwise(
            "a locked-down kernel keeps BPF programs from reading its memory: boot with \
             lockdown=integrity or none",
        ),
    ]
}

/// What the lockdown file says: the mode in brackets is the one in force.
fn lockdown_mode(text: io::Result<String>) -> (State, String) {
    match text {
        Ok(text) => {
            let mode = text.split(['[', ']']).nth(1).unwrap_or("").to_owned();
            match mode.as_str() {
                "confidentiality" => (State::Missing, mode),
                "none" | "integrity" => (State::Ok, mode),
                _ => (State::Unknown, format!("{:?}", text.trim())),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            State::Ok,
            "this kernel has no lockdown, or securityfs is not mounted".to_owned(),
        ),
        Err(error) => (State::Unknown, error.to_string()),
    }
}

fn machinery() -> Vec<Row> {
    let try_map = |kind| match trial::create(kind) {
        Ok(()) => (State::Ok, "works".to_owned()),
        Err(error) => (missing_or_unknown(&error), error.to_string()),
    };
    let (arrays, arrays_found) = try_map(MapKind::MappedArray);
    let (ring_buffer, ring_buffer_found) = try_map(MapKind::RingBuffer);
    let by_cgroup = version_of(&load::release()).map(|version| version >= MEMORY_BY_CGROUP);
    let memory = match by_cgroup {
        Some(true) => row(
            Topic::Machinery,
            "locked memory",
            State::Ok,
            "counted against the cgroup's memory",
        ),
        _ => locked_memory(),
    };
    vec![
        row(
            Topic::Machinery,
            "arrays that can be mapped",
            arrays,
            arrays_found,
        )
        .essential()
        .otherwise("the rings can't be read: use Linux 5.10 or newer"),
        row(
            Topic::Machinery,
            "BPF ring buffer",
            ring_buffer,
            ring_buffer_found,
        )
        .essential()
        .otherwise("the daemon can't be woken: use Linux 5.10 or newer"),
        memory,
    ]
}

/// The limit of older kernels on the memory of maps.
fn locked_memory() -> Row {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let (state, found) = match limit {
        None => (State::Ok, "not limited".to_owned()),
        // The loader raises it if it may.
        Some(bytes) => match Capabilities::of_self() {
            Some(capabilities) if capabilities.has("CAP_SYS_RESOURCE") => (
                State::Ok,
                format!("limited to {bytes} bytes, and will be raised"),
            ),
            _ => (State::Unknown, format!("limited to {bytes} bytes")),
        },
    };
    row(Topic::Machinery, "locked memory", state, found).otherwise(
        "the rings may not fit: raise the limit (LimitMEMLOCK=infinity, ulimit -l unlimited), give \
         CAP_SYS_RESOURCE, or choose smaller rings",
    )
}

fn btf_row(state: State, found: String) -> Row {
    row(
        Topic::Machinery,
        &format!("type information in {VMLINUX}"),
        state,
        found,
    )
    .essential()
    .otherwise(
        "the kernel's fields can't be found: use a kernel with CONFIG_DEBUG_INFO_BTF=y, as every \
             distribution's has been since 2021",
    )
}

fn hooks(btf: &Btf) -> Vec<Row> {
    let survey = fields::survey(btf);
    let tracepoint = |name: &str, is_known: bool| {
        let (state, found) = match (btf.tracepoint_parameters(name), is_known) {
            (Some(_), true) => (State::Ok, "there"),
            (Some(_), false) => (State::Missing, "there, with arguments of an unknown form"),
            (None, _) => (State::Missing, "not there"),
        };
        row(Topic::Hook, &format!("tracepoint {name}"), state, found)
    };
    let switch = survey.switch_program;
    let iterator = btf.find("bpf_iter_task", btf::Kind::Func).is_some();
    let can_stamp =
        survey.config.clock == Clock::RunQueue as u32 && survey.config.has_sched_info != 0;
    let mut wakeup = tracepoint(programs::SCHED_WAKEUP, true)
        .otherwise("open waits for a CPU are seen only when they end");
    if !can_stamp {
        wakeup = wakeup
            .essential()
            .otherwise("run-queue delay can't be measured on this kernel without wakeups");
    }
    let always = "threads can't be followed: use a kernel with CONFIG_TRACEPOINTS=y and BTF";
    vec![
        tracepoint(programs::SCHED_SWITCH, switch.is_some())
            .essential()
            .otherwise(always),
        wakeup,
        tracepoint(programs::SCHED_WAKEUP_NEW, true)
            .essential()
            .otherwise(always),
        tracepoint(programs::TASK_RENAME, true)
            .essential()
            .otherwise(always),
        tracepoint(programs::SCHED_PROCESS_EXEC, true)
            .essential()
            .otherwise(always),
        row(
            Topic::Hook,
            "task iterator",
            if iterator { State::Ok } else { State::Missing },
            if iterator { "there" } else { "not there" },
        )
        .essential()
        .otherwise("threads that exist at the start can't be listed: use Linux 5.10 or newer"),
    ]
}

fn field(finding: &Finding) -> Row {
    let (state, found) = match &finding.offset {
        Ok(offset) => (State::Ok, format!("at offset {offset}")),
        // Whether groups can be followed instead has a row of its own.
        Err(Fault::Missing) if finding.need == Need::ThreadThrottling => (
            State::Ok,
            "not there: quotas are followed by group".to_owned(),
        ),
        Err(Fault::Missing) => (State::Missing, "not there".to_owned()),
        Err(Fault::Size { found }) => (
            State::Missing,
            format!("of an unexpected size ({found} bytes)"),
        ),
    };
    let mut row =
        row(Topic::Field, &finding.name, state, found).otherwise(finding.need.consequence());
    row.essential = finding.need == Need::Always;
    row
}

/// Loads and attaches the probes, and takes them away.
fn trial() -> Vec<Row> {
    let options = Options {
        ring_records: MIN_RECORDS,
        wakeups: true,
        syscalls: true,
        wakers: true,
        throttling: true,
        stacks: Some(1_000_000),
        user_stacks: true,
        ..Options::default()
    };
    let mut rows = Vec::new();
    let (state, found) = match Kernel::start(&options) {
        Ok(kernel) => {
            let clock = match kernel.clock() {
                Clock::RunQueue => "the run queue's clock",
                Clock::Monotonic => "bpf_ktime_get_ns",
            };
            let error_ns = kernel.clock_error_ns();
            rows.extend(kernel.lacks().iter().map(|lack| {
                row(
                    Topic::Hook,
                    lack.what,
                    State::Missing,
                    lack.reason.lines().next().unwrap_or_default(),
                )
                .otherwise(lack.consequence)
            }));
            (
                State::Ok,
                format!("they load and attach; stamped by {clock}, known to {error_ns} ns"),
            )
        }
        Err(error) => (State::Missing, error.to_string()),
    };
    rows.push(
        row(Topic::Trial, "probes", state, found)
            .essential()
            .otherwise("nothing can be measured"),
    );
    rows
}

/// A refusal for want of permission says nothing about what there is.
fn missing_or_unknown(error: &io::Error) -> State {
    match error.kind() {
        io::ErrorKind::PermissionDenied => State::Unknown,
        _ => State::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, Facts, Row, State, Topic, lockdown_mode, look, row, version_of};

    #[test]
    fn releases_are_understood() {
        let cases = [
            ("6.18.44-fc", Some((6, 18))),
            ("5.10.0-28-amd64", Some((5, 10))),
            ("7.1", Some((7, 1))),
            ("4.18.0", Some((4, 18))),
            ("unknown", None),
            ("6", None),
        ];
        for (release, expected) in cases {
            assert_eq!(version_of(release), expected, "{release}");
        }
    }

    #[test]
    fn capabilities_are_read_by_their_bits() {
        let capabilities = |mask: &str| {
            Capabilities::in_status(&format!("Name:\tx\nCapEff:\t{mask}\n"))
                .map(|found| found.names())
        };
        assert_eq!(
            capabilities("000000c000000000"),
            Some("CAP_BPF, CAP_PERFMON".to_owned())
        );
        assert_eq!(
            capabilities("0000000000200000"),
            Some("CAP_SYS_ADMIN".to_owned())
        );
        assert_eq!(capabilities("0"), Some("none of them".to_owned()));
        assert_eq!(capabilities("x"), None);
    }

    #[test]
    fn the_lockdown_mode_is_the_one_in_brackets() {
        let state = |text: &str| lockdown_mode(Ok(text.to_owned())).0;
        assert_eq!(state("[none] integrity confidentiality\n"), State::Ok);
        assert_eq!(state("none [integrity] confidentiality\n"), State::Ok);
        assert_eq!(state("none integrity [confidentiality]\n"), State::Missing);
        assert_eq!(state(""), State::Unknown);
    }

    fn facts(rows: &[(Topic, State, bool)]) -> Facts {
        let made = |&(topic, state, essential): &(Topic, State, bool)| Row {
            essential,
            ..row(topic, "x", state, "")
        };
        Facts {
            rows: rows.iter().map(made).collect(),
        }
    }

    #[test]
    fn what_is_essential_decides() {
        let ok = (Topic::Trial, State::Ok, true);
        let failed = (Topic::Trial, State::Missing, true);
        assert!(facts(&[(Topic::Field, State::Missing, false), ok]).can_measure());
        assert!(!facts(&[(Topic::Field, State::Ok, true), failed]).can_measure());
        assert!(!facts(&[(Topic::Permission, State::Unknown, true)]).can_measure());
        assert!(
            facts(&[(Topic::Permission, State::Unknown, true), ok]).can_measure(),
            "it was tried"
        );
    }

    #[test]
    fn every_row_that_can_fail_says_what_follows() {
        for row in look().rows {
            let can_fail = row.name != "locked memory" || row.state != State::Ok;
            assert!(!can_fail || !row.consequence.is_empty(), "{row:?}");
            assert!(!row.found.is_empty(), "{row:?}");
        }
    }
}
