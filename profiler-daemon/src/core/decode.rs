//! Bytes of a ring slot to an event. Total: any 32 bytes give an event or say why not, and nothing
//! panics.

use std::mem::offset_of;

use profiler_ebpf::{
    CgroupMove, Exec, Fork, Gap, Interrupts, KIND_OFFSET, Kind, Migrate, RawRecord, Rename, Shed,
    Switch, Throttle, Throttled, Wakeup, Waking,
};
use zerocopy::transmute;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A CPU changed threads.
    Switch(Switch),
    /// A thread was put on a run queue after a wait.
    Wakeup(Wakeup),
    /// A thread was born.
    Fork(Fork),
    /// Records were lost here.
    Gap(Gap),
    /// A thread got another name.
    Rename(Rename),
    /// A process runs another program.
    Exec(Exec),
    /// A thread is about to be woken.
    Waking(Waking),
    /// A thread goes to another CPU.
    Migrate(Migrate),
    /// A group has used up its CPU quota, or has some again.
    Throttle(Throttle),
    /// A thread is in another cgroup.
    CgroupMove(CgroupMove),
    /// A thread was kept off its CPU by a quota.
    Throttled(Throttled),
    /// A CPU was in interrupts.
    Interrupts(Interrupts),
    /// Only some threads' records are written from now on, or all again.
    Shed(Shed),
}

/// A record of a kind that this version does not know; its number is the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the unknown kind {0}; this version knows the kinds 1 to 6 and 8 to 14")]
pub struct UnknownKind(pub u8);

impl Event {
    /// Decodes one slot.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a record is taken apart right after, and need not be put together in between"
    )]
    pub fn decode(raw: &RawRecord) -> Result<Self, UnknownKind> {
        let number = raw.0[KIND_OFFSET];
        let bytes = raw.0;
        match Kind::from_wire(number) {
            Some(Kind::Switch) => Ok(Self::Switch(transmute!(bytes))),
            Some(Kind::Wakeup) => Ok(Self::Wakeup(transmute!(bytes))),
            Some(Kind::Fork) => Ok(Self::Fork(transmute!(bytes))),
            Some(Kind::Gap) => Ok(Self::Gap(transmute!(bytes))),
            Some(Kind::Rename) => Ok(Self::Rename(transmute!(bytes))),
            Some(Kind::Exec) => Ok(Self::Exec(transmute!(bytes))),
            Some(Kind::Waking) => Ok(Self::Waking(transmute!(bytes))),
            Some(Kind::Migrate) => Ok(Self::Migrate(transmute!(bytes))),
            Some(Kind::Throttle) => Ok(Self::Throttle(transmute!(bytes))),
            Some(Kind::CgroupMove) => Ok(Self::CgroupMove(transmute!(bytes))),
            Some(Kind::Throttled) => Ok(Self::Throttled(transmute!(bytes))),
            Some(Kind::Interrupts) => Ok(Self::Interrupts(transmute!(bytes))),
            Some(Kind::Shed) => Ok(Self::Shed(transmute!(bytes))),
            // A doorbell wakes the daemon and carries nothing: one that gets here is a mistake.
            Some(Kind::Doorbell) | None => Err(UnknownKind(number)),
        }
    }

    /// When it happened, in nanoseconds of the records' clock.
    #[must_use]
    pub fn ts_ns(&self) -> u64 {
        match self {
            Self::Switch(record) => record.ts_ns,
            Self::Wakeup(record) => record.ts_ns,
            Self::Fork(record) => record.ts_ns,
            Self::Gap(record) => record.ts_ns,
            Self::Rename(record) => record.ts_ns,
            Self::Exec(record) => record.ts_ns,
            Self::Waking(record) => record.ts_ns,
            Self::Migrate(record) => record.ts_ns,
            Self::Throttle(record) => record.ts_ns,
            Self::CgroupMove(record) => record.ts_ns,
            Self::Throttled(record) => record.ts_ns,
            Self::Interrupts(record) => record.ts_ns,
            Self::Shed(record) => record.ts_ns,
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Switch(_) => Kind::Switch,
            Self::Wakeup(_) => Kind::Wakeup,
            Self::Fork(_) => Kind::Fork,
            Self::Gap(_) => Kind::Gap,
            Self::Rename(_) => Kind::Rename,
            Self::Exec(_) => Kind::Exec,
            Self::Waking(_) => Kind::Waking,
            Self::Migrate(_) => Kind::Migrate,
            Self::Throttle(_) => Kind::Throttle,
            Self::CgroupMove(_) => Kind::CgroupMove,
            Self::Throttled(_) => Kind::Throttled,
            Self::Interrupts(_) => Kind::Interrupts,
            Self::Shed(_) => Kind::Shed,
        }
    }

    /// Puts it back into the bytes of a slot, with the kind that belongs to it.
    #[must_use]
    pub fn encode(&self) -> RawRecord {
        let mut raw = match *self {
            Self::Switch(record) => RawRecord(transmute!(record)),
            Self::Wakeup(record) => RawRecord(transmute!(record)),
            Self::Fork(record) => RawRecord(transmute!(record)),
            Self::Gap(record) => RawRecord(transmute!(record)),
            Self::Rename(record) => RawRecord(transmute!(record)),
            Self::Exec(record) => RawRecord(transmute!(record)),
            Self::Waking(record) => RawRecord(transmute!(record)),
            Self::Migrate(record) => RawRecord(transmute!(record)),
            Self::Throttle(record) => RawRecord(transmute!(record)),
            Self::CgroupMove(record) => RawRecord(transmute!(record)),
            Self::Throttled(record) => RawRecord(transmute!(record)),
            Self::Interrupts(record) => RawRecord(transmute!(record)),
            Self::Shed(record) => RawRecord(transmute!(record)),
        };
        raw.0[KIND_OFFSET] = self.kind() as u8;
        raw
    }
}

/// Time of a record of whatever kind.
#[inline]
pub(crate) fn ts_of(raw: &RawRecord) -> u64 {
    raw.0
        .first_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// The thread that a record of one of the frequent kinds is about most, if it is of one.
#[inline]
pub(super) fn thread_of(raw: &RawRecord) -> Option<u32> {
    let place = match Kind::from_wire(raw.0[KIND_OFFSET])? {
        Kind::Switch => offset_of!(Switch, next_tid),
        Kind::Wakeup => offset_of!(Wakeup, tid),
        Kind::Waking => offset_of!(Waking, tid),
        _ => return None,
    };
    let bytes = raw.0.get(place..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{Event, UnknownKind, ts_of};
    use profiler_ebpf::{KIND_OFFSET, RECORD_BYTES, RawRecord};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_name_their_kind(bytes in any::<[u8; RECORD_BYTES]>()) {
            let raw = RawRecord(bytes);
            match Event::decode(&raw) {
                Ok(event) => {
                    prop_assert_eq!(event.encode(), raw);
                    prop_assert_eq!(event.ts_ns(), ts_of(&raw));
                    prop_assert!(matches!(bytes[KIND_OFFSET], 1..=6 | 8..=14));
                }
                Err(UnknownKind(number)) => {
                    prop_assert_eq!(number, bytes[KIND_OFFSET]);
                    prop_assert!(!matches!(number, 1..=6 | 8..=14));
                }
            }
        }
    }
}
