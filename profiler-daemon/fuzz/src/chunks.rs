//! Any chunks of a recording, with the right checksums around them, which a fuzzer does not guess.
//!
//! The bytes are chunks one after the other: kind, packing, how many bytes the content has (two bytes) and how
//! far what the head says of that is off, streams, records, and from when until when in microseconds (four bytes
//! each); then the content. If the first one is no header, one that can be read comes before it.

use profiler_ebpf::WIRE_VERSION;
use schedscope::core::Selector;
use schedscope::recording::Header;
use schedscope::recording::facts::Target;
use schedscope::recording::format::{CHUNK_MAGIC, ChunkHead, ChunkKind, FileHead};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::bytes::Bytes;
use super::recording::report;

/// Takes the bytes as chunks.
///
/// # Panics
///
/// If reading them does, or their figures don't sum up.
pub fn run(data: &[u8]) {
    report(&file(data), data.len());
}

/// A file with these chunks.
#[must_use]
pub fn file(data: &[u8]) -> Vec<u8> {
    let mut bytes = Bytes(data);
    let mut file = FileHead::current().as_bytes().to_vec();
    let mut number = 0;
    if data.first() != Some(&(ChunkKind::Header as u8)) {
        let header = serde_json::to_vec(&header()).expect("it can be told as JSON");
        let mut head = ChunkHead::new_zeroed();
        head.kind = ChunkKind::Header as u8;
        append(&mut file, &mut number, head, &header, 0);
    }
    while !bytes.is_empty() {
        let mut head = ChunkHead::new_zeroed();
        (head.kind, head.packing) = (bytes.u8(), bytes.u8());
        let length = bytes.u16();
        let off_by = bytes.u8();
        head.streams = U16::new(bytes.u8().into());
        head.records = U32::new(bytes.u8().into());
        head.from_ns = U64::new(u64::from(bytes.u32()) * 1_000);
        head.until_ns = U64::new(u64::from(bytes.u32()) * 1_000);
        let content = bytes.take(length.into());
        append(&mut file, &mut number, head, content, off_by);
    }
    file
}

/// What [`file`] makes a chunk of this kind and content from.
#[must_use]
pub fn chunk(head: &ChunkHead, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a small chunk");
    let us = |ns: U64| {
        u32::try_from(ns.get() / 1_000)
            .unwrap_or(u32::MAX)
            .to_le_bytes()
    };
    let mut bytes = vec![head.kind, 0];
    bytes.extend(length.to_le_bytes());
    bytes.extend([
        0,
        head.streams.get().to_le_bytes()[0],
        head.records.get().to_le_bytes()[0],
    ]);
    bytes.extend(us(head.from_ns));
    bytes.extend(us(head.until_ns));
    bytes.extend(content);
    bytes
}

fn append(file: &mut Vec<u8>, number: &mut u32, mut head: ChunkHead, packed: &[u8], off_by: u8) {
    let length = u32::try_from(packed.len()).expect("a small chunk");
    head.magic = CHUNK_MAGIC;
    head.packed_bytes = U32::new(length);
    // Of compressed content it must be known how long it is before.
    head.content_bytes = U32::new(length.wrapping_add(u32::from(off_by) * 251));
    head.number = U32::new(*number);
    head.content_crc = U32::new(crc32fast::hash(packed));
    head.crc = U32::new(head.checksum());
    file.extend(head.as_bytes());
    file.extend(packed);
    *number += 1;
}

/// Of a run of everybody.
#[must_use]
pub fn header() -> Header {
    let target = |kind: &str, selector| Target {
        kind: kind.to_owned(),
        value: kind.to_owned(),
        selector,
    };
    Header {
        version: "1".to_owned(),
        wire_version: WIRE_VERSION,
        arch: std::env::consts::ARCH.to_owned(),
        host: "host".to_owned(),
        boot_id: String::new(),
        kernel: "6.18.0".to_owned(),
        cpus: 3,
        clock: "run-queue".to_owned(),
        start_unix_ns: 1_700_000_000_000_000_000,
        start_ns: 0,
        wakeups: true,
        targets: vec![
            target("pid", Selector::Pid(1)),
            target("host", Selector::All),
        ],
    }
}
