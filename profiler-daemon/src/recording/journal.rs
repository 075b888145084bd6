//! What is given to a [`Core`], as values: the journal of a run. The same entries given to another core
//! in the same order make the same figures.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use profiler_ebpf::{RawRecord, THREAD_RECORD_BYTES, ThreadRecord};
use zerocopy::{FromBytes, IntoBytes};

use super::columns::{self, COLUMNS, Malformed, Model};
use super::varint;
use crate::core::classify::{FileKind, Stack};
use crate::core::{Core, Seen, Stream};

/// One call of a function of [`Core`].
#[derive(Clone, Debug)]
pub enum Entry {
    /// [`Core::found`]: the threads, and when they were read.
    Found(Vec<ThreadRecord>, u64, u64),
    /// [`Core::seen`].
    Seen(Vec<Seen>),
    /// [`Core::seen_waiting`].
    SeenWaiting(Vec<Seen>),
    /// [`Core::doubt`]: a CPU, and from when until when.
    Doubt(usize, u64, u64),
    /// [`Core::feed`].
    Feed(Batch),
    /// [`Core::begin_window`].
    BeginWindow,
    /// [`Core::join`]: the number of the target, and the processes.
    Join(usize, BTreeSet<u32>),
    /// [`Core::untold_quotas`]: the groups.
    UntoldQuotas(BTreeSet<u64>),
}

/// The records that one [`Core::feed`] used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Up to when.
    pub watermark_ns: u64,
    /// How many of each stream.
    pub counts: Vec<u32>,
    /// The records, stream by stream.
    pub records: Vec<RawRecord>,
}

impl Batch {
    /// What was used of these streams.
    #[must_use]
    pub fn of_used(streams: &[Stream<'_>], used: &[usize], watermark_ns: u64) -> Self {
        let mut batch = Self {
            watermark_ns,
            counts: Vec::with_capacity(used.len()),
            records: Vec::with_capacity(used.iter().sum()),
        };
        for (stream, &used) in streams.iter().zip(used) {
            let first = &stream.first[..used.min(stream.first.len())];
            let second = &stream.second[..(used - first.len()).min(stream.second.len())];
            batch.records.extend_from_slice(first);
            batch.records.extend_from_slice(second);
            batch.counts.push(u32::try_from(used).unwrap_or(u32::MAX));
        }
        batch
    }

    /// Its streams.
    pub fn streams(&self) -> impl Iterator<Item = &[RawRecord]> {
        let mut rest = &self.records[..];
        self.counts.iter().map(move |&count| {
            let (stream, others) = rest.split_at((count as usize).min(rest.len()));
            rest = others;
            stream
        })
    }
}

impl Entry {
    /// Does it.
    pub fn give(self, core: &mut Core) {
        match self {
            Self::Found(threads, from_ns, until_ns) => core.found(&threads, from_ns..=until_ns),
            Self::Seen(waits) => core.seen(waits),
            Self::SeenWaiting(waits) => core.seen_waiting(waits),
            Self::Doubt(cpu, from_ns, until_ns) => core.doubt(cpu, from_ns, until_ns),
            Self::Feed(batch) => {
                let streams: Vec<Stream<'_>> = batch.streams().map(Stream::new).collect();
                core.feed(&streams, batch.watermark_ns);
            }
            Self::BeginWindow => core.begin_window(),
            Self::Join(target, tgids) => core.join(target, &tgids),
            Self::UntoldQuotas(groups) => core.untold_quotas(groups),
        }
    }
}

/// Most streams: a CPU's number has 16 bits in other records, too.
const MAX_STREAMS: usize = 1 << 16;

/// Which entry follows. Numbers are never used again.
mod op {
    pub(super) const FOUND: u8 = 1;
    pub(super) const SEEN: u8 = 2;
    pub(super) const SEEN_WAITING: u8 = 3;
    pub(super) const DOUBT: u8 = 4;
    pub(super) const FEED: u8 = 5;
    pub(super) const BEGIN_WINDOW: u8 = 6;
    pub(super) const JOIN: u8 = 7;
    pub(super) const UNTOLD_QUOTAS: u8 = 8;
}

/// Packs entries into the content of a chunk.
#[derive(Debug)]
pub(super) struct Packer {
    model: Model,
    ops: Vec<u8>,
    columns: columns::Writer,
    stacks: HashMap<Arc<Stack>, u64>,
    named: Vec<u8>,
    records: usize,
    streams: usize,
    until_ns: u64,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self {
            model: Model::new(),
            ops: Vec::new(),
            columns: columns::Writer::default(),
            stacks: HashMap::new(),
            named: Vec::new(),
            records: 0,
            streams: 0,
            until_ns: 0,
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Records in it.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Most streams that a batch in it has.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    /// The watermark after it.
    pub(super) fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.ops.len() + self.named.len() + self.columns.len()
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Found(threads, from_ns, until_ns) => {
                self.op(op::FOUND, &[*from_ns, *until_ns, threads.len() as u64]);
                for thread in threads {
                    self.ops.extend_from_slice(thread.as_bytes());
                }
            }
            Entry::Seen(waits) => self.seen(op::SEEN, waits),
            Entry::SeenWaiting(waits) => self.seen(op::SEEN_WAITING, waits),
            Entry::Doubt(cpu, from_ns, until_ns) => {
                self.op(op::DOUBT, &[*cpu as u64, *from_ns, *until_ns]);
            }
            Entry::Feed(batch) => self.feed(batch),
            Entry::BeginWindow => self.op(op::BEGIN_WINDOW, &[]),
            Entry::Join(target, tgids) => {
                self.op(op::JOIN, &[*target as u64, tgids.len() as u64]);
                for &tgid in tgids {
                    varint::put(&mut self.ops, tgid.into());
                }
            }
            Entry::UntoldQuotas(groups) => {
                self.op(op::UNTOLD_QUOTAS, &[groups.len() as u64]);
                for &group in groups {
                    varint::put(&mut self.ops, group);
                }
            }
        }
    }

