//! Setting up what tells why threads wait. All of it is optional: what a host can't do is left out and
//! said, and never stops the rest.

use aya::programs::{BtfTracePoint, FEntry, KProbe, Program, ProgramError};
use profiler_ebpf::{
    config::ABSENT,
    why::{MAX_USER_STACKS, WhyConfig, programs},
};

use super::{
    btf::{Btf, Kind},
    error::chain,
    evidence,
    fields::{self, Fault, Finding, Need, Row, row},
    kernel::Options,
    load::{Hook, Loaded},
};

/// Something that was asked for and that this host can't do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What it is.
    pub what: &'static str,
    /// What follows.
    pub consequence: &'static str,
    /// Why not.
    pub reason: String,
}

/// What throttling is called where it is lacking.
pub(crate) const THROTTLING: &str = "throttling";

/// How many waits' evidence each CPU may take in a second: with some 3 microseconds each, below one percent
/// of its time.
const EVIDENCE_BUDGET: u32 = 2_000;

/// Bytes of a thread's kernel stack before Linux 5.15 (`THREAD_SIZE`), at whose end its registers are.
///
/// 16 KiB on both architectures, or a page if that is more (arm64 with pages of 64 KiB). With KASAN it is
/// more than that, by how much depends: then `None`.
fn kernel_stack_bytes(btf: &Btf) -> Option<u32> {
    let page = u32::try_from(rustix::param::page_size()).ok()?;
    let has_kasan = btf.field("task_struct", "kasan_depth").is_some();
    (!has_kasan).then(|| page.max(16 * 1024))
}

/// What is the same on every architecture. Names and sizes from Linux 5.10 to 6.18.
const ROWS: &[Row<WhyConfig>] = &[
    row!(
        Waker,
        "task_struct",
        ["sched_info.last_arrival"],
        [8],
        task_last_arrival
    ),
    row!(
        Throttling,
        "task_struct",
        ["sched_task_group"],
        [8],
        task_group
    ),
    row!(Throttling, "task_group", ["css.cgroup"], [8], group_cgroup),
    row!(Throttling, "cgroup", ["kn"], [8], cgroup_kn),
    row!(Throttling, "kernfs_node", ["id"], [8], kn_id),
    row!(Throttling, "task_group", ["cfs_rq"], [8], group_cfs_rq),
    row!(
        Throttling,
        "cfs_rq",
        ["throttle_count"],
        [4],
        cfs_rq_throttle_count
    ),
    row!(Throttling, "rq", ["cpu"], [4], rq_cpu),
    row!(
        ThreadThrottling,
        "cfs_rq",
        ["throttled_clock_self_time"],
        [8],
        cfs_rq_throttled_clock_self_time
    ),
    row!(
        ThreadThrottling,
        "cfs_rq",
        ["throttled_clock_self"],
        [8],
        cfs_rq_throttled_clock_self
    ),
    row!(
        ThreadThrottling,
        "task_struct",
        ["throttled"],
        [1],
        task_throttled
    ),
    row!(File, "task_struct", ["files"], [8], task_files),
    row!(File, "files_struct", ["fdt"], [8], files_fdt),
    row!(File, "fdtable", ["max_fds"], [4], fdt_max_fds),
    row!(File, "fdtable", ["fd"], [8], fdt_fd),
    row!(File, "file", ["f_inode"], [8], file_inode),
    row!(File, "file", ["private_data"], [8], file_private_data),
    row!(File, "file", ["f_path.dentry"], [8], file_dentry),
    row!(File, "dentry", ["d_name.name"], [8], dentry_name),
    row!(File, "inode", ["i_mode"], [2], inode_mode),
    row!(File, "inode", ["i_rdev"], [4], inode_rdev),
    row!(File, "inode", ["i_sb"], [8], inode_sb),
    row!(File, "super_block", ["s_magic"], [8], sb_magic),
    row!(File, "socket", ["sk"], [8], socket_sk),
    row!(File, "sock", ["__sk_common.skc_family"], [2], sock_family),
    row!(File, "sock", ["__sk_common.skc_state"], [1], sock_state),
    row!(File, "sock", ["sk_type"], [2], sock_type),
    row!(File, "sock", ["sk_protocol"], [2], sock_protocol),
    row!(Syscall, "task_struct", ["stack"], [8], task_stack),
];

/// The registers that a system call is in (arch/*/include/asm/ptrace.h).
#[cfg(target_arch = "x86_64")]
const REGISTERS: &[Row<WhyConfig>] = &[
    row!(Syscall, "pt_regs", ["orig_ax"], [8], regs_syscall),
    row!(Syscall, "pt_regs", ["di"], [8], regs_argument),
    row!(Throttling, "pt_regs", ["di"], [8], regs_first),
    row!(Throttling, "pt_regs", ["si"], [8], regs_second),
    // Since Linux 6.9 the word has more in it than the selector.
    row!(Syscall, "pt_regs", ["cs"], [2, 8], regs_mode),
];

