//! Anything that a core can be given, in any order: its books balance at every moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use profiler_ebpf::{KIND_OFFSET, RECORD_BYTES, RawRecord, ThreadRecord};
use schedscope::core::classify::{FileKind, Stack};
use schedscope::core::decode::Event;
use schedscope::core::{Core, Seen, Selector, Snapshot, Stream, TargetSpec, UnitNews, UnitNumber};
use wildmatch::WildMatch;
use zerocopy::{FromZeros, IntoBytes};

use super::balance::{check_books, check_parts};
use super::bytes::Bytes;

/// Calls of a core in one run: each costs a look at all its figures.
const MOST_CALLS: usize = 64;

/// Takes the bytes as calls of a core.
///
/// # Panics
///
/// If it panics, or its figures don't sum up.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut core = Core::new(targets(bytes.u8()));
    let mut before: Option<Snapshot> = None;
    for _ in 0..MOST_CALLS {
        if bytes.is_empty() {
            break;
        }
        if call(&mut core, &mut bytes) == Window::BeginsAnew {
            before = None;
        }
        let snapshot = core.snapshot();
        check_books(&snapshot);
        if let Some(before) = &before {
            check_parts(&snapshot.since(before));
        }
        before = Some(snapshot);
        look(&mut core);
    }
    core.feed(&[], u64::MAX);
    check_books(&core.snapshot());
    // From now on totals have more in them than the threads that are listed.
    core.forget_ended();
    let _ = core.snapshot();
}

/// Whether figures go on.
#[derive(PartialEq, Eq)]
enum Window {
    GoesOn,
    BeginsAnew,
}

fn call(core: &mut Core, bytes: &mut Bytes<'_>) -> Window {
    match bytes.below(16) {
        0 => {
            let threads: Vec<ThreadRecord> = (0..bytes.below(8)).map(|_| thread(bytes)).collect();
            let from_ns = core.watermark_ns().saturating_add(bytes.number());
            core.found(&threads, from_ns..=from_ns.saturating_add(bytes.number()));
        }
        1 => core.doubt(usize::from(bytes.u16()), bytes.number(), bytes.number()),
        2 => core.seen([seen(bytes)]),
        3 => core.seen_waiting([seen(bytes)]),
        4 => {
            core.begin_window();
            return Window::BeginsAnew;
        }
        5 => {
            core.retarget(targets(bytes.u8()));
            return Window::BeginsAnew;
        }
        6 => core.join(usize::from(bytes.below(4)), &BTreeSet::from([bytes.tid()])),
        7 => core.untold_quotas(BTreeSet::from([u64::from(bytes.below(4))])),
        8 => core.keep_units(),
        9 => core.learn_units(&news(bytes)),
        10 | 11 => core.keep_trail(),
        _ => feed(core, bytes),
    }
    Window::GoesOn
}

/// All other questions that it can be asked.
fn look(core: &mut Core) {
    let _ = (core.threads_now(), core.longest_open(), core.open_trail());
    let _ = (core.delays_above(1_000), core.has_unexplained_wait(1_000));
    let _ = (core.take_births(), core.take_trail(), core.watches_all());
    assert!(core.watched().count() <= core.threads() + 3);
    assert_eq!(core.processes().count(), core.threads());
}

fn feed(core: &mut Core, bytes: &mut Bytes<'_>) {
    let base_ns = core.watermark_ns();
    let streams: Vec<Vec<RawRecord>> = (0..=bytes.below(4))
        .map(|_| {
            let mut at_ns = base_ns;
            let count = bytes.below(24);
            (0..count).map(|_| record(bytes, &mut at_ns)).collect()
        })
        .collect();
    let views: Vec<Stream<'_>> = streams.iter().map(|stream| Stream::new(stream)).collect();
    let until_ns = match bytes.u16() {
        u16::MAX => bytes.u64(),
        step => base_ns.saturating_add(step.into()),
    };
    let used = core.feed(&views, until_ns);
    for (used, stream) in used.iter().zip(&streams) {
        assert!(*used <= stream.len(), "{used} of {} records", stream.len());
    }
}

fn targets(choice: u8) -> Vec<TargetSpec> {
    let all = [
        Selector::Pid(1),
        Selector::Tid(3),
        Selector::Comm(WildMatch::new("a*")),
        Selector::Tree(BTreeSet::from([2, 4])),
        Selector::Command(5),
        Selector::CommandTree(6),
        Selector::All,
    ];
    let chosen = all
        .into_iter()
        .enumerate()
        .filter(|(number, _)| choice >> number & 1 == 1);
    chosen
        .take(3)
        .map(|(number, selector)| TargetSpec {
            name: number.to_string(),
            selector,
            per_thread: true,
        })
        .collect()
}

/// A record; its time is most often a little after the last one's.
fn record(bytes: &mut Bytes<'_>, at_ns: &mut u64) -> RawRecord {
    let kind = bytes.u8();
    if kind & 0x80 != 0 {
        let mut raw = RawRecord(bytes.array::<RECORD_BYTES>());
        raw.0[KIND_OFFSET] = kind & 0x1f;
        return raw;
    }
    *at_ns = at_ns.saturating_add(bytes.u8().into());
    let mut raw = RawRecord([0; RECORD_BYTES]);
    raw.0[..8].copy_from_slice(&at_ns.to_ne_bytes());
    raw.0[KIND_OFFSET] = kind % 16;
    let Ok(event) = Event::decode(&raw) else {
        return raw;
    };
    fill(event, bytes).encode()
}

