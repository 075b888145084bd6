//! From the drain to the thread that writes: a queue that never makes the drain wait.
//!
//! Where the queue is full, records are left out, and a gap in their place tells the reader so, just as
//! the rings' own gaps do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use profiler_ebpf::{Gap, KIND_OFFSET, Kind, RawRecord, ThreadRecord};

use super::facts::{Facts, Header};
use super::journal::{Batch, Entry};
use crate::core::decode::{Event, ts_of};
use crate::core::{Seen, Stream};

/// Most bytes of records in the queue.
const MAX_QUEUED: usize = 64 << 20;

/// Most records in one batch. It takes three times as long to pack them as a ring may wait.
const MAX_BATCH: usize = 1 << 21;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    Header(Box<Header>),
    Entry(Entry, usize),
    /// These threads were found anew: from here on a recording can begin.
    Part(Vec<ThreadRecord>, u64, u64),
    Facts(Box<Facts>),
    /// Write what is kept in memory to this file, or to the next of a series.
    Save(Option<PathBuf>, super::writer::Saved),
}

/// What both sides know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Bytes of records in the queue, and messages.
    queued: AtomicUsize,
    messages: AtomicUsize,
    /// Records and bytes that were written.
    pub(super) written: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Records and evidence that the queue had no room for.
    lost: AtomicU64,
    /// A part should begin soon.
    pub(super) wants_part: AtomicBool,
    /// Why nothing is written any more.
    stopped: Mutex<Option<super::writer::Stop>>,
}

impl Shared {
    pub(super) fn done(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) {
        self.messages.fetch_sub(1, Ordering::Release);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.messages.load(Ordering::Acquire) == 0
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn lose(&self, records: usize) {
        self.lost.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> Option<super::writer::Stop> {
        let stopped = self.stopped.lock();
        stopped.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stop(&self, why: super::writer::Stop) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(why);
    }
}

/// The drain's end of the queue.
#[derive(Debug)]
pub struct Tape {
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Tape {
    pub(super) fn new(messages: mpsc::Sender<Message>, shared: Arc<Shared>) -> Self {
        Self { messages, shared }
    }

    /// Says which run this is; nothing is written before.
    pub fn header(&self, header: Header) {
        self.send(Message::Header(Box::new(header)));
    }

    /// Whether the threads should be found anew, so that a part can begin. Asked again, it says no.
    #[must_use]
    pub fn take_part_is_due(&self) -> bool {
        self.shared.wants_part.swap(false, Ordering::Relaxed)
    }

    /// A part can begin here.
    pub(super) fn part(&self, threads: &[ThreadRecord], from_ns: u64, until_ns: u64) {
        self.send(Message::Part(threads.to_vec(), from_ns, until_ns));
    }

    /// These threads were found.
    pub(super) fn found(&self, threads: &[ThreadRecord], from_ns: u64, until_ns: u64) {
        self.send_small(Entry::Found(threads.to_vec(), from_ns, until_ns));
    }

    /// A CPU has been losing records.
    pub(super) fn doubt(&self, cpu: usize, from_ns: u64, until_ns: u64) {
        self.send_small(Entry::Doubt(cpu, from_ns, until_ns));
    }

    /// The window begins.
    pub(super) fn begin_window(&self) {
        self.send_small(Entry::BeginWindow);
    }

    /// No record tells of the quotas of these groups.
    pub(super) fn untold_quotas(&self, groups: &BTreeSet<u64>) {
        self.send_small(Entry::UntoldQuotas(groups.clone()));
    }

    /// Processes came to a target.
    pub(super) fn join(&self, target: usize, tgids: &BTreeSet<u32>) {
        self.send_small(Entry::Join(target, tgids.clone()));
    }

    /// Something was seen of waits that end, or that go on.
    pub(super) fn seen(&self, waits: Vec<Seen>, entry: fn(Vec<Seen>) -> Entry) {
        if waits.is_empty() {
            return;
        }
        let bytes = waits.len() * size_of::<Seen>();
        if self.has_room(bytes) {
            self.send_counted(entry(waits), bytes);
        } else {
            self.shared.lose(waits.len());
        }
    }

    /// These records were used.
    pub(super) fn feed(&self, streams: &[Stream<'_>], used: &[usize], watermark_ns: u64) {
        let records: usize = used.iter().sum();
        let bytes = records * size_of::<RawRecord>();
        let batch = if records <= MAX_BATCH && self.has_room(bytes) {
            Batch::of_used(streams, used, watermark_ns)
        } else {
            self.shared.lose(records);
            gaps(streams, used, watermark_ns)
        };
        let bytes = batch.records.len() * size_of::<RawRecord>();
        self.send_counted(Entry::Feed(batch), bytes);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.shared.queued.load(Ordering::Relaxed) + bytes <= MAX_QUEUED
    }

    fn send_counted(&self, entry: Entry, bytes: usize) {
        self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        self.send(Message::Entry(entry, bytes));
    }

    /// Sends what is rare, or smaller than the message itself.
    fn send_small(&self, entry: Entry) {
        self.send(Message::Entry(entry, 0));
    }

    fn send(&self, message: Message) {
        self.shared.sent();
        // Without the writer nothing is recorded; that it broke shows at the end.
        let _ = self.messages.send(message);
    }
}

/// In place of these records, for each stream that one of them was lost from when to when. What says which
/// records were never written stays: without it, what was left out would look as if it had not happened.
fn gaps(streams: &[Stream<'_>], used: &[usize], watermark_ns: u64) -> Batch {
    let mut batch = Batch {
        watermark_ns,
        ..Batch::default()
    };
    for (stream, &used) in streams.iter().zip(used) {
        let times = stream.first.iter().chain(stream.second).take(used);
        let (mut from_ns, mut until_ns) = (u64::MAX, 0);
        for raw in times {
            from_ns = from_ns.min(ts_of(raw));
            until_ns = until_ns.max(ts_of(raw));
        }
        let kept = batch.records.len();
        let its = stream.first.iter().chain(stream.second).take(used);
        let is_shed = |raw: &&RawRecord| raw.0[KIND_OFFSET] == Kind::Shed as u8;
        batch.records.extend(its.filter(is_shed));
        if used > 0 {
            let gap = Gap {
                ts_ns: from_ns,
                until_ns,
                lost: used as u64,
                ..Gap::default()
            };
            batch.records.push(Event::Gap(gap).encode());
        }
        let count = batch.records.len() - kept;
        batch.counts.push(u32::try_from(count).unwrap_or(u32::MAX));
    }
    batch
}
