//! What long waits were spent in: reading the evidence that the probes take, and what kind of file it shows.

use std::collections::HashSet;

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, RingBuf, StackTraceMap},
};
use profiler_ebpf::{
    evidence::{EvidenceRecord, FRAMES, evidence_flags},
    why::{MAX_EVIDENCE_TARGETS, maps},
};
use zerocopy::FromBytes;

use crate::core::classify::FileKind;

use super::{clock::Relation, error::StartError, load::refused};

/// Bytes of the channel: some 3,800 records, a power of two as the kernel wants it.
pub(crate) const CHANNEL_BYTES: u32 = 1024 * 1024;

/// Whose waits evidence is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceTargets<'a> {
    /// Those of all processes.
    All,
    /// Those of the processes with these ids; at most 4,096 of them.
    Processes(&'a [u32]),
}

/// How many waits' evidence was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvidenceLosses {
    /// Because the channel was full.
    pub no_room: u64,
    /// Because a CPU had taken as much in that second as it may.
    pub over_budget: u64,
}

/// The channel, and the settings that can be changed while the probes run.
pub(crate) struct Channel {
    records: RingBuf<MapData>,
    /// The words of a `profiler_ebpf::evidence::EvidenceControl`.
    control: Array<MapData, [u64; 2]>,
    targets: HashMap<MapData, u32, u32>,
    user_stacks: StackTraceMap<MapData>,
    /// The processes that are in `targets`.
    chosen: HashSet<u32>,
    /// Distance of the clocks, and whether all processes are looked at.
    settings: [u64; 2],
    /// What the last poll found.
    taken: Vec<EvidenceRecord>,
}

impl Channel {
    pub(crate) fn open(ebpf: &mut Ebpf, relation: Relation) -> Result<Self, StartError> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name).ok_or_else(|| StartError::Internal {
                action: format!("find the map {name}"),
                reason: "the probes don't have it".to_owned(),
            })
        };
        let failed = |error| refused("open the channel of evidence", &error);
        let mut channel = Self {
            records: RingBuf::try_from(take(maps::EVIDENCE)?).map_err(failed)?,
            control: Array::try_from(take(maps::EVIDENCE_CONTROL)?).map_err(failed)?,
            targets: HashMap::try_from(take(maps::EVIDENCE_TARGETS)?).map_err(failed)?,
            user_stacks: StackTraceMap::try_from(take(maps::USER_STACKS)?).map_err(failed)?,
            chosen: HashSet::new(),
            settings: [0; 2],
            taken: Vec::new(),
        };
        channel.relate(relation)?;
        Ok(channel)
    }

    /// Tells the probes how the clocks relate.
    pub(crate) fn relate(&mut self, relation: Relation) -> Result<(), StartError> {
        self.settings[0] = relation.offset_ns.cast_unsigned();
        self.set()
    }

    fn set(&mut self) -> Result<(), StartError> {
        self.control
            .set(0, self.settings, 0)
            .map_err(|error| refused("set what evidence is taken of", &error))
    }

    pub(crate) fn set_targets(&mut self, targets: EvidenceTargets<'_>) -> Result<(), StartError> {
        let failed = |error| refused("choose the processes that evidence is taken of", &error);
        let wanted: HashSet<u32> = match targets {
            EvidenceTargets::All => HashSet::new(),
            EvidenceTargets::Processes(ids) => ids
                .iter()
                .copied()
                .take(MAX_EVIDENCE_TARGETS as usize)
                .collect(),
        };
        for gone in self.chosen.difference(&wanted) {
            self.targets.remove(gone).map_err(failed)?;
        }
        for new in wanted.difference(&self.chosen) {
            self.targets.insert(new, 1, 0).map_err(failed)?;
        }
        self.chosen = wanted;
        self.settings[1] = u64::from(targets == EvidenceTargets::All);
        self.set()
    }

    /// The addresses of a user stack.
    pub(crate) fn user_stack(&self, id: u32) -> Option<Vec<u64>> {
        let stack = self.user_stacks.get(&id, 0).ok()?;
        Some(stack.frames().iter().map(|frame| frame.ip).collect())
    }

    /// Empties the channel, and returns what was in it.
    pub(crate) fn poll(&mut self) -> &[EvidenceRecord] {
        self.taken.clear();
        while let Some(item) = self.records.next() {
            // What isn't a record of this version can't come from the probes that were loaded.
            self.taken.extend(EvidenceRecord::read_from_bytes(&item));
        }
        &self.taken
    }
}

