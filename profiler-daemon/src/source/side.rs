//! The side channel: renames and execs, and the doorbell; and what the daemon itself has to tell the core.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use profiler_ebpf::{KIND_OFFSET, Kind, RawRecord};
use zerocopy::FromBytes;

use crate::core::{Stream, decode};

/// The side channel and what has come out of it and is not yet used.
pub(crate) struct Side {
    channel: RingBuf<MapData>,
    /// In the order of time.
    waiting: Vec<RawRecord>,
}

impl Side {
    pub(crate) fn new(channel: RingBuf<MapData>) -> Self {
        Self {
            channel,
            waiting: Vec::new(),
        }
    }

    /// Empties the channel.
    pub(crate) fn poll(&mut self) {
        let before = self.waiting.len();
        while let Some(item) = self.channel.next() {
            // What isn't a record of this version can't come from the probes that were loaded.
            if let Ok(record) = RawRecord::read_from_bytes(&item)
                && record.0[KIND_OFFSET] != Kind::Doorbell as u8
            {
                self.waiting.push(record);
            }
        }
        if self.waiting.len() > before {
            // Stable: records of the same time stay in the order in which they came.
            self.waiting.sort_by_key(decode::ts_of);
        }
    }

    /// Adds a record of the daemon's own.
    pub(crate) fn tell(&mut self, record: RawRecord) {
        self.waiting.push(record);
        self.waiting.sort_by_key(decode::ts_of);
    }

    pub(crate) fn stream(&self) -> Stream<'_> {
        Stream::new(&self.waiting)
    }

    /// Forgets the oldest records.
    pub(crate) fn give_back(&mut self, used: usize) {
        self.waiting.drain(..used.min(self.waiting.len()));
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
