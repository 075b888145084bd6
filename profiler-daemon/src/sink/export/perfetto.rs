//! A trace for the Perfetto UI (protos/perfetto/trace of github.com/google/perfetto): a track a thread with
//! a slice for each time that it did something, a track a CPU with who was on it, and an arrow from each
//! thread that woke another one.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use prost::Message;

use super::{Export, Outcome, Run, state};
use crate::core::classify::Call;
use crate::core::{Comm, Culprit, Doing, Reason, Span, WakerKind};

/// All packets are of one sequence, within which names have numbers.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED` and `SEQ_NEEDS_INCREMENTAL_STATE` (`trace_packet.proto`).
const STATE_CLEARED: u32 = 1;
const NEEDS_STATE: u32 = 2;
/// `TYPE_SLICE_BEGIN`, `TYPE_SLICE_END` and `TYPE_INSTANT` (`track_event.proto`).
const BEGIN: i32 = 1;
const END: i32 = 2;
const INSTANT: i32 = 3;

/// Tracks of processes and of CPUs have numbers from here on; those of threads count from one.
const PROCESS_TRACKS: u64 = 1 << 60;
const CPU_TRACKS: u64 = 1 << 61;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 18;

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, tag = "10")]
    sequence: u32,
    #[prost(message, optional, tag = "11")]
    event: Option<Event>,
    #[prost(message, optional, tag = "12")]
    interned: Option<Interned>,
    #[prost(uint32, tag = "13")]
    flags: u32,
    #[prost(message, optional, tag = "60")]
    track: Option<Track>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(int32, tag = "9")]
    kind: i32,
    #[prost(uint64, optional, tag = "10")]
    name: Option<u64>,
    #[prost(uint64, tag = "11")]
    track: u64,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    flows: Vec<u64>,
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    ending_flows: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Interned {
    #[prost(message, repeated, tag = "2")]
    names: Vec<Name>,
}

#[derive(Clone, PartialEq, Message)]
struct Name {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Track {
    #[prost(uint64, tag = "1")]
    uuid: u64,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(message, optional, tag = "3")]
    process: Option<Process>,
    #[prost(message, optional, tag = "4")]
    thread: Option<Thread>,
}

#[derive(Clone, PartialEq, Message)]
struct Process {
    #[prost(int32, tag = "1")]
    pid: i32,
    #[prost(string, tag = "6")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Thread {
    #[prost(int32, tag = "1")]
    pid: i32,
    #[prost(int32, tag = "2")]
    tid: i32,
    #[prost(string, tag = "5")]
    name: String,
}

/// What a slice is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Called {
    State(&'static str),
    Wait(Reason, Call),
    /// On a CPU: whoever was on it.
    Thread(Comm),
}

/// Writes a trace.
pub struct Perfetto<'a, W> {
    out: W,
    run: Run<'a>,
    buffer: Vec<u8>,
    names: HashMap<Called, u64>,
    /// Threads by their numbers in the run: their ids and names as they were last told.
    threads: HashMap<u64, (u32, Comm)>,
    /// Numbers of the threads that had these ids last.
    by_tid: HashMap<u32, u64>,
    processes: Vec<u32>,
    /// By number: in a damaged recording that may be any.
    cpus: HashSet<usize>,
    /// Arrows to threads that have been woken and are not on a CPU yet.
    flows: HashMap<u64, u64>,
    next_flow: u64,
}

impl<'a, W: Write> Perfetto<'a, W> {
    /// Begins a trace.
    #[must_use]
    pub fn new(out: W, run: Run<'a>) -> Self {
        let mut trace = Self {
            out,
            run,
            buffer: Vec::with_capacity(BUFFER * 2),
            names: HashMap::new(),
            threads: HashMap::new(),
            by_tid: HashMap::new(),
            processes: Vec::new(),
            cpus: HashSet::new(),
            flows: HashMap::new(),
            next_flow: 1,
        };
        trace.packet(Packet {
            flags: STATE_CLEARED,
            ..Packet::default()
        });
        trace
    }

    fn packet(&mut self, packet: Packet) {
        let packet = Packet {
            sequence: SEQUENCE,
            ..packet
        };
        // A trace is nothing but its packets, one after the other.
        prost::encoding::message::encode(1, &packet, &mut self.buffer);
    }

    fn event(&mut self, timestamp_ns: u64, event: Event) {
        self.packet(Packet {
            timestamp: Some(timestamp_ns),
            event: Some(event),
            flags: NEEDS_STATE,
            ..Packet::default()
        });
    }

