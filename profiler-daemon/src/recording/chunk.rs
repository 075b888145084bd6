//! One chunk: content to bytes and back.

use std::io;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    CHUNK_HEAD_BYTES, CHUNK_MAGIC, ChunkHead, ChunkKind, FILE_HEAD_BYTES, MAX_CONTENT, Packing,
};

/// How hard zstd tries. Most of what can be saved is saved by the columns already.
const LEVEL: i32 = 1;

/// A chunk as it goes into a file, but for its number there.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
}

/// What a chunk's head says of its content.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) streams: usize,
    pub(super) records: usize,
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
}

impl Chunk {
    /// Packs this content.
    pub(super) fn new(kind: ChunkKind, content: &[u8], extent: Extent) -> io::Result<Self> {
        if content.len() > MAX_CONTENT {
            return Err(io::Error::other("a chunk of a recording became too large"));
        }
        let mut bytes = vec![0; CHUNK_HEAD_BYTES];
        zstd::stream::copy_encode(content, &mut bytes, LEVEL)?;
        let packed = &bytes[CHUNK_HEAD_BYTES..];
        let mut head = ChunkHead::new_zeroed();
        head.magic = CHUNK_MAGIC;
        head.kind = kind as u8;
        head.packing = Packing::Zstd as u8;
        head.streams = U16::new(u16::try_from(extent.streams).unwrap_or(u16::MAX));
        head.packed_bytes = U32::new(length(packed.len()));
        head.content_bytes = U32::new(length(content.len()));
        head.records = U32::new(length(extent.records));
        head.from_ns = U64::new(extent.from_ns);
        head.until_ns = U64::new(extent.until_ns);
        head.content_crc = U32::new(crc32fast::hash(packed));
        let mut chunk = Self { bytes };
        chunk.set_head(head);
        Ok(chunk)
    }

    /// The chunk's bytes when it has this number in its file.
    pub(super) fn numbered(&mut self, number: u32) -> &[u8] {
        let mut head = self.head();
        head.number = U32::new(number);
        self.set_head(head);
        &self.bytes
    }

    /// Bytes that it takes in a file.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn head(&self) -> ChunkHead {
        let mut head = ChunkHead::new_zeroed();
        head.as_mut_bytes()
            .copy_from_slice(&self.bytes[..CHUNK_HEAD_BYTES]);
        head
    }

    fn set_head(&mut self, mut head: ChunkHead) {
        head.crc = U32::new(head.checksum());
        self.bytes[..CHUNK_HEAD_BYTES].copy_from_slice(head.as_bytes());
    }
}

/// Sizes in a chunk are below [`MAX_CONTENT`], and so are counts of things that take a byte each.
fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The content of a chunk with this head from its packed bytes; `None` if it is not what the head says.
pub(super) fn unpack(head: &ChunkHead, packed: &[u8]) -> Option<Vec<u8>> {
    let size = head.content_bytes.get() as usize;
    if crc32fast::hash(packed) != head.content_crc.get() || size > MAX_CONTENT {
        return None;
    }
    let content = match head.packing {
        packing if packing == Packing::Plain as u8 => packed.to_vec(),
        packing if packing == Packing::Zstd as u8 => zstd::bulk::decompress(packed, size).ok()?,
        _ => return None,
    };
    (content.len() == size).then_some(content)
}

const _: () = assert!(MAX_CONTENT < u32::MAX as usize && FILE_HEAD_BYTES < CHUNK_HEAD_BYTES);
