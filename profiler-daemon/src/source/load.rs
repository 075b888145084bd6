//! Putting the probes into the kernel: settings in, programs loaded and attached.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{BtfTracePoint, Iter, Program, ProgramError, RawTracePoint},
};
use profiler_ebpf::{
    Clock,
    config::{Config, maps, programs},
    ring::{MAX_RECORDS, MIN_RECORDS, RESERVE_DIVISOR},
    why,
};

use super::{
    btf::{Btf, VMLINUX},
    error::{StartError, chain, kernel_answer},
    fields::{self, Need},
    kernel::{ClockChoice, Options},
    settings,
    why::Preparation,
};

/// The compiled probes.
pub(super) static PROBES: &[u8] = aya::include_bytes_aligned!(env!("SCHEDSCOPE_PROBES"));

/// Bytes of the side channel: some five thousand records, a power of two as the kernel wants it.
pub(crate) const SIDE_BYTES: u32 = 256 * 1024;

/// A ring that is a quarter full wakes the daemon: there is time for it to come, whatever it did.
const DOORBELL_DIVISOR: u32 = 4;

/// But so many records wake it in any case: what it reads is still in the CPU's cache then, and a larger ring
/// is all reserve for when it is held up.
const DOORBELL_RECORDS: u32 = 16_384;

/// `EPERM`, the kernel's answer to a missing capability.
const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();

/// `ENOMEM`.
const ENOMEM: i32 = rustix::io::Errno::NOMEM.raw_os_error();

/// A tracepoint and the program for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    pub(crate) tracepoint: &'static str,
    pub(crate) program: &'static str,
}

impl Hook {
    /// A tracepoint with the program that has its name.
    pub(crate) fn of(tracepoint: &'static str) -> Self {
        Self {
            tracepoint,
            program: tracepoint,
        }
    }
}

/// The kernel half, loaded and not yet attached.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    pub(crate) clock: Clock,
    /// Whether the kernel's own run-queue books can be used.
    pub(crate) stamps: bool,
    pub(crate) cpus: usize,
    /// The program that records switches on this kernel.
    pub(crate) switch_program: &'static str,
    /// For the programs that are loaded by the name of a kernel type.
    pub(crate) types: aya::Btf,
    /// What tells why threads wait.
    pub(crate) why: Preparation,
}

/// Finds out about the kernel and creates the maps. No program is loaded yet.
pub(crate) fn prepare(options: Options) -> Result<Loaded, StartError> {
    let records = options.ring_records;
    if !records.is_power_of_two() || !(MIN_RECORDS..=MAX_RECORDS).contains(&records) {
        return Err(StartError::RingSize {
            records,
            min: MIN_RECORDS,
            max: MAX_RECORDS,
        });
    }
    let no_btf = |source| StartError::NoBtf {
        path: VMLINUX,
        source,
    };
    let btf = Btf::parse(Path::new(VMLINUX)).map_err(no_btf)?;
    let (mut config, switch_program) = configure(&btf, options.clock)?;
    let prepared = Preparation::new(&btf, &options);
    drop(btf);
    config.ring_records = records;
    config.ring_limit = records - records / RESERVE_DIVISOR;
    config.doorbell_mask = (records / DOORBELL_DIVISOR).min(DOORBELL_RECORDS) - 1;
    config.side_mark = SIDE_BYTES / DOORBELL_DIVISOR;
    let types = aya::Btf::from_sys_fs().map_err(|error| no_btf(io::Error::other(error)))?;

    let cpus = possible_cpus().map_err(|error| StartError::Internal {
        action: format!("count the CPUs in {POSSIBLE_CPUS}"),
        reason: error.to_string(),
    })?;
    let too_many = || StartError::RingSize {
        records,
        min: MIN_RECORDS,
        max: MAX_RECORDS,
    };
    let headers = u32::try_from(cpus).map_err(|_| too_many())?;
    let slots = headers.checked_mul(records).ok_or_else(too_many)?;
    let probes = settings::write(PROBES, &config, &prepared.config)
        .map_err(|error| refused("write the settings into the probes", &error))?;
    let ebpf = EbpfLoader::new()
        .btf(Some(&types))
        .map_max_entries(maps::RING_HEADERS, headers)
        .map_max_entries(maps::RING_SLOTS, slots)
        .map_max_entries(maps::SIDE, SIDE_BYTES)
        .map_max_entries(why::maps::CPU_CONTEXTS, headers)
        .map_max_entries(why::maps::THROTTLED, prepared.throttled_slots())
        .map_max_entries(why::maps::WAITS, prepared.wait_slots())
        .map_max_entries(why::maps::USER_STACKS, prepared.user_stacks())
        .map_max_entries(why::maps::EVIDENCE, prepared.channel_bytes())
        .load(&probes)
        .map_err(|error| match kernel_answer(&error) {
            Some(answer @ ENOMEM) => StartError::Memory {
                cpus,
                records,
                mebibytes: u64::from(slots) * profiler_ebpf::RECORD_BYTES as u64 / (1024 * 1024),
                source: io::Error::from_raw_os_error(answer),
            },
            _ => refused("create the probes' maps", &error),
        })?;
    let clock = if config.clock == Clock::RunQueue as u32 {
        Clock::RunQueue
    } else {
        Clock::Monotonic
    };
    let stamps = clock == Clock::RunQueue && config.has_sched_info != 0;
    Ok(Loaded {
        ebpf,
        clock,
        stamps,
        cpus,
        switch_program,
        types,
        why: prepared,
    })
}