    fn op(&mut self, number: u8, values: &[u64]) {
        self.ops.push(number);
        for &value in values {
            varint::put(&mut self.ops, value);
        }
    }

    fn seen(&mut self, number: u8, waits: &[Seen]) {
        self.op(number, &[waits.len() as u64]);
        for seen in waits {
            let stack = self.stack(&seen.stack);
            let user_stack = seen.user_stack.map_or(0, |number| u64::from(number) + 1);
            let fields = [
                u64::from(seen.tid),
                seen.left_ns,
                seen.file as u64,
                stack,
                user_stack,
            ];
            for value in fields {
                varint::put(&mut self.ops, value);
            }
        }
    }

    /// The number of a stack; one without functions is 0.
    fn stack(&mut self, stack: &Arc<Stack>) -> u64 {
        if stack.frames().is_empty() {
            return 0;
        }
        if let Some(&number) = self.stacks.get(stack) {
            return number;
        }
        let number = self.stacks.len() as u64 + 1;
        self.stacks.insert(Arc::clone(stack), number);
        varint::put(&mut self.named, stack.frames().len() as u64);
        for frame in stack.frames() {
            varint::put(&mut self.named, frame.len() as u64);
            self.named.extend_from_slice(frame.as_bytes());
        }
        number
    }

    fn feed(&mut self, batch: &Batch) {
        self.op(op::FEED, &[batch.watermark_ns, batch.counts.len() as u64]);
        for &count in &batch.counts {
            varint::put(&mut self.ops, count.into());
        }
        self.model.expect(batch.counts.len());
        for (number, stream) in batch.streams().enumerate() {
            for raw in stream {
                self.columns.add(&mut self.model, number, raw);
            }
        }
        self.records += batch.records.len();
        self.streams = self.streams.max(batch.counts.len());
        self.until_ns = self.until_ns.max(batch.watermark_ns);
    }

    /// Everything as the content of a chunk; what follows begins a new one.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut sections: Vec<&[u8]> = vec![&self.ops, &self.named];
        sections.extend(self.columns.columns().iter().map(Vec::as_slice));
        let mut content = Vec::with_capacity(self.len() + sections.len() * varint::MAX_BYTES);
        varint::put(&mut content, sections.len() as u64);
        for section in &sections {
            varint::put(&mut content, section.len() as u64);
        }
        for section in sections {
            content.extend_from_slice(section);
        }
        self.ops.clear();
        self.named.clear();
        self.columns.clear();
        self.model.clear();
        self.stacks.clear();
        self.records = 0;
        self.streams = 0;
        content
    }
}

/// The entries of a chunk's content, in their order. Ends after the first one that makes no sense.
pub(super) fn unpack(content: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut rest = content;
    let sections = sections(&mut rest)?;
    let [ops, named, columns @ ..] = &sections[..] else {
        return Err(Malformed);
    };
    let columns: [&[u8]; COLUMNS] = columns.try_into().map_err(|_| Malformed)?;
    let mut unpacker = Unpacker {
        ops,
        stacks: stacks(named)?,
        columns: columns::Reader::new(columns),
        model: Model::new(),
    };
    let mut entries = Vec::new();
    while !unpacker.ops.is_empty() {
        entries.push(unpacker.entry()?);
    }
    Ok(entries)
}

