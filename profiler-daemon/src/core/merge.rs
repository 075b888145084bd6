//! Many per-CPU streams to one, by time.
//!
//! Each stream keeps its own order (a CPU's records are written in the order in which things happened
//! there); between streams the time decides, at the same time the kind (`RANKS`), and then the stream's
//! number. A record is given out only when it lies at or before the watermark: the caller promises
//! that no stream can still bring an older one.

use std::hint::select_unpredictable;

use prefetch_index::prefetch_index;
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

/// Who takes the records, in their order.
pub trait Sink<'a> {
    /// The next of all, and the number of its stream.
    fn record(&mut self, stream: usize, raw: &'a RawRecord);

    /// Whether it wants to know what comes soon.
    fn looks_ahead(&self) -> bool {
        false
    }

    /// This one comes soon, after some of other streams: what it needs can be fetched meanwhile.
    fn expect(&self, _stream: usize, _raw: &'a RawRecord) {}
}

impl<'a, F: FnMut(usize, &'a RawRecord)> Sink<'a> for F {
    #[inline]
    fn record(&mut self, stream: usize, raw: &'a RawRecord) {
        self(stream, raw);
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
struct Key(u64);

impl Key {
    /// Later than any record: of a stream that has none to give. No rank has all its bits set.
    const NONE: Self = Self(u64::MAX);
}

/// Bits of a key for the rank.
const RANK_BITS: u32 = 2;

/// How keys are made of the records of a stretch of time: there are not bits enough for all of it.
#[derive(Clone, Copy, Debug)]
struct Keys {
    /// Nothing of the stretch is older.
    base_ns: u64,
    /// The end of the stretch, which belongs to it.
    until_ns: u64,
    /// Bits for the number of a stream.
    stream_bits: u32,
}

impl Keys {
    /// For what comes first of these streams up to the watermark, if there is anything.
    fn of_next(cursors: &[Cursor<'_>], watermark_ns: u64) -> Option<Self> {
        let base_ns = cursors.iter().filter_map(Cursor::next_ns).min()?;
        let stream_bits = cursors.len().next_power_of_two().trailing_zeros();
        let span_ns = u64::MAX >> (stream_bits + RANK_BITS);
        (base_ns <= watermark_ns).then_some(Self {
            base_ns,
            until_ns: base_ns.saturating_add(span_ns).min(watermark_ns),
            stream_bits,
        })
    }

    /// Of the next record of a stream, if there is one and it belongs to the stretch. `floor_ns` is the time of the
    /// one before it.
    #[inline]
    fn due(&self, raw: Option<&RawRecord>, floor_ns: u64, stream: usize) -> Key {
        match raw {
            Some(raw) => {
                let order_ns = ts_of(raw).max(floor_ns);
                if order_ns <= self.until_ns {
                    let rank = RANKS[usize::from(raw.0[KIND_OFFSET])];
                    let moment = (order_ns - self.base_ns) << RANK_BITS | u64::from(rank);
                    Key(moment << self.stream_bits | stream as u64)
                } else {
                    Key::NONE
                }
            }
            None => Key::NONE,
        }
    }

    /// Of all streams.
    fn all(&self, cursors: &[Cursor<'_>]) -> impl ExactSizeIterator<Item = Key> {
        let streams = cursors.iter().enumerate();
        streams.map(|(number, its)| self.due(its.left.peek(), its.floor_ns, number))
    }

    #[inline]
    fn order_ns(&self, key: Key) -> u64 {
        self.base_ns + (key.0 >> (self.stream_bits + RANK_BITS))
    }

    #[inline]
    fn stream(&self, key: Key) -> usize {
        usize::try_from(key.0 & !(u64::MAX << self.stream_bits)).unwrap_or(usize::MAX)
    }
}

/// Where the merge is in a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor<'a> {
    left: Stream<'a>,
    /// The time of the last record given out, which orders what follows it.
    floor_ns: u64,
}

impl<'a> Cursor<'a> {
    fn new((stream, &floor_ns): (&Stream<'a>, &u64)) -> Self {
        Self {
            left: stream.normal(),
            floor_ns,
        }
    }

    /// Tells the sink of a record that comes soon.
    #[inline]
    fn look_ahead(&self, stream: usize, ahead: Ahead, sink: &impl Sink<'a>) {
        if ahead.told > 0
            && let Some(raw) = self.left.first.get(ahead.told)
        {
            sink.expect(stream, raw);
        }
    }

    /// The next record's place in time.
    fn next_ns(&self) -> Option<u64> {
        Some(ts_of(self.left.peek()?).max(self.floor_ns))
    }
}

impl<'a> Stream<'a> {
    /// The same, with something in its older part if there is anything.
    fn normal(&self) -> Self {
        let mut its = *self;
        if its.first.is_empty() {
            its.first = std::mem::take(&mut its.second);
        }
        its
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

/// So many records pass, about, between a look at a record and its turn: time enough to fetch what it needs from
/// the slowest memory, and not so much that it has left the cache again.
const AHEAD: usize = 32;

/// Which records of a stream are looked at when one is taken, by how many after it.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// Where its own memory is asked for: no processor follows so many streams by itself.
    memory: usize,
    /// Where the sink is told; 0 if it does not want to know.
    told: usize,
}

impl Ahead {
    fn of<'a>(streams: usize, sink: &impl Sink<'a>) -> Self {
        let told = (AHEAD / streams.max(1)).max(1);
        Self {
            memory: told + RECORDS_A_LINE,
            told: if sink.looks_ahead() { told } else { 0 },
        }
    }
}

/// Records in a line of the cache.
const RECORDS_A_LINE: usize = 64 / size_of::<RawRecord>();

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
    /// Memory for the cursors of many streams; always empty.
    cursors: Vec<Cursor<'static>>,
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
        mut sink: impl Sink<'a>,
    ) -> &[usize] {
        if self.floor_ns.len() < streams.len() {
            self.floor_ns.resize(streams.len(), 0);
        }
        let begin = streams.iter().zip(&self.floor_ns).map(Cursor::new);
        let mut few = [Cursor::default(); FEW];
        let mut many: Vec<Cursor<'a>> = std::mem::take(&mut self.cursors);
        let is_few = streams.len() <= FEW;
        let cursors = if is_few {
            for (cursor, its) in few.iter_mut().zip(begin) {
                *cursor = its;
            }
            &mut few[..streams.len()]
        } else {
            many.extend(begin);
            &mut many[..]
        };
        while let Some(keys) = Keys::of_next(cursors, watermark_ns) {
            if is_few {
                merge_few(cursors, keys, &mut sink);
            } else {
                self.heads.merge(cursors, keys, &mut sink);
            }
        }
        self.used.clear();
        for ((stream, cursor), floor_ns) in streams.iter().zip(cursors).zip(&mut self.floor_ns) {
            self.used.push(stream.len() - cursor.left.len());
            *floor_ns = cursor.floor_ns;
        }
        many.clear();
        // The same memory, for records that live elsewhere.
        #[expect(
            clippy::unnecessary_filter_map,
            reason = "a filter keeps the type, and with it the lifetime of these records"
        )]
        let empty = many.into_iter().filter_map(|_| None).collect();
        self.cursors = empty;
        &self.used
    }
}