/// Finds the fields, and settles which clock is used and which program records switches.
fn configure(btf: &Btf, clock: ClockChoice) -> Result<(Config, &'static str), StartError> {
    let survey = fields::survey(btf);
    let fault = |need: Need| {
        survey
            .findings
            .iter()
            .find(|finding| finding.need == need && finding.offset.is_err())
    };
    if let Some(finding) = fault(Need::Always) {
        return Err(StartError::Field {
            release: release(),
            finding: finding.clone(),
            consequence: Need::Always.consequence(),
        });
    }
    let Some(switch_program) = survey.switch_program else {
        return Err(StartError::Tracepoint {
            release: release(),
            tracepoint: "sched_switch",
        });
    };
    let mut config = survey.config;
    match clock {
        ClockChoice::Auto => {}
        ClockChoice::Monotonic => config.clock = Clock::Monotonic as u32,
        ClockChoice::RunQueue => {
            if let Some(finding) = fault(Need::RunQueueClock) {
                return Err(StartError::Clock {
                    release: release(),
                    missing: finding.name.clone(),
                });
            }
        }
    }
    Ok((config, switch_program))
}

impl Loaded {
    /// The descriptor of a map.
    pub(crate) fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, StartError> {
        match self.ebpf.map(name) {
            Some(Map::Array(map) | Map::RingBuf(map)) => Ok(map.fd().as_fd()),
            _ => Err(StartError::Internal {
                action: format!("find the map {name}"),
                reason: "the probes don't have it".to_owned(),
            }),
        }
    }

    /// Loads a program for its tracepoint. It does nothing before it is attached.
    pub(crate) fn load(&mut self, hook: &Hook) -> Result<(), StartError> {
        let Hook {
            tracepoint,
            program,
        } = *hook;
        let program: &mut BtfTracePoint = find(&mut self.ebpf, program)?;
        program
            .load(tracepoint, &self.types)
            .map_err(|error| match &error {
                ProgramError::Btf(_) => StartError::Tracepoint {
                    release: release(),
                    tracepoint,
                },
                _ => refused(&format!("load the probe of {tracepoint}"), &error),
            })
    }

    /// Attaches a program that is loaded to its tracepoint.
    pub(crate) fn attach(&mut self, hook: &Hook) -> Result<(), StartError> {
        let Hook {
            tracepoint,
            program,
        } = *hook;
        let program: &mut BtfTracePoint = find(&mut self.ebpf, program)?;
        program
            .attach()
            .map(drop)
            .map_err(|error| refused(&format!("attach the probe to {tracepoint}"), &error))
    }

    /// Loads a task iterator.
    pub(crate) fn load_iterator(&mut self, name: &'static str) -> Result<(), StartError> {
        let program: &mut Iter = find(&mut self.ebpf, name)?;
        program
            .load("task", &self.types)
            .map_err(|error| refused(&format!("load the task iterator {name}"), &error))
    }

    /// Loads the program that reads the clock.
    pub(crate) fn load_clock_reader(&mut self) -> Result<(), StartError> {
        let program: &mut RawTracePoint = find(&mut self.ebpf, programs::READ_CLOCK)?;
        program
            .load()
            .map_err(|error| refused("load the clock reader", &error))
    }
}

/// A program by its name, to change it.
pub(crate) fn find<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, StartError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| lost(name, "the object lacks it"))?;
    program
        .try_into()
        .map_err(|error: ProgramError| lost(name, &chain(&error)))
}

/// A program by its name.
pub(crate) fn get<'a, P>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a P, StartError>
where
    &'a P: TryFrom<&'a Program, Error = ProgramError>,
{
    let program = ebpf
        .program(name)
        .ok_or_else(|| lost(name, "the object lacks it"))?;
    program
        .try_into()
        .map_err(|error: ProgramError| lost(name, &chain(&error)))
}

fn lost(name: &str, reason: &str) -> StartError {
    StartError::Internal {
        action: format!("find the probe {name}"),
        reason: reason.to_owned(),
    }
}

/// A failure of the library: a permission, or something that should not be.
pub(crate) fn refused(action: &str, error: &(dyn std::error::Error + 'static)) -> StartError {
    match kernel_answer(error) {
        Some(answer @ EPERM) => StartError::Permission {
            action: action.to_owned(),
            source: io::Error::from_raw_os_error(answer),
        },
        _ => StartError::Internal {
            action: action.to_owned(),
            reason: chain(error),
        },
    }
}

/// The running kernel's release, such as `6.18.1`.
#[must_use]
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// One more than the highest number that a CPU of this host can have, plugged in or not.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let list = fs::read_to_string(POSSIBLE_CPUS)?;
    highest_cpu(&list)
        .and_then(|highest| highest.checked_add(1))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not a list: {list:?}")))
}

/// The highest number in a list such as `0-3,8`.
fn highest_cpu(list: &str) -> Option<usize> {
    list.trim()
        .split([',', '-'])
        .map(|number| number.parse().ok())
        .try_fold(0, |highest, number| {
            number.map(|number: usize| number.max(highest))
        })
}

#[cfg(test)]
mod tests {
    use super::highest_cpu;

    #[test]
    fn the_highest_cpu_of_a_list_is_found() {
        let cases = [
            ("0", Some(0)),
            ("0-3\n", Some(3)),
            ("0,2-5,7", Some(7)),
            ("", None),
            ("a-b", None),
        ];
        for (list, expected) in cases {
            assert_eq!(highest_cpu(list), expected, "{list:?}");
        }
    }
}