/// The selector of 32-bit code (`__USER32_CS`); paravirtual Xen guests differ in the high byte only.
#[cfg(target_arch = "x86_64")]
const FOREIGN: (u32, u32) = (0xff, 0x23);

#[cfg(not(target_arch = "x86_64"))]
const REGISTERS: &[Row<WhyConfig>] = &[
    row!(Syscall, "pt_regs", ["syscallno"], [4], regs_syscall),
    row!(Syscall, "pt_regs", ["orig_x0"], [8], regs_argument),
    // 31 registers.
    row!(Throttling, "pt_regs", ["regs"], [248], regs_first),
    row!(Syscall, "pt_regs", ["pstate"], [8], regs_mode),
];

/// The bit of 32-bit code (`PSR_MODE32_BIT`).
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN: (u32, u32) = (0x10, 0x10);

/// Looks for all fields.
pub(crate) fn survey(btf: &Btf) -> (WhyConfig, Vec<Finding>) {
    let mut config = WhyConfig::UNSET;
    let mut findings: Vec<_> = ROWS
        .iter()
        .chain(REGISTERS)
        .map(|row| fields::find(btf, row, &mut config))
        .collect();
    // Where they are one array.
    if config.regs_second == ABSENT && config.regs_first != ABSENT {
        config.regs_second = config.regs_first + 8;
    }
    (config.regs_mode_mask, config.regs_mode_foreign) = FOREIGN;
    let has = |function| btf.find(function, Kind::Func).is_some();
    config.has_current_btf = u32::from(has("bpf_get_current_task_btf"));
    if !has("bpf_task_pt_regs") {
        let registers = btf
            .find("pt_regs", Kind::Struct)
            .and_then(|id| btf.size(id));
        match (kernel_stack_bytes(btf), registers) {
            (Some(stack), Some(registers)) if stack > registers => {
                config.regs_from_stack = stack - registers;
            }
            _ => findings.push(Finding {
                name: "helper bpf_task_pt_regs".to_owned(),
                need: Need::Syscall,
                offset: Err(Fault::Missing),
            }),
        }
    }
    (config, findings)
}

/// What is decided before the probes are loaded.
pub(crate) struct Preparation {
    pub(crate) config: WhyConfig,
    /// Whether migrations are recorded.
    migrations: bool,
    lacks: Vec<Lack>,
}

impl Preparation {
    /// Turns on what is asked for and this kernel has the fields of.
    pub(crate) fn new(btf: &Btf, options: &Options) -> Self {
        let (mut config, findings) = survey(btf);
        let mut lacks = Vec::new();
        let mut allows = |what, need: Need| {
            let fault = findings
                .iter()
                .find(|finding| finding.need == need && finding.offset.is_err());
            let Some(finding) = fault else { return true };
            lacks.push(Lack {
                what,
                consequence: need.consequence(),
                reason: match finding.offset {
                    Err(Fault::Size { found }) => {
                        format!("the kernel's `{}` has {found} bytes", finding.name)
                    }
                    _ => format!("the kernel has no `{}`", finding.name),
                },
            });
            false
        };
        config.syscalls = u32::from(options.syscalls && allows("system calls", Need::Syscall));
        config.cgroups = u32::from(options.throttling && allows(THROTTLING, Need::Throttling));
        config.wakers = u32::from(options.wakers);
        if let Some(threshold_ns) = options.stacks
            && allows("evidence of long waits", Need::File)
        {
            config.evidence = 1;
            config.user_stacks = u32::from(options.user_stacks);
            let halves = threshold_ns.to_le_bytes();
            let (halves, _) = halves.as_chunks::<4>();
            config.threshold_low = u32::from_le_bytes(halves[0]);
            config.threshold_high = u32::from_le_bytes(halves[1]);
            config.evidence_budget = EVIDENCE_BUDGET;
            config.evidence_mark = evidence::CHANNEL_BYTES / 4;
        }
        let by_thread = [
            config.task_throttled,
            config.cfs_rq_throttled_clock_self,
            config.cfs_rq_throttled_clock_self_time,
        ];
        if config.cgroups == 0 || by_thread.contains(&ABSENT) {
            // Switches don't look at it then.
            config.task_throttled = ABSENT;
        }
        Self {
            config,
            // The cause of a run-queue delay depends on the CPU whose queue the thread is on.
            migrations: options.wakers || options.throttling,
            lacks,
        }
    }

    /// Entries of the table of waits.
    pub(crate) fn wait_slots(&self) -> u32 {
        if self.config.evidence == 0 {
            1
        } else {
            1 << 16
        }
    }

