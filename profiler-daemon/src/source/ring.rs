//! The per-CPU rings, mapped.

use std::{io, mem::offset_of, ops::Range, os::fd::AsFd};

use profiler_ebpf::{
    RECORD_BYTES, RawRecord,
    ring::{
        COUNTERS, DROPPED, GAP_FROM, GAP_LOST, GAP_UNTIL, HEAD, HEADER_BYTES, KEEP, SHED,
        SHED_COUNTERS, TAIL,
    },
};

use crate::core::merge::Stream;

use super::{
    map::Mapping,
    protocol::{self, Arrival, Consumer, Header, Ready, Slot},
    sync::Ordering,
};

// The contract says where the fields are; the structs say how they are reached.
const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(offset_of!(Header, head) == HEAD);
    assert!(offset_of!(Header, gap_from) == GAP_FROM);
    assert!(offset_of!(Header, gap_until) == GAP_UNTIL);
    assert!(offset_of!(Header, gap_lost) == GAP_LOST);
    assert!(offset_of!(Header, dropped) == DROPPED);
    assert!(offset_of!(Header, shed) == SHED);
    assert!(offset_of!(Header, tail) == TAIL);
    assert!(offset_of!(Header, keep) == KEEP);
    assert!(protocol::COUNTERS == COUNTERS);
    assert!(protocol::SHED_COUNTERS == SHED_COUNTERS);
    assert!(size_of::<Slot>() == RECORD_BYTES);
    assert!(size_of::<Slot>() == size_of::<RawRecord>());
    assert!(align_of::<Slot>() == align_of::<RawRecord>());
};

/// How this machine's stores become visible; see `protocol`.
const ARRIVAL: Arrival = if cfg!(target_arch = "x86_64") {
    Arrival::ByHead
} else {
    Arrival::ByContent
};

/// The mapped memory of all rings.
#[derive(Debug)]
struct Memory {
    headers: Mapping,
    slots: Mapping,
    /// Records in one ring, a power of two.
    records: usize,
}

impl Memory {
    fn header(&self, cpu: usize) -> &Header {
        let start = self.headers.start().cast::<Header>();
        // SAFETY: The mapping is aligned to a page and lives as long as the borrow. Headers are atomics
        // throughout, so the kernel may write to them meanwhile.
        let headers = unsafe {
            std::slice::from_raw_parts(start.as_ptr(), self.headers.bytes() / HEADER_BYTES)
        };
        &headers[cpu]
    }

    fn slots(&self, cpu: usize) -> &[Slot] {
        let start = self.slots.start().cast::<Slot>();
        // SAFETY: As for the headers.
        let slots = unsafe {
            std::slice::from_raw_parts(start.as_ptr(), self.slots.bytes() / RECORD_BYTES)
        };
        &slots[cpu * self.records..][..self.records]
    }

    /// Records that the consumer found and has not yet given back.
    fn records(&self, cpu: usize, range: Range<usize>) -> &[RawRecord] {
        let slots = &self.slots(cpu)[range];
        // SAFETY: A slot has the size and alignment of a record, and every bit pattern is one. The probes
        // don't write to a slot before its ring's tail has passed it, and the tail is only moved by
        // `give_back`, which needs the rings for itself alone while this borrow shares them.
        unsafe { std::slice::from_raw_parts(slots.as_ptr().cast::<RawRecord>(), slots.len()) }
    }
}

/// All CPUs' rings.
#[derive(Debug)]
pub(crate) struct Rings {
    memory: Memory,
    consumers: Vec<Consumer>,
    /// What the last poll found.
    ready: Vec<Ready>,
    /// The most that was found waiting in one ring since it was last asked for.
    high_water: usize,
}

impl Rings {
    /// Maps the rings of `cpus` CPUs, each `records` long, before anything writes to them.
    pub(crate) fn map(
        headers: impl AsFd,
        slots: impl AsFd,
        cpus: usize,
        records: usize,
    ) -> io::Result<Self> {
        let headers = Mapping::new(headers, cpus * HEADER_BYTES)?;
        let slots = Mapping::new(slots, cpus * records * RECORD_BYTES)?;
        let memory = Memory {
            headers,
            slots,
            records,
        };
        let consumers = (0..cpus)
            .map(|cpu| Consumer::new(ARRIVAL, memory.slots(cpu)))
            .collect();
        Ok(Self {
            memory,
            consumers,
            ready: vec![Ready::default(); cpus],
            high_water: 0,
        })
    }

    /// How many rings there are.
    pub(crate) fn cpus(&self) -> usize {
        self.consumers.len()
    }

    /// Looks for new records in all rings.
    pub(crate) fn poll(&mut self) {
        for (cpu, consumer) in self.consumers.iter_mut().enumerate() {
            let ready = consumer.poll(self.memory.header(cpu), self.memory.slots(cpu));
            self.high_water = self.high_water.max(ready.len());
            self.ready[cpu] = ready;
        }
    }

    /// What the last poll found, and is not yet given back.
    pub(crate) fn streams(&self) -> impl Iterator<Item = Stream<'_>> {
        self.ready.iter().enumerate().map(|(cpu, ready)| Stream {
            first: self.memory.records(cpu, ready.first.clone()),
            second: self.memory.records(cpu, ready.second.clone()),
        })
    }

    /// Gives the oldest records of a ring, which the last poll found, back to the probes.
    pub(crate) fn give_back(&mut self, cpu: usize, used: usize) {
        self.ready[cpu] = Ready::default();
        let slots = self.memory.slots(cpu);
        self.consumers[cpu].give_back(self.memory.header(cpu), slots, used);
    }

    /// The loss counters of one CPU, in the order of `profiler_ebpf::ring::Counter`.
    pub(crate) fn dropped(&self, cpu: usize) -> [u64; COUNTERS] {
        self.memory
            .header(cpu)
            .dropped
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Records of one CPU that were left out on purpose, in the order of `profiler_ebpf::ring::Shed`.
    pub(crate) fn shed(&self, cpu: usize) -> [u64; SHED_COUNTERS] {
        self.memory
            .header(cpu)
            .shed
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Has the probes write the records of those threads only that are kept with this mask. A probe that runs
    /// after this has returned knows it.
    pub(crate) fn keep(&self, mask: u32) {
        for cpu in 0..self.cpus() {
            let keep = &self.memory.header(cpu).keep;
            // Before any later look at a clock, which tells what comes after it.
            keep.store(u64::from(mask), Ordering::SeqCst);
        }
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Losses of one CPU that no gap record tells of yet: the times of the first and of the last record
    /// that was lost.
    pub(crate) fn open_gap(&self, cpu: usize) -> Option<(u64, u64)> {
        let header = self.memory.header(cpu);
        (header.gap_lost.load(Ordering::Relaxed) != 0).then(|| {
            let from_ns = header.gap_from.load(Ordering::Relaxed);
            (
                from_ns,
                header.gap_until.load(Ordering::Relaxed).max(from_ns),
            )
        })
    }

    /// The fullest that a ring was found since this was last asked, from 0 to 1.
    pub(crate) fn take_fill(&mut self) -> f64 {
        // Rings are far smaller than what a float counts exactly.
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
        let fill = self.high_water as f64 / self.memory.records as f64;
        self.high_water = 0;
        fill
    }
}