    fn slice(&mut self, time_ns: (u64, u64), track: u64, name: u64, ending_flows: Vec<u64>) {
        let begin = Event {
            kind: BEGIN,
            name: Some(name),
            track,
            ending_flows,
            ..Event::default()
        };
        self.event(time_ns.0, begin);
        let end = Event {
            kind: END,
            track,
            ..Event::default()
        };
        self.event(time_ns.1, end);
    }

    /// The number of a name, which is told when it is first used.
    fn name(&mut self, called: Called, text: impl FnOnce() -> String) -> u64 {
        if let Some(&number) = self.names.get(&called) {
            return number;
        }
        let number = self.names.len() as u64 + 1;
        self.names.insert(called, number);
        let name = Name {
            number,
            name: text(),
        };
        self.packet(Packet {
            interned: Some(Interned { names: vec![name] }),
            flags: NEEDS_STATE,
            ..Packet::default()
        });
        number
    }

    fn tell_track(&mut self, track: Track) {
        self.packet(Packet {
            track: Some(track),
            ..Packet::default()
        });
    }

    /// The track of a thread, which is told when it is first used and when its name changes.
    fn thread_track(&mut self, span: &Span) -> u64 {
        let uuid = span.serial + 1;
        let told = (span.tid, span.comm);
        if self.threads.insert(span.serial, told) != Some(told) {
            self.by_tid.insert(span.tid, span.serial);
            if !self.processes.contains(&span.tgid) {
                self.processes.push(span.tgid);
            }
            self.tell_track(Track {
                uuid,
                thread: Some(Thread {
                    pid: span.tgid.cast_signed(),
                    tid: span.tid.cast_signed(),
                    name: span.comm.display(),
                }),
                ..Track::default()
            });
        }
        uuid
    }

    /// Who was on a CPU, on that CPU's track.
    fn on_cpu(&mut self, span: &Span, cpu: usize) {
        let uuid = CPU_TRACKS + cpu as u64;
        if self.cpus.insert(cpu) {
            self.tell_track(Track {
                uuid,
                name: Some(format!("CPU {cpu}")),
                ..Track::default()
            });
        }
        let name = self.name(Called::Thread(span.comm), || span.comm.display());
        self.slice((span.from_ns, span.until_ns), uuid, name, Vec::new());
    }

    /// Draws the beginning of an arrow where a thread ended the wait of another one.
    fn woken(&mut self, span: &Span) {
        if span.waker.kind != WakerKind::Thread {
            return;
        }
        let Some(&waker) = self.by_tid.get(&span.waker.number) else {
            return;
        };
        let flow = self.next_flow;
        self.next_flow += 1;
        self.flows.insert(span.serial, flow);
        let name = self.name(Called::State("wakes"), || "wakes".to_owned());
        let event = Event {
            kind: INSTANT,
            name: Some(name),
            track: waker + 1,
            flows: vec![flow],
            ..Event::default()
        };
        self.event(span.until_ns, event);
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Export for Perfetto<'_, W> {
    fn span(&mut self, span: &Span, _: &[Culprit]) -> io::Result<()> {
        let track = self.thread_track(span);
        let called = match span.doing {
            Doing::Blocked(wait) => Called::Wait(wait.reason, wait.call),
            doing => Called::State(state(&doing)),
        };
        let name = self.name(called, || match span.doing {
            Doing::Blocked(wait) => wait.name(),
            doing => state(&doing).to_owned(),
        });
        let arrows = match span.doing {
            Doing::Running => self.flows.remove(&span.serial).into_iter().collect(),
            _ => Vec::new(),
        };
        self.slice((span.from_ns, span.until_ns), track, name, arrows);
        if let Some(cpu) = span.cpu {
            self.on_cpu(span, cpu);
        }
        if matches!(span.doing, Doing::Blocked(_)) {
            self.woken(span);
        }
        if self.buffer.len() >= BUFFER {
            self.write_out()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &Outcome<'_>) -> io::Result<()> {
        for tgid in std::mem::take(&mut self.processes) {
            let process = self.run.facts.processes.get(&tgid);
            self.tell_track(Track {
                uuid: PROCESS_TRACKS + u64::from(tgid),
                process: Some(Process {
                    pid: tgid.cast_signed(),
                    name: process.map_or_else(String::new, |its| its.name.clone()),
                }),
                ..Track::default()
            });
        }
        self.write_out()?;
        self.out.flush()
    }
}