fn sections<'a>(rest: &mut &'a [u8]) -> Result<Vec<&'a [u8]>, Malformed> {
    let count = number(rest)?;
    if count > rest.len() {
        return Err(Malformed);
    }
    let lengths: Vec<usize> = (0..count).map(|_| number(rest)).collect::<Result<_, _>>()?;
    lengths
        .into_iter()
        .map(|length| bytes(rest, length))
        .collect()
}

fn stacks(mut rest: &[u8]) -> Result<Vec<Arc<Stack>>, Malformed> {
    let mut stacks = vec![Arc::default()];
    while !rest.is_empty() {
        let count = number(&mut rest)?;
        let mut frames = Vec::new();
        for _ in 0..count {
            let length = number(&mut rest)?;
            let name = bytes(&mut rest, length)?;
            frames.push(String::from_utf8_lossy(name).into_owned());
        }
        stacks.push(Arc::new(Stack::new(frames)));
    }
    Ok(stacks)
}

fn number(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let value = varint::take(rest).ok_or(Malformed)?;
    usize::try_from(value).map_err(|_| Malformed)
}

fn bytes<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (bytes, others) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = others;
    Ok(bytes)
}

struct Unpacker<'a> {
    ops: &'a [u8],
    stacks: Vec<Arc<Stack>>,
    columns: columns::Reader<'a>,
    model: Model,
}

impl Unpacker<'_> {
    fn entry(&mut self) -> Result<Entry, Malformed> {
        let (&op, rest) = self.ops.split_first().ok_or(Malformed)?;
        self.ops = rest;
        match op {
            op::FOUND => self.found(),
            op::SEEN => Ok(Entry::Seen(self.seen()?)),
            op::SEEN_WAITING => Ok(Entry::SeenWaiting(self.seen()?)),
            op::DOUBT => Ok(Entry::Doubt(
                self.number()?,
                self.number64()?,
                self.number64()?,
            )),
            op::FEED => self.feed(),
            op::BEGIN_WINDOW => Ok(Entry::BeginWindow),
            op::JOIN => {
                let (target, count) = (self.number()?, self.number()?);
                let tgids = (0..count).map(|_| self.u32()).collect::<Result<_, _>>()?;
                Ok(Entry::Join(target, tgids))
            }
            op::UNTOLD_QUOTAS => {
                let groups = (0..self.number()?).map(|_| self.number64());
                Ok(Entry::UntoldQuotas(groups.collect::<Result<_, _>>()?))
            }
            _ => Err(Malformed),
        }
    }

    fn number64(&mut self) -> Result<u64, Malformed> {
        varint::take(&mut self.ops).ok_or(Malformed)
    }

    fn number(&mut self) -> Result<usize, Malformed> {
        number(&mut self.ops)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number64()?).map_err(|_| Malformed)
    }

    fn found(&mut self) -> Result<Entry, Malformed> {
        let (from_ns, until_ns) = (self.number64()?, self.number64()?);
        let length = self.number()?.checked_mul(THREAD_RECORD_BYTES);
        let records = bytes(&mut self.ops, length.ok_or(Malformed)?)?;
        let threads = records
            .chunks_exact(THREAD_RECORD_BYTES)
            .map(|record| ThreadRecord::read_from_bytes(record).map_err(|_| Malformed))
            .collect::<Result<_, _>>()?;
        Ok(Entry::Found(threads, from_ns, until_ns))
    }

    fn seen(&mut self) -> Result<Vec<Seen>, Malformed> {
        (0..self.number()?)
            .map(|_| {
                let (tid, left_ns, file) = (self.u32()?, self.number64()?, self.number()?);
                let (stack, user_stack) = (self.number()?, self.number64()?);
                let user_stack = user_stack.checked_sub(1).map(u32::try_from);
                Ok(Seen {
                    tid,
                    left_ns,
                    file: *FileKind::ALL.get(file).ok_or(Malformed)?,
                    stack: Arc::clone(self.stacks.get(stack).ok_or(Malformed)?),
                    user_stack: user_stack.transpose().map_err(|_| Malformed)?,
                })
            })
            .collect()
    }

    fn feed(&mut self) -> Result<Entry, Malformed> {
        let watermark_ns = self.number64()?;
        let streams = self.number()?;
        // Each takes a byte at least: a count beyond that must not make room for it.
        if streams > self.ops.len().min(MAX_STREAMS) {
            return Err(Malformed);
        }
        let counts: Vec<u32> = (0..streams).map(|_| self.u32()).collect::<Result<_, _>>()?;
        self.model.expect(streams);
        let mut records = Vec::new();
        for (stream, &count) in counts.iter().enumerate() {
            for _ in 0..count {
                records.push(self.columns.take(&mut self.model, stream)?);
            }
        }
        Ok(Entry::Feed(Batch {
            watermark_ns,
            counts,
            records,
        }))
    }
}