/// The kernel code addresses of a record, the innermost first.
#[must_use]
pub fn stack(record: &EvidenceRecord) -> &[u64] {
    &record.stack[..usize::from(record.frames).min(FRAMES)]
}

/// File types in `inode.i_mode` (include/uapi/linux/stat.h).
mod file_type {
    pub(super) const MASK: u16 = 0o170_000;
    pub(super) const SOCKET: u16 = 0o140_000;
    pub(super) const REGULAR: u16 = 0o100_000;
    pub(super) const BLOCK: u16 = 0o060_000;
    pub(super) const DIRECTORY: u16 = 0o040_000;
    pub(super) const CHARACTER: u16 = 0o020_000;
    pub(super) const FIFO: u16 = 0o010_000;
}

/// `ANON_INODE_FS_MAGIC` and `PID_FS_MAGIC` (include/uapi/linux/magic.h).
const ANON_INODE_FS: u32 = 0x0904_1934;
const PID_FS: u32 = 0x5049_4446;

/// Families of sockets (include/linux/socket.h).
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Majors of terminals (Documentation/admin-guide/devices.txt): consoles, ttys and serial lines, and the
/// pseudo terminals' masters and slaves.
const TTY_MAJORS: &[u32] = &[4, 5, 204, 229];
const PTY_MAJORS: std::ops::RangeInclusive<u32> = 128..=143;

/// What the file behind the call's first argument is; `NotKnown` if there was none. Says nothing about
/// whether the call takes a file there.
///
/// Files without a name are told by the kernel's own name for them, which /proc/PID/fd shows, and which
/// programs rely on.
#[must_use]
pub fn file_kind(record: &EvidenceRecord) -> FileKind {
    if record.flags & evidence_flags::FILE == 0 {
        return FileKind::NotKnown;
    }
    if record.fs_magic == PID_FS {
        return FileKind::Event;
    }
    if record.fs_magic == ANON_INODE_FS {
        return anonymous(name(record));
    }
    match record.mode & file_type::MASK {
        file_type::SOCKET => match record.family {
            AF_UNIX => FileKind::UnixSocket,
            AF_INET | AF_INET6 => FileKind::InetSocket,
            _ => FileKind::OtherSocket,
        },
        file_type::REGULAR | file_type::DIRECTORY => FileKind::Regular,
        file_type::BLOCK => FileKind::Block,
        file_type::FIFO => FileKind::Pipe,
        file_type::CHARACTER => {
            // `MINORBITS` (include/linux/kdev_t.h).
            let major = record.rdev >> 20;
            if TTY_MAJORS.contains(&major) || PTY_MAJORS.contains(&major) {
                FileKind::Tty
            } else {
                FileKind::Char
            }
        }
        _ => FileKind::Anonymous,
    }
}

/// What the kernel calls the file, as far as the record has it.
fn name(record: &EvidenceRecord) -> &[u8] {
    record.name.split(|&byte| byte == 0).next().unwrap_or(&[])
}