/// The event with something in its fields that makes it meet others.
fn fill(event: Event, bytes: &mut Bytes<'_>) -> Event {
    match event {
        Event::Switch(mut its) => {
            (its.prev_tid, its.next_tid) = (bytes.tid(), bytes.tid());
            (its.prev_state, its.flags) = (word(bytes), bytes.u8());
            its.next_runs = bytes.below(8).into();
            its.next_delay_ns = bytes.number();
            its.prev_syscall = bytes.u8().into();
            Event::Switch(its)
        }
        Event::Wakeup(mut its) => {
            (its.tid, its.cpu) = (bytes.tid(), bytes.below(5).into());
            Event::Wakeup(its)
        }
        Event::Fork(mut its) => {
            (its.tid, its.tgid) = (bytes.tid(), bytes.tid());
            (its.parent_tid, its.cpu) = (bytes.tid(), bytes.below(5).into());
            (its.start_ns, its.flags) = (bytes.number(), bytes.below(32));
            Event::Fork(its)
        }
        Event::Gap(mut its) => {
            its.until_ns = its.ts_ns.saturating_add(bytes.number());
            its.lost = bytes.number();
            Event::Gap(its)
        }
        Event::Rename(mut its) => {
            (its.tid, its.comm) = (bytes.tid(), [b'a' + bytes.below(3); 16]);
            Event::Rename(its)
        }
        Event::Waking(mut its) => {
            (its.tid, its.waker_tid) = (bytes.tid(), bytes.tid());
            (its.context, its.vector) = (bytes.below(6), bytes.u8().into());
            its.runs = bytes.below(8).into();
            Event::Waking(its)
        }
        Event::Migrate(mut its) => {
            (its.tid, its.runs) = (bytes.tid(), bytes.below(8).into());
            (its.from_cpu, its.to_cpu) = (bytes.below(5).into(), bytes.below(5).into());
            Event::Migrate(its)
        }
        Event::Throttle(mut its) => {
            (its.cgroup, its.cpu) = (bytes.below(4).into(), bytes.below(5).into());
            (its.on, its.since_ns) = (bytes.below(2), bytes.number());
            Event::Throttle(its)
        }
        Event::CgroupMove(mut its) => {
            (its.cgroup, its.tid) = (bytes.below(4).into(), bytes.tid());
            its.whole_process = bytes.below(2);
            Event::CgroupMove(its)
        }
        Event::Throttled(mut its) => {
            (its.since_ns, its.until_ns) = (bytes.number(), bytes.number());
            its.tid = bytes.tid();
            Event::Throttled(its)
        }
        Event::Interrupts(mut its) => {
            its.spent_ns = [(); 4].map(|()| bytes.u16().into());
            (its.within_ns, its.cpu) = (bytes.u16().into(), bytes.below(5).into());
            Event::Interrupts(its)
        }
        // Of those without fields that would be worth it, any bytes.
        Event::Exec(_) | Event::Shed(_) => {
            let other = event;
            let mut raw = other.encode();
            raw.0[8..KIND_OFFSET].copy_from_slice(&bytes.array::<{ KIND_OFFSET - 8 }>());
            Event::decode(&raw).unwrap_or(other)
        }
    }
}

/// A state word.
fn word(bytes: &mut Bytes<'_>) -> u16 {
    match bytes.u8() {
        u8::MAX => bytes.u16(),
        0x10 => 0x2001,
        0x11 => 0x402,
        word => word.into(),
    }
}

fn thread(bytes: &mut Bytes<'_>) -> ThreadRecord {
    if bytes.below(8) == 0 {
        let mut thread = ThreadRecord::new_zeroed();
        let any = bytes.take(size_of::<ThreadRecord>());
        thread.as_mut_bytes()[..any.len()].copy_from_slice(any);
        return thread;
    }
    ThreadRecord {
        start_ns: bytes.below(4).into(),
        run_delay_ns: bytes.number(),
        comm: [b'a' + bytes.below(3); 16],
        tid: bytes.tid(),
        tgid: bytes.tid(),
        parent_tgid: bytes.tid(),
        state: word(bytes).into(),
        cpu: bytes.below(5).into(),
        runs: bytes.below(8).into(),
        flags: bytes.below(32),
        cpu_cgroup: bytes.below(4).into(),
        syscall: bytes.u8().into(),
        ..ThreadRecord::default()
    }
}

fn seen(bytes: &mut Bytes<'_>) -> Seen {
    let functions = ["futex_wait", "do_nanosleep", "io_schedule", "pipe_read"];
    let function = functions[usize::from(bytes.below(4))];
    Seen {
        tid: bytes.tid(),
        left_ns: bytes.number(),
        file: FileKind::ALL[usize::from(bytes.u8()) % FileKind::COUNT],
        stack: Arc::new(Stack::new(vec![function.to_owned()])),
        user_stack: (bytes.below(2) == 1).then_some(bytes.u8().into()),
    }
}

fn news(bytes: &mut Bytes<'_>) -> UnitNews {
    let number = |bytes: &mut Bytes<'_>| UnitNumber(bytes.u16() % (UnitNumber::MAX.0 + 2));
    UnitNews {
        closed: (0..bytes.below(2)).map(|_| number(bytes)).collect(),
        named: (0..bytes.below(3))
            .map(|_| (number(bytes), Arc::from("a.service")))
            .collect(),
        placed: (0..bytes.below(4))
            .map(|_| (bytes.tid(), number(bytes)))
            .collect(),
    }
}
