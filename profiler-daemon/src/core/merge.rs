//! Many per-CPU streams to one, by time.
//!
//! Each stream keeps its own order (a CPU's records are written in the order in which things happened
//! there); between streams the time decides, at the same time the kind (`RANKS`), and then the stream's
//! number. A record is given out only when it lies at or before the watermark: the caller promises
//! that no stream can still bring an older one.

use std::hint::select_unpredictable;

use profiler_ebpf::{KIND_OFFSET, Kind, RawRecord};

use super::decode::ts_of;

/// The records of one stream that wait to be merged: those of a ring, in two parts where they wrap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream<'a> {
    /// The older part.
    pub first: &'a [RawRecord],
    /// What follows it.
    pub second: &'a [RawRecord],
}

impl<'a> Stream<'a> {
    /// A stream that does not wrap.
    #[must_use]
    pub fn new(records: &'a [RawRecord]) -> Self {
        Self {
            first: records,
            second: &[],
        }
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.second.is_empty()
    }
}

/// The order of records with the same time, which is no accident.
///
/// A thread is put on a queue by a record in the ring of another CPU, the waker's, with the time of the
/// run queue that it comes to; where it preempts at once, the kernel does not bring that clock up to
/// date again (`rq_clock_skip_update`), and the switch to it has the very same time. And what a
/// running thread does to itself (a new name, another program, another group) may have the time of the switch to it,
/// as the clock has not moved on since.
const fn rank_of(kind: Option<Kind>) -> u8 {
    match kind {
        Some(
            Kind::Wakeup
            | Kind::Fork
            | Kind::Waking
            | Kind::Migrate
            | Kind::Throttle
            | Kind::Throttled
            | Kind::Interrupts
            | Kind::Shed,
        ) => 0,
        Some(Kind::Switch | Kind::Gap | Kind::Doorbell) | None => 1,
        Some(Kind::Rename | Kind::Exec | Kind::CgroupMove) => 2,
    }
}

/// [`rank_of`] by the kind's number, as every record needs it.
const RANKS: [u8; 256] = {
    let mut ranks = [0; 256];
    let mut number = 0u8;
    loop {
        ranks[number as usize] = rank_of(Kind::from_wire(number));
        if number == u8::MAX {
            break ranks;
        }
        number += 1;
    }
};

/// A record's place in the order of all: its time, the rank of its kind, and its stream's number, in one
/// number that compares at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

impl Key {
    /// Later than any record: of a stream that has none to give.
    const NONE: Self = Self(u128::MAX);

    /// `order_ns` is the record's time, or its predecessor's if that was later.
    #[inline]
    fn new(order_ns: u64, raw: &RawRecord, stream: usize) -> Self {
        let rank = RANKS[usize::from(raw.0[KIND_OFFSET])];
        Self(u128::from(order_ns) << 64 | u128::from(u64::from(rank) << 56 | stream as u64))
    }

    /// Of the next record of a stream, if there is one and it is not to be held back.
    #[inline]
    fn due(raw: Option<&RawRecord>, floor_ns: u64, stream: usize, watermark_ns: u64) -> Self {
        match raw {
            Some(raw) if ts_of(raw).max(floor_ns) <= watermark_ns => {
                Self::new(ts_of(raw).max(floor_ns), raw, stream)
            }
            _ => Self::NONE,
        }
    }

    #[inline]
    fn order_ns(self) -> u64 {
        (self.0 >> 64) as u64
    }

    #[inline]
    fn stream(self) -> usize {
        (self.0 & ((1 << 56) - 1)) as usize
    }
}

impl<'a> Stream<'a> {
    /// What is left of it without the oldest records, so many.
    #[inline]
    fn after(&self, used: usize) -> Self {
        let (first, second) = match self.first.get(used..) {
            Some(first) if !first.is_empty() => (first, self.second),
            _ => (
                self.second.get(used - self.first.len()..).unwrap_or(&[]),
                &[][..],
            ),
        };
        Self { first, second }
    }

    /// The oldest record.
    #[inline]
    fn peek(&self) -> Option<&'a RawRecord> {
        self.first.first()
    }

    /// Takes the oldest record out.
    #[inline]
    fn take(&mut self) -> Option<&'a RawRecord> {
        let (record, rest) = self.first.split_first()?;
        self.first = rest;
        if rest.is_empty() {
            self.first = std::mem::take(&mut self.second);
        }
        Some(record)
    }
}

/// So many streams are few: to look at all of them takes less than to keep them in an order.
const FEW: usize = 4;

/// Merges streams; keeps its working memory from one call to the next.
#[derive(Debug, Default)]
pub struct Merger {
    /// Per stream: records used in the last call.
    used: Vec<usize>,
    /// Per stream: the time of the last record given out, which orders what follows it.
    floor_ns: Vec<u64>,
    /// The next record of each stream.
    heads: Tournament,
}

