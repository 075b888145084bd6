//! Thread ids in records, and in the PID namespace that this process is in.
//!
//! Records carry the ids of the first namespace, the host's. Whoever runs this, and `/proc`, speak of
//! those of the namespace that this process is in: in a container that does not share the host's, other
//! ones. There an id that is taken for the other kind is somebody else's.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, path::Path};

use aya::{Ebpf, EbpfLoader, programs::Iter};
use profiler_ebpf::pids::{PID_RECORD_BYTES, PROGRAM, PidRecord, PidsConfig, SYMBOL};

use super::btf::{Btf, VMLINUX};
use super::error::StartError;
use super::fields::{self, Need, Row, row};
use super::load::{self, PROBES, refused};
use super::threads;
use zerocopy::IntoBytes;

/// Inode of the first PID namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const FIRST: &str = "pid:[4026531836]";

/// All threads are read no more often than this for ids of which many may be of no thread here.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The fields that the program reads, from include/linux/pid.h and include/linux/sched.h.
pub(crate) const ROWS: &[Row<PidsConfig>] = &[
    row!(Always, "task_struct", ["pid"], [4], task_pid),
    row!(Always, "task_struct", ["thread_pid"], [8], task_thread_pid),
    row!(Always, "pid", ["level"], [4], pid_level),
    // One `upid`, or an array without a length since Linux 6.5.
    row!(Always, "pid", ["numbers"], [16, 0], pid_numbers),
    row!(Always, "upid", ["nr"], [4], upid_nr),
    Row {
        structure: "upid",
        paths: &["ns"],
        sizes: &[8],
        need: Need::Always,
        // Its last field.
        set: |config, field| config.upid_bytes = field.offset + field.size,
    },
];

/// Which PID namespace this process is in, as `/proc` says it, if it says so.
pub(crate) fn namespace() -> std::io::Result<String> {
    fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string())
}

/// Whether that is the first one.
pub(crate) fn is_first(namespace: &str) -> bool {
    namespace == FIRST
}

/// What tells the ids, if they differ. A process stays in the PID namespace that it was born in, so there
/// is one answer for all of it.
static TABLE: OnceLock<Mutex<Table>> = OnceLock::new();

/// Finds out which namespace this process is in; if it is not the first, loads what tells the ids there,
/// and reads them. To be called before ids are translated: until then both kinds are taken to be the same.
pub fn open() -> Result<(), StartError> {
    // Without /proc nobody can have told an id of here.
    if TABLE.get().is_none() && namespace().is_ok_and(|namespace| !is_first(&namespace)) {
        // Somebody else may have been as quick; either does.
        let _ = TABLE.set(Mutex::new(Table::open()?));
    }
    Ok(())
}

/// Reads them once more, as is done later when privileges have been given up.
pub fn rehearse() -> Result<(), StartError> {
    TABLE.get().map_or(Ok(()), |table| locked(table).read())
}

/// Whether ids differ, since this process is in a PID namespace below the first.
#[must_use]
pub fn differ() -> bool {
    TABLE.get().is_some()
}

/// The id in records of the thread that is called this here. `None` if there is none.
#[must_use]
pub fn in_records(here: u32) -> Option<u32> {
    // Whoever asks so has just been given the id, or has just started that process.
    translate(here, Duration::ZERO, |table| {
        table.hosts.get(&here).copied()
    })
}

/// [`in_records`] of one of many, such as all in `/proc`: some of them may have begun just now, and are
/// known a moment later.
#[must_use]
pub fn listed_in_records(here: u32) -> Option<u32> {
    translate(here, READ_AGAIN_AFTER, |table| {
        table.hosts.get(&here).copied()
    })
}

/// [`in_records`], or an id that no thread has, to look for it.
#[must_use]
pub fn wanted(here: u32) -> u32 {
    in_records(here).unwrap_or(u32::MAX)
}

/// What the thread with this id in records is called here. `None` if it is not in this namespace, or has
/// ended.
#[must_use]
pub fn here(in_records: u32) -> Option<u32> {
    translate(in_records, READ_AGAIN_AFTER, |table| {
        table.heres.get(&in_records).copied()
    })
}

/// All threads are read again for an id that is not known, if they were last read so long ago.
fn translate(
    id: u32,
    read_again_after: Duration,
    find: impl Fn(&Table) -> Option<u32>,
) -> Option<u32> {
    let Some(table) = TABLE.get() else {
        return Some(id);
    };
    let mut table = locked(table);
    find(&table).or_else(|| {
        if table.read.elapsed() >= read_again_after {
            table.read = Instant::now();
            // What can't be read stays as it is known.
            let _ = table.read();
        }
        find(&table)
    })
}

fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All threads of this namespace, when they were last read. A thread that has ended since keeps its entry
/// until then.
#[derive(Debug)]
struct Table {
    ebpf: Ebpf,
    /// Ids in records, by those here.
    hosts: HashMap<u32, u32>,
    /// The other way round.
    heres: HashMap<u32, u32>,
    read: Instant,
}

impl Table {
    fn open() -> Result<Self, StartError> {
        let no_btf = |source| StartError::NoBtf {
            path: VMLINUX,
            source,
        };
        let btf = Btf::parse(Path::new(VMLINUX)).map_err(no_btf)?;
        let mut config = PidsConfig::UNSET;
        for row in ROWS {
            let finding = fields::find(&btf, row, &mut config);
            if finding.offset.is_err() {
                return Err(StartError::Field {
                    release: load::release(),
                    finding,
                    consequence: "ids of this PID namespace can't be told from the host's: share the \
                                  host's (hostPID, --pid=host)",
                });
            }
        }
        drop(btf);
        let types =
            aya::Btf::from_sys_fs().map_err(|error| no_btf(std::io::Error::other(error)))?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types))
            .override_global(SYMBOL, config.as_bytes(), true)
            .load(PROBES)
            .map_err(|error| refused("create the probes' maps", &error))?;
        let program: &mut Iter = load::find(&mut ebpf, PROGRAM)?;
        program
            .load("task", &types)
            .map_err(|error| refused("load the task iterator of ids", &error))?;
        let mut table = Self {
            ebpf,
            hosts: HashMap::new(),
            heres: HashMap::new(),
            read: Instant::now(),
        };
        table.read()?;
        Ok(table)
    }

    fn read(&mut self) -> Result<(), StartError> {
        let records: Vec<PidRecord> = threads::read::<_, PID_RECORD_BYTES>(&mut self.ebpf, PROGRAM)
            .map_err(|error| StartError::Internal {
                action: "read the ids of this PID namespace".to_owned(),
                reason: error.to_string(),
            })?;
        self.hosts = records.iter().map(|its| (its.here, its.host)).collect();
        self.heres = records.iter().map(|its| (its.host, its.here)).collect();
        self.read = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ROWS, here, in_records, wanted};
    use crate::source::fields::tests::expect_documented;

    #[test]
    fn every_field_is_documented() {
        expect_documented(ROWS);
    }

    #[test]
    fn ids_are_the_same_where_nothing_else_was_found_out() {
        assert_eq!((here(7), in_records(7), wanted(7)), (Some(7), Some(7), 7));
    }
}