    /// Entries of the table of throttled threads.
    pub(crate) fn throttled_slots(&self) -> u32 {
        if self.config.task_throttled == ABSENT {
            1
        } else {
            1 << 16
        }
    }

    /// Entries of the table of user stacks.
    pub(crate) fn user_stacks(&self) -> u32 {
        if self.config.user_stacks == 0 {
            1
        } else {
            MAX_USER_STACKS
        }
    }

    /// Bytes of the evidence channel; the kernel wants a page at least.
    pub(crate) fn channel_bytes(&self) -> u32 {
        if self.config.evidence == 0 {
            rustix::param::page_size().try_into().unwrap_or(4096)
        } else {
            evidence::CHANNEL_BYTES
        }
    }
}

/// What came of it.
pub(crate) struct Attached {
    pub(crate) hooks: Vec<Hook>,
    /// Whether the iterator of waits that have not ended is loaded.
    pub(crate) open_waits: bool,
    /// What was asked for and is not there.
    pub(crate) lacks: Vec<Lack>,
}

/// Loads and attaches what is turned on. Everything is loaded, and `is_ready` has returned, before the first probe
/// is attached that writes records.
pub(crate) fn attach(loaded: &mut Loaded, is_ready: &mut dyn FnMut()) -> Attached {
    const MIGRATIONS: [&str; 1] = [programs::SCHED_MIGRATE_TASK];
    const WAKING: [&str; 1] = [programs::SCHED_WAKING];
    let config = loaded.why.config;
    let mut lacks = std::mem::take(&mut loaded.why.lacks);
    let mut hooks = Vec::new();
    let mut settle = |what, consequence, result: Result<&[&'static str], String>| match result {
        Ok(names) => hooks.extend(names.iter().map(|name| Hook::of(name))),
        Err(reason) => lacks.push(Lack {
            what,
            consequence,
            reason,
        }),
    };
    if config.cgroups != 0 {
        let moves = [programs::CGROUP_ATTACH_TASK];
        settle(
            "moves between cgroups",
            "a thread that goes to another cgroup is taken to be in its first one",
            attach_all::<BtfTracePoint>(loaded, &moves).map_err(said),
        );
    }
    if config.cgroups != 0 && config.task_throttled == ABSENT {
        let followed = follow_quotas(loaded);
        settle(
            THROTTLING,
            "what threads of cgroups with a CPU quota wait for a CPU has an unknown cause",
            followed
                .as_ref()
                .map(<[_; 2]>::as_slice)
                .map_err(Clone::clone),
        );
    }
    if config.wakers != 0 {
        for &(entry, exit) in programs::CONTEXTS {
            // The end first, as above. Some belong to one architecture.
            let pair = [exit, entry];
            let result = attach_all::<BtfTracePoint>(loaded, &pair);
            if !matches!(result, Err(ProgramError::Btf(_))) {
                settle(
                    "wakers in interrupts",
                    "a wakeup in this interrupt is taken for one by the thread that it interrupted, and so \
                     is its time",
                    result.map_err(said),
                );
            }
        }
    }
    let open_waits = config.evidence != 0
        && match loaded.load_iterator(programs::OPEN_WAITS) {
            Ok(()) => true,
            Err(error) => {
                settle(
                    "evidence of waits that have not ended",
                    "what a thread waits in is known only when the wait has ended",
                    Err(chain(&error)),
                );
                false
            }
        };
    let migrations = loaded.why.migrations;
    let migrations = migrations.then(|| load_all::<BtfTracePoint>(loaded, &MIGRATIONS));
    let waking = config.wakers != 0 || config.evidence != 0;
    let waking = waking.then(|| load_all::<BtfTracePoint>(loaded, &WAKING));
    is_ready();
    if let Some(result) = migrations {
        let result = result.and_then(|()| attach_loaded::<BtfTracePoint>(loaded, &MIGRATIONS));
        settle(
            "migrations",
            "a thread that goes from one run queue to another is seen only when it runs there",
            result.map(|()| &MIGRATIONS[..]).map_err(said),
        );
    }
    if let Some(result) = waking {
        let result = result.and_then(|()| attach_loaded::<BtfTracePoint>(loaded, &WAKING));
        settle(
            "wakers and evidence",
            "who wakes a thread is not known, nor what it waited in",
            result.map(|()| &WAKING[..]).map_err(said),
        );
    }
    Attached {
        hooks,
        open_waits,
        lacks,
    }
}