impl Merger {
    /// Gives `sink` every record up to and including `watermark_ns` with its stream's number, in
    /// order, and returns for each stream how many were used.
    ///
    /// A record that is older than one before it in its own stream keeps its place there.
    pub fn merge<'a>(
        &mut self,
        streams: &[Stream<'a>],
        watermark_ns: u64,
        mut sink: impl FnMut(usize, &'a RawRecord),
    ) -> &[usize] {
        self.used.clear();
        self.used.resize(streams.len(), 0);
        if self.floor_ns.len() < streams.len() {
            self.floor_ns.resize(streams.len(), 0);
        }
        if streams.len() <= FEW {
            self.merge_few(streams, watermark_ns, sink);
            return &self.used;
        }
        let key = |raw, floor_ns, number| Key::due(raw, floor_ns, number, watermark_ns);
        let floors = &self.floor_ns;
        let heads = streams
            .iter()
            .enumerate()
            .map(|(number, stream)| key(stream.after(0).peek(), floors[number], number));
        let mut due = self.heads.begin(heads);
        while due != Key::NONE {
            let number = due.stream();
            let mut left = streams[number].after(self.used[number]);
            let before = left.len();
            // Before this it is this stream's turn again: what happens at one moment is mostly told in one stream,
            // and a CPU's records often come in runs. It is found out only once one has two records in a row, since
            // it takes as long as to put one in.
            let mut rival = Key(due.0.saturating_add(1));
            let next_due = loop {
                if let Some(record) = left.take() {
                    sink(number, record);
                }
                let next = key(left.peek(), due.order_ns(), number);
                if next >= rival {
                    let first = self.heads.replace(number, next);
                    if first != next || first == Key::NONE {
                        break first;
                    }
                    rival = self.heads.rival(number);
                }
                due = next;
            };
            self.used[number] += before - left.len();
            self.floor_ns[number] = due.order_ns();
            due = next_due;
        }
        &self.used
    }

    /// The same with a few streams.
    fn merge_few<'a>(
        &mut self,
        streams: &[Stream<'a>],
        watermark_ns: u64,
        mut sink: impl FnMut(usize, &'a RawRecord),
    ) {
        let mut left = [Stream::default(); FEW];
        let mut heads = [Key::NONE; FEW];
        for (number, stream) in streams.iter().enumerate().take(FEW) {
            left[number] = stream.after(0);
            let floor_ns = self.floor_ns[number];
            heads[number] = Key::due(left[number].peek(), floor_ns, number, watermark_ns);
        }
        loop {
            let (mut due, mut rival) = (Key::NONE, Key::NONE);
            for &head in &heads[..streams.len()] {
                rival = rival.min(head.max(due));
                due = due.min(head);
            }
            if due == Key::NONE {
                break;
            }
            let number = due.stream() % FEW;
            let stream = &mut left[number];
            // A CPU's records often come in runs, and what happens at one moment is mostly told in one stream.
            heads[number] = loop {
                if let Some(record) = stream.take() {
                    sink(number, record);
                }
                let next = Key::due(stream.peek(), due.order_ns(), number, watermark_ns);
                if next >= rival {
                    break next;
                }
                due = next;
            };
            self.floor_ns[number] = due.order_ns();
        }
        for (used, (all, left)) in self.used.iter_mut().zip(streams.iter().zip(&left)) {
            *used = all.len() - left.len();
        }
    }
}

/// Finds the first of many keys, again and again as one after the other is replaced: each is compared only
/// with those that won against its neighbors.
#[derive(Debug, Default)]
struct Tournament {
    /// A tree: the root at 1, the children of a place at twice that and beside it, the keys at the end. Each
    /// place has the first of those below it.
    winners: Vec<Key>,
    /// Where the keys begin.
    leaves: usize,
}

impl Tournament {
    /// Takes these keys, and returns the first of them.
    fn begin(&mut self, keys: impl ExactSizeIterator<Item = Key>) -> Key {
        self.leaves = keys.len().next_power_of_two();
        self.winners.clear();
        self.winners.resize(self.leaves, Key::NONE);
        self.winners.extend(keys);
        self.winners.resize(2 * self.leaves, Key::NONE);
        for place in (1..self.leaves).rev() {
            self.winners[place] = self.winners[2 * place].min(self.winners[2 * place + 1]);
        }
        self.winners[1]
    }

    /// The first of all keys but the one with this number, which is the first of all.
    #[inline]
    fn rival(&self, number: usize) -> Key {
        let mut place = self.leaves + number;
        let mut first = Key::NONE;
        while place > 1 {
            first = first.min(self.winners[place ^ 1]);
            place /= 2;
        }
        first
    }

    /// Replaces one of the keys, and returns the first of all.
    #[inline]
    fn replace(&mut self, number: usize, key: Key) -> Key {
        let mut place = self.leaves + number;
        let mut first = key;
        self.winners[place] = key;
        while place > 1 {
            let other = self.winners[place ^ 1];
            // Which it is nobody can predict, the processor neither.
            first = select_unpredictable(other < first, other, first);
            place /= 2;
            self.winners[place] = first;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::{Merger, Stream};
    use crate::core::decode::{Event, ts_of};
    use profiler_ebpf::{KIND_OFFSET, Kind, RawRecord, Switch};
    use proptest::prelude::*;

    fn record(ts_ns: u64, tag: u32) -> RawRecord {
        Event::Switch(Switch {
            ts_ns,
            prev_tid: tag,
            ..Switch::default()
        })
        .encode()
    }

    fn merged(streams: &[Vec<u64>], watermark_ns: u64) -> (Vec<(usize, u64)>, Vec<usize>) {
        let raw: Vec<Vec<RawRecord>> = streams
            .iter()
            .map(|times| times.iter().map(|&ts| record(ts, 0)).collect())
            .collect();
        let views: Vec<Stream<'_>> = raw
            .iter()
            .map(|records| {
                let (first, second) = records.split_at(records.len() / 3);
                Stream { first, second }
            })
            .collect();
        let mut out = Vec::new();
        let mut merger = Merger::default();
        let used = merger
            .merge(&views, watermark_ns, |stream, raw| {
                out.push((stream, ts_of(raw)));
            })
            .to_vec();
        (out, used)
    }

    #[test]
    fn interleaves_by_time_then_by_stream() {
        let (out, used) = merged(&[vec![1, 4, 5], vec![2, 4], vec![]], 10);
        assert_eq!(out, [(0, 1), (1, 2), (0, 4), (1, 4), (0, 5)]);
        assert_eq!(used, [3, 2, 0]);
    }

    #[test]
    fn at_the_same_time_a_thread_is_queued_then_runs_then_acts() {
        let of_kind = |kind: Kind| {
            let mut raw = record(4, 0);
            raw.0[KIND_OFFSET] = kind as u8;
            [raw]
        };
        let switches = [record(3, 0), record(4, 0), record(5, 0)];
        for (queued, action) in [(Kind::Wakeup, Kind::Rename), (Kind::Fork, Kind::Exec)] {
            let (queued, action) = (of_kind(queued), of_kind(action));
            let streams = [&action[..], &switches, &queued].map(Stream::new);
            let mut out = Vec::new();
            Merger::default().merge(&streams, 10, |stream, raw| out.push((stream, ts_of(raw))));
            assert_eq!(out, [(1, 3), (2, 4), (1, 4), (0, 4), (1, 5)]);
        }
    }

    #[test]
    fn holds_back_what_is_after_the_watermark() {
        let (out, used) = merged(&[vec![1, 9], vec![2, 3, 10]], 8);
        assert_eq!(out, [(0, 1), (1, 2), (1, 3)]);
        assert_eq!(used, [1, 2]);
    }

    #[test]
    fn a_record_older_than_its_predecessor_keeps_its_place() {
        let (out, _) = merged(&[vec![5, 3, 6], vec![4]], 10);
        assert_eq!(out, [(1, 4), (0, 5), (0, 3), (0, 6)]);
    }

    #[test]
    fn the_order_holds_from_one_call_to_the_next() {
        let mut merger = Merger::default();
        let (early, late, other) = ([record(7, 0)], [record(2, 0)], [record(6, 0)]);
        merger.merge(&[Stream::new(&early), Stream::default()], 9, |_, _| {});
        let mut out = Vec::new();
        merger.merge(
            &[Stream::new(&late), Stream::new(&other)],
            9,
            |stream, raw| {
                out.push((stream, ts_of(raw)));
            },
        );
        assert_eq!(out, [(1, 6), (0, 2)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_out_of_order(
            mut streams in prop::collection::vec(prop::collection::vec(0u64..1000, 0..40), 0..9),
            watermark_ns in 0u64..1100,
        ) {
            for stream in &mut streams {
                stream.sort_unstable();
            }
            let (out, used) = merged(&streams, watermark_ns);
            let mut expected: Vec<(u64, usize)> = streams
                .iter()
                .enumerate()
                .flat_map(|(number, times)| times.iter().map(move |&ts| (ts, number)))
                .filter(|&(ts, _)| ts <= watermark_ns)
                .collect();
            expected.sort_unstable();
            let got: Vec<(u64, usize)> = out.iter().map(|&(stream, ts)| (ts, stream)).collect();
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!(used.iter().sum::<usize>(), expected.len());
        }
    }
}