/// Names that the kernel gives to `anon_inode_getfd` and the like.
fn anonymous(name: &[u8]) -> FileKind {
    match name.trim_ascii() {
        b"[eventfd]" | b"[signalfd]" | b"[eventpoll]" | b"[pidfd]" | b"inotify" | b"[fanotify]" => {
            FileKind::Event
        }
        b"[timerfd]" => FileKind::Timer,
        b"[io_uring]" => FileKind::IoUring,
        b"[userfaultfd]" => FileKind::Userfault,
        _ => FileKind::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::{ANON_INODE_FS, PID_FS, file_kind};
    use crate::core::classify::FileKind;
    use profiler_ebpf::evidence::{EVIDENCE_BYTES, EvidenceRecord, evidence_flags};
    use zerocopy::FromBytes;

    fn record(mode: u16, fs_magic: u32, rdev: u32, family: u16, name: &[u8]) -> EvidenceRecord {
        let zeros = [0; EVIDENCE_BYTES];
        let mut record = EvidenceRecord::read_from_bytes(&zeros).expect("any bytes are a record");
        record.name[..name.len()].copy_from_slice(name);
        EvidenceRecord {
            mode,
            fs_magic,
            rdev,
            family,
            flags: evidence_flags::FILE,
            ..record
        }
    }

    #[test]
    fn files_are_told_by_inode_device_family_and_name() {
        let device = |major: u32, minor: u32| major << 20 | minor;
        let cases = [
            (record(0o100_644, 0xef53, 0, 0, b"data"), FileKind::Regular),
            (record(0o040_755, 0xef53, 0, 0, b"dir"), FileKind::Regular),
            (
                record(0o060_660, 0x0102_1994, device(254, 0), 0, b"vda"),
                FileKind::Block,
            ),
            (record(0o010_600, 0x5049_5045, 0, 0, b""), FileKind::Pipe),
            (
                record(0o140_777, 0x534f_434b, 0, 2, b"TCP"),
                FileKind::InetSocket,
            ),
            (
                record(0o140_777, 0x534f_434b, 0, 10, b"TCPv6"),
                FileKind::InetSocket,
            ),
            (
                record(0o140_777, 0x534f_434b, 0, 1, b"UNIX"),
                FileKind::UnixSocket,
            ),
            (
                record(0o140_777, 0x534f_434b, 0, 16, b"NETLINK"),
                FileKind::OtherSocket,
            ),
            (
                record(0o020_620, 0x1cd1, device(136, 3), 0, b"3"),
                FileKind::Tty,
            ),
            (
                record(0o020_666, 0x0102_1994, device(5, 2), 0, b"ptmx"),
                FileKind::Tty,
            ),
            (
                record(0o020_666, 0x0102_1994, device(1, 3), 0, b"null"),
                FileKind::Char,
            ),
            // The type of a file without a name is 0, or since Linux 6.16 that of a regular file.
            (
                record(0o600, ANON_INODE_FS, 0, 0, b"[eventfd]"),
                FileKind::Event,
            ),
            (
                record(0o100_600, ANON_INODE_FS, 0, 0, b"[timerfd]"),
                FileKind::Timer,
            ),
            (
                record(0o600, ANON_INODE_FS, 0, 0, b"inotify"),
                FileKind::Event,
            ),
            (
                record(0o600, ANON_INODE_FS, 0, 0, b"[io_uring]"),
                FileKind::IoUring,
            ),
            (
                record(0o600, ANON_INODE_FS, 0, 0, b"[userfaultfd]"),
                FileKind::Userfault,
            ),
            (
                record(0o600, ANON_INODE_FS, 0, 0, b"[perf_event]"),
                FileKind::Anonymous,
            ),
            (record(0o100_700, PID_FS, 0, 0, b""), FileKind::Event),
            (record(0, 0, 0, 0, b""), FileKind::Anonymous),
        ];
        for (record, expected) in cases {
            assert_eq!(file_kind(&record), expected, "{record:?}");
        }
        let unseen = EvidenceRecord {
            flags: 0,
            ..record(0o010_600, 0, 0, 0, b"")
        };
        assert_eq!(file_kind(&unseen), FileKind::NotKnown);
    }
}
