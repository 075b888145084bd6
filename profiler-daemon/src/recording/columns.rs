//! Records by field instead of by record, each as its difference to what was to be expected: what is
//! foreseen becomes a zero, and zeros cost nothing once a chunk is compressed.
//!
//! One function a kind of record says what is expected of each field. It serves both ways: for a
//! [`Writer`] it is given the record and puts the differences into columns, for a [`Reader`] it makes the
//! record from them. What is expected follows only from the records before in the same chunk, so both see
//! the same.

use profiler_ebpf::{KIND_OFFSET, Migrate, RECORD_BYTES, RawRecord, Switch, Wakeup, Waking};

use super::varint;
use crate::core::decode::Event;

/// The columns. What a number stands for never changes within a version of the format.
#[derive(Clone, Copy, Debug)]
enum Column {
    /// Which kind each record is; 0 for one that is kept whole.
    Kind,
    Time,
    Delay,
    Prev,
    Next,
    Runs,
    State,
    Call,
    Flags,
    Woken,
    Waker,
    Vector,
    Context,
    Cpu,
    FromCpu,
    /// Records that are kept whole, byte by byte.
    Whole,
}

/// How many columns there are.
pub(super) const COLUMNS: usize = Column::Whole as usize + 1;

/// Threads that something is remembered of. Two that share a place only make worse guesses.
const PLACES: usize = 1 << 12;

/// What is remembered of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    /// All its run-queue delay at its last switch-in.
    delay_ns: u64,
    /// What its last switch-in read of `sched_info.pcount`.
    runs: u16,
    /// How it last left a CPU.
    state: u16,
    call: u16,
    flags: u8,
    /// Who came after it when it last left a CPU, and whom it last woke.
    successor: u32,
    woke: u32,
}

/// What is remembered of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    ts_ns: u64,
    running: u32,
    woken: u32,
    woken_to: u32,
}

/// What the records so far let expect of the next one.
#[derive(Debug)]
pub(super) struct Model {
    tasks: Vec<Task>,
    cpus: Vec<Cpu>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            tasks: vec![Task::default(); PLACES],
            cpus: Vec::new(),
        }
    }

    /// Forgets everything: a chunk begins.
    pub(super) fn clear(&mut self) {
        self.tasks.fill(Task::default());
        self.cpus.clear();
    }

    fn task(&mut self, tid: u32) -> &mut Task {
        &mut self.tasks[tid as usize % PLACES]
    }

    /// Makes room for this many streams.
    pub(super) fn expect(&mut self, streams: usize) {
        if self.cpus.len() < streams {
            self.cpus.resize(streams, Cpu::default());
        }
    }
}

/// The columns ended before the records did, or hold what no writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One way or the other.
trait Coder {
    /// The field's value: when writing it is `actual`, when reading it comes from the column.
    fn number(&mut self, column: Column, actual: u64, expected: u64) -> Result<u64, Malformed>;

    fn u32(&mut self, column: Column, actual: u32, expected: u32) -> Result<u32, Malformed> {
        let value = self.number(column, actual.into(), expected.into())?;
        u32::try_from(value).map_err(|_| Malformed)
    }

    fn u16(&mut self, column: Column, actual: u16, expected: u16) -> Result<u16, Malformed> {
        let value = self.number(column, actual.into(), expected.into())?;
        u16::try_from(value).map_err(|_| Malformed)
    }

    fn u8(&mut self, column: Column, actual: u8, expected: u8) -> Result<u8, Malformed> {
        let value = self.number(column, actual.into(), expected.into())?;
        u8::try_from(value).map_err(|_| Malformed)
    }
}

/// Puts records into columns.
#[derive(Debug, Default)]
pub(super) struct Writer {
    columns: [Vec<u8>; COLUMNS],
}

impl Coder for Writer {
    #[inline]
    fn number(&mut self, column: Column, actual: u64, expected: u64) -> Result<u64, Malformed> {
        let difference = varint::zigzag(actual.wrapping_sub(expected));
        varint::put(&mut self.columns[column as usize], difference);
        Ok(actual)
    }
}

impl Writer {
    /// Adds a record of this stream.
    pub(super) fn add(&mut self, model: &mut Model, stream: usize, raw: &RawRecord) {
        let kind = match Event::decode(raw) {
            Ok(event) if is_plain(&event) => event.kind() as u8,
            _ => 0,
        };
        self.columns[Column::Kind as usize].push(kind);
        if kind == 0 {
            self.columns[Column::Whole as usize].extend_from_slice(&raw.0);
            return;
        }
        // A writer has an answer to everything.
        let _ = code(self, model, stream, kind, raw);
    }

    /// The columns, in the order of their numbers.
    pub(super) fn columns(&self) -> &[Vec<u8>; COLUMNS] {
        &self.columns
    }