/// Merges what a few streams have of a stretch.
fn merge_few<'a>(cursors: &mut [Cursor<'a>], keys: Keys, sink: &mut impl Sink<'a>) {
    let ahead = Ahead::of(cursors.len(), sink);
    let mut heads = [Key::NONE; FEW];
    for (head, key) in heads.iter_mut().zip(keys.all(cursors)) {
        *head = key;
    }
    loop {
        let (mut due, mut rival) = (Key::NONE, Key::NONE);
        for &head in &heads[..cursors.len()] {
            rival = rival.min(head.max(due));
            due = due.min(head);
        }
        if due == Key::NONE {
            break;
        }
        let number = keys.stream(due);
        let (Some(cursor), Some(head)) = (cursors.get_mut(number), heads.get_mut(number)) else {
            break;
        };
        // A CPU's records often come in runs, and what happens at one moment is mostly told in one stream.
        *head = loop {
            if let Some(record) = cursor.left.take() {
                cursor.look_ahead(number, ahead, sink);
                sink.record(number, record);
            }
            let order_ns = keys.order_ns(due);
            let next = keys.due(cursor.left.peek(), order_ns, number);
            if next >= rival {
                cursor.floor_ns = order_ns;
                break next;
            }
            due = next;
        };
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
    /// Merges what many streams have of a stretch.
    fn merge<'a>(&mut self, cursors: &mut [Cursor<'a>], keys: Keys, sink: &mut impl Sink<'a>) {
        let ahead = Ahead::of(cursors.len(), sink);
        let mut due = self.begin(keys.all(cursors));
        while due != Key::NONE {
            let number = keys.stream(due);
            let Some(cursor) = cursors.get_mut(number) else {
                break;
            };
            // Before this it is this stream's turn again: what happens at one moment is mostly told in one stream,
            // and a CPU's records often come in runs. It is found out only once one has two records in a row, since
            // it takes as long as to put one in.
            let mut rival = Key(due.0.saturating_add(1));
            due = loop {
                if let Some(record) = cursor.left.take() {
                    prefetch_index(cursor.left.first, ahead.memory);
                    cursor.look_ahead(number, ahead, sink);
                    sink.record(number, record);
                }
                let order_ns = keys.order_ns(due);
                let next = keys.due(cursor.left.peek(), order_ns, number);
                if next >= rival {
                    let first = self.replace(number, next);
                    if first != next || first == Key::NONE {
                        cursor.floor_ns = order_ns;
                        break first;
                    }
                    rival = self.rival(number);
                }
                due = next;
            };
        }
    }

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
    use std::cell::RefCell;

    use super::{Merger, Sink, Stream};
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

    /// Keeps what it is given, and what it was told to expect.
    #[derive(Default)]
    struct Curious {
        given: Vec<(usize, u32)>,
        expected: RefCell<Vec<(usize, u32)>>,
    }

    fn tag_of(raw: &RawRecord) -> u32 {
        match Event::decode(raw) {
            Ok(Event::Switch(switch)) => switch.prev_tid,
            other => panic!("{other:?}"),
        }
    }

    impl<'a> Sink<'a> for &mut Curious {
        fn record(&mut self, stream: usize, raw: &'a RawRecord) {
            self.given.push((stream, tag_of(raw)));
        }

        fn looks_ahead(&self) -> bool {
            true
        }

        fn expect(&self, stream: usize, raw: &'a RawRecord) {
            let its = (stream, tag_of(raw));
            assert!(!self.given.contains(&its), "{its:?} was there already");
            self.expected.borrow_mut().push(its);
        }
    }

    #[test]
    fn what_is_expected_comes_later_and_is_told_once() {
        for count in [1, 3, 7, 40] {
            let raw: Vec<Vec<RawRecord>> = (0..count)
                .map(|stream| {
                    (0..60)
                        .map(|n| record(u64::from(n) * 5 + stream, n))
                        .collect()
                })
                .collect();
            let streams: Vec<Stream<'_>> = raw.iter().map(|its| Stream::new(its)).collect();
            let mut sink = Curious::default();
            Merger::default().merge(&streams, u64::MAX, &mut sink);
            let mut expected = sink.expected.take();
            assert!(expected.len() >= sink.given.len() / 3, "{count} streams");
            let told = expected.len();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(expected.len(), told, "{count} streams");
            sink.given.sort_unstable();
            assert!(
                expected
                    .iter()
                    .all(|its| sink.given.binary_search(its).is_ok())
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_out_of_order(
            mut streams in prop::collection::vec(prop::collection::vec(0u64..1000, 0..40), 0..20),
            watermark in 0u64..1100,
            // Up to times that a key has not bits enough for.
            shift in 0u32..54,
        ) {
            let watermark_ns = watermark << shift;
            for stream in &mut streams {
                stream.sort_unstable();
                for time in stream.iter_mut() {
                    *time <<= shift;
                }
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