/// Hooks the functions that tell of a group's quota; gives the programs that do, or why none can.
fn follow_quotas(loaded: &mut Loaded) -> Result<[&'static str; 2], String> {
    // The end first: a beginning without an end would hold forever.
    let by_fentry = [programs::TG_UNTHROTTLE_UP, programs::TG_THROTTLE_DOWN];
    let Err(no_fentry) = attach_all::<FEntry>(loaded, &by_fentry) else {
        return Ok(by_fentry);
    };
    match attach_kprobes(loaded, &programs::QUOTA_KPROBES) {
        Ok(()) => Ok(programs::QUOTA_KPROBES.map(|(program, _)| program)),
        Err(no_kprobe) => Err(format!(
            "by fentry: {}; by kprobe: {}",
            said(no_fentry),
            said(no_kprobe)
        )),
    }
}

/// What the library said, without the verifier's log.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn said(error: ProgramError) -> String {
    let text = chain(&error);
    text.lines().next().unwrap_or_default().to_owned()
}

/// As [`attach_all`], for programs each with a function that its name is not.
fn attach_kprobes(loaded: &mut Loaded, probes: &[(&str, &str)]) -> Result<(), ProgramError> {
    for (name, _) in probes {
        program::<KProbe>(&mut loaded.ebpf, name)?.load()?;
    }
    for (name, function) in probes {
        program::<KProbe>(&mut loaded.ebpf, name)?.attach(function, 0)?;
    }
    Ok(())
}

/// A kind of program that is attached to what its own name says.
trait Attach: Sized {
    fn load(&mut self, name: &str, types: &aya::Btf) -> Result<(), ProgramError>;
    fn attach(&mut self) -> Result<(), ProgramError>;
}

macro_rules! attach {
    ($($kind:ty),+) => {
        $(impl Attach for $kind {
            fn load(&mut self, name: &str, types: &aya::Btf) -> Result<(), ProgramError> {
                <$kind>::load(self, name, types)
            }

            fn attach(&mut self) -> Result<(), ProgramError> {
                <$kind>::attach(self).map(drop)
            }
        })+
    };
}
attach!(BtfTracePoint, FEntry);

/// Loads them all before it attaches the first, so that none is attached if one can't be.
fn attach_all<'n, P>(
    loaded: &mut Loaded,
    names: &'n [&'static str],
) -> Result<&'n [&'static str], ProgramError>
where
    P: Attach,
    for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    load_all::<P>(loaded, names)?;
    attach_loaded::<P>(loaded, names)?;
    Ok(names)
}

fn load_all<P>(loaded: &mut Loaded, names: &[&'static str]) -> Result<(), ProgramError>
where
    P: Attach,
    for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    for name in names {
        program::<P>(&mut loaded.ebpf, name)?.load(name, &loaded.types)?;
    }
    Ok(())
}

fn attach_loaded<P>(loaded: &mut Loaded, names: &[&'static str]) -> Result<(), ProgramError>
where
    P: Attach,
    for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    for name in names {
        program::<P>(&mut loaded.ebpf, name)?.attach()?;
    }
    Ok(())
}

fn program<'a, P>(ebpf: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(ProgramError::UnexpectedProgramType)?
        .try_into()
}

#[cfg(test)]
mod tests {
    use super::{Options, Preparation, REGISTERS, ROWS};
    use crate::source::{
        btf::{Btf, VMLINUX},
        fields::{Need, tests::expect_documented},
    };
    use profiler_ebpf::config::ABSENT;

    #[test]
    fn every_field_is_documented() {
        expect_documented(ROWS);
        expect_documented(REGISTERS);
    }

    #[test]
    fn nothing_is_turned_on_that_was_not_asked_for() {
        let Ok(btf) = Btf::parse(std::path::Path::new(VMLINUX)) else {
            println!(
                "not run: source::why::tests::nothing_is_turned_on_that_was_not_asked_for: no {VMLINUX}"
            );
            return;
        };
        let plain = Preparation::new(&btf, &Options::PLAIN);
        let config = plain.config;
        let on = [
            config.syscalls,
            config.wakers,
            config.evidence,
            config.user_stacks,
            config.cgroups,
        ];
        assert_eq!(on, [0; 5]);
        assert_eq!(config.task_throttled, ABSENT);
        let slots = [
            plain.wait_slots(),
            plain.throttled_slots(),
            plain.user_stacks(),
        ];
        assert_eq!(slots, [1; 3]);
        let long = Options {
            stacks: Some(5_000_000_123),
            ..Options::PLAIN
        };
        let config = Preparation::new(&btf, &long).config;
        let threshold_ns = u64::from(config.threshold_high) << 32 | u64::from(config.threshold_low);
        let has_fields = super::survey(&btf)
            .1
            .iter()
            .all(|finding| finding.need != Need::File || finding.offset.is_ok());
        assert_eq!(config.evidence, u32::from(has_fields));
        assert_eq!(threshold_ns, if has_fields { 5_000_000_123 } else { 0 });
    }
}