    /// Bytes in all columns.
    pub(super) fn len(&self) -> usize {
        self.columns.iter().map(Vec::len).sum()
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Vec::clear);
    }
}

/// Makes records from columns.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    columns: [&'a [u8]; COLUMNS],
}

impl Coder for Reader<'_> {
    #[inline]
    fn number(&mut self, column: Column, _: u64, expected: u64) -> Result<u64, Malformed> {
        let difference = varint::take(&mut self.columns[column as usize]).ok_or(Malformed)?;
        Ok(expected.wrapping_add(varint::unzigzag(difference)))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(columns: [&'a [u8]; COLUMNS]) -> Self {
        Self { columns }
    }

    /// The next record, which is of this stream.
    pub(super) fn take(
        &mut self,
        model: &mut Model,
        stream: usize,
    ) -> Result<RawRecord, Malformed> {
        let kinds = &mut self.columns[Column::Kind as usize];
        let (&kind, rest) = kinds.split_first().ok_or(Malformed)?;
        *kinds = rest;
        if kind == 0 {
            let whole = &mut self.columns[Column::Whole as usize];
            let (bytes, rest) = whole.split_first_chunk::<RECORD_BYTES>().ok_or(Malformed)?;
            *whole = rest;
            return Ok(RawRecord(*bytes));
        }
        let mut raw = RawRecord([0; RECORD_BYTES]);
        raw.0[KIND_OFFSET] = kind;
        code(self, model, stream, kind, &raw)
    }
}

/// Whether a record is of a frequent kind and has nothing where nothing belongs.
fn is_plain(event: &Event) -> bool {
    match event {
        Event::Switch(_) => true,
        Event::Wakeup(wakeup) => wakeup._pad == [0; 15],
        Event::Waking(waking) => waking._pad == [0; 8],
        Event::Migrate(migrate) => migrate._pad == [0; 9],
        _ => false,
    }
}

#[inline]
fn code(
    coder: &mut impl Coder,
    model: &mut Model,
    stream: usize,
    kind: u8,
    raw: &RawRecord,
) -> Result<RawRecord, Malformed> {
    let event = Event::decode(raw).map_err(|_| Malformed)?;
    debug_assert_eq!(event.kind() as u8, kind);
    let mut cpu = *model.cpus.get(stream).ok_or(Malformed)?;
    let ts_ns = coder.number(Column::Time, event.ts_ns(), cpu.ts_ns)?;
    cpu.ts_ns = ts_ns;
    let event = match event {
        Event::Switch(record) => {
            Event::Switch(switch(coder, model, &mut cpu, Switch { ts_ns, ..record })?)
        }
        Event::Wakeup(record) => {
            Event::Wakeup(wakeup(coder, &mut cpu, Wakeup { ts_ns, ..record })?)
        }
        Event::Waking(record) => {
            Event::Waking(waking(coder, model, &mut cpu, Waking { ts_ns, ..record })?)
        }
        Event::Migrate(record) => Event::Migrate(migrate(
            coder,
            model,
            &mut cpu,
            Migrate { ts_ns, ..record },
        )?),
        _ => return Err(Malformed),
    };
    model.cpus[stream] = cpu;
    Ok(event.encode())
}

fn switch(
    coder: &mut impl Coder,
    model: &mut Model,
    cpu: &mut Cpu,
    record: Switch,
) -> Result<Switch, Malformed> {
    // Who leaves is who came last.
    let prev_tid = coder.u32(Column::Prev, record.prev_tid, cpu.running)?;
    let prev = *model.task(prev_tid);
    let next_tid = coder.u32(Column::Next, record.next_tid, prev.successor)?;
    let next = *model.task(next_tid);
    let next_delay_ns = coder.number(Column::Delay, record.next_delay_ns, next.delay_ns)?;
    let next_runs = coder.u16(Column::Runs, record.next_runs, next.runs.wrapping_add(1))?;
    let prev_state = coder.u16(Column::State, record.prev_state, prev.state)?;
    let prev_syscall = coder.u16(Column::Call, record.prev_syscall, prev.call)?;
    let flags = coder.u8(Column::Flags, record.flags, prev.flags)?;
    cpu.running = next_tid;
    *model.task(prev_tid) = Task {
        state: prev_state,
        call: prev_syscall,
        flags,
        successor: next_tid,
        ..prev
    };
    let next = model.task(next_tid);
    next.delay_ns = next_delay_ns;
    next.runs = next_runs;
    Ok(Switch {
        next_delay_ns,
        prev_tid,
        next_tid,
        prev_state,
        next_runs,
        prev_syscall,
        flags,
        ..record
    })
}

fn waking(
    coder: &mut impl Coder,
    model: &mut Model,
    cpu: &mut Cpu,
    record: Waking,
) -> Result<Waking, Malformed> {
    let waker_tid = coder.u32(Column::Waker, record.waker_tid, cpu.running)?;
    let waker = *model.task(waker_tid);
    let tid = coder.u32(Column::Woken, record.tid, waker.woke)?;
    let next_runs = model.task(tid).runs.wrapping_add(1);
    let runs = coder.u16(Column::Runs, record.runs, next_runs)?;
    let vector = coder.u32(Column::Vector, record.vector, 0)?;
    let context = coder.u8(Column::Context, record.context, 0)?;
    model.task(waker_tid).woke = tid;
    cpu.woken = tid;
    Ok(Waking {
        tid,
        waker_tid,
        vector,
        runs,
        context,
        ..record
    })
}

fn wakeup(coder: &mut impl Coder, cpu: &mut Cpu, record: Wakeup) -> Result<Wakeup, Malformed> {
    // It follows the waking of the same thread.
    let tid = coder.u32(Column::Woken, record.tid, cpu.woken)?;
    let to = coder.u32(Column::Cpu, record.cpu, cpu.woken_to)?;
    cpu.woken_to = to;
    Ok(Wakeup {
        tid,
        cpu: to,
        ..record
    })
}

fn migrate(
    coder: &mut impl Coder,
    model: &mut Model,
    cpu: &mut Cpu,
    record: Migrate,
) -> Result<Migrate, Malformed> {
    let tid = coder.u32(Column::Woken, record.tid, cpu.woken)?;
    let from_cpu = coder.u32(Column::FromCpu, record.from_cpu, 0)?;
    let to_cpu = coder.u32(Column::Cpu, record.to_cpu, cpu.woken_to)?;
    let next_runs = model.task(tid).runs.wrapping_add(1);
    let runs = coder.u16(Column::Runs, record.runs, next_runs)?;
    cpu.woken_to = to_cpu;
    Ok(Migrate {
        tid,
        from_cpu,
        to_cpu,
        runs,
        ..record
    })
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Malformed, Model, Reader, Writer};
    use profiler_ebpf::{KIND_OFFSET, Kind, RECORD_BYTES, RawRecord};
    use proptest::prelude::*;

    /// Records of all kinds with anything in them, few threads and some padding.
    fn records() -> impl Strategy<Value = Vec<(usize, RawRecord)>> {
        let record = (
            0usize..4,
            0u8..14,
            any::<[u8; RECORD_BYTES]>(),
            any::<bool>(),
        )
            .prop_map(|(stream, kind, mut bytes, is_clean)| {
                if is_clean {
                    // Small numbers, and nothing in the padding of the frequent kinds.
                    bytes = bytes.map(|byte| byte & 3);
                    bytes[22..KIND_OFFSET].fill(0);
                }
                bytes[KIND_OFFSET] = kind;
                (stream, RawRecord(bytes))
            });
        prop::collection::vec(record, 0..200)
    }

    fn columns(writer: &Writer) -> [&[u8]; COLUMNS] {
        writer.columns().each_ref().map(Vec::as_slice)
    }

    proptest! {
        #[test]
        fn records_come_back_bit_by_bit(records in records()) {
            let mut model = Model::new();
            model.expect(4);
            let mut writer = Writer::default();
            for (stream, raw) in &records {
                writer.add(&mut model, *stream, raw);
            }
            model.clear();
            model.expect(4);
            let mut reader = Reader::new(columns(&writer));
            for (stream, raw) in &records {
                prop_assert_eq!(reader.take(&mut model, *stream), Ok(*raw));
            }
            prop_assert_eq!(reader.take(&mut model, 0), Err(Malformed));
        }

        #[test]
        fn any_columns_break_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            kinds in prop::collection::vec(0u8..14, 0..50),
        ) {
            let mut model = Model::new();
            model.expect(2);
            let mut columns = [&bytes[..]; COLUMNS];
            columns[0] = &kinds;
            let mut reader = Reader::new(columns);
            for place in 0..60 {
                let _ = reader.take(&mut model, place % 3);
            }
        }
    }

    #[test]
    fn the_frequent_kinds_are_not_kept_whole() {
        for kind in Kind::ALL {
            let mut raw = RawRecord([0; RECORD_BYTES]);
            raw.0[KIND_OFFSET] = kind as u8;
            let mut model = Model::new();
            model.expect(1);
            let mut writer = Writer::default();
            writer.add(&mut model, 0, &raw);
            let is_frequent = matches!(
                kind,
                Kind::Switch | Kind::Wakeup | Kind::Waking | Kind::Migrate
            );
            assert_eq!(writer.len() < RECORD_BYTES, is_frequent, "{kind:?}");
        }
    }
}
