//! The bytes of a recording: a head, then chunks, each with a head of its own.
//!
//! All numbers are little-endian. Docs: `docs/recording.md`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the format. A reader takes no other one.
pub const FORMAT_VERSION: u32 = 1;

/// How a recording begins.
pub const FILE_MAGIC: [u8; 8] = *b"schedrec";

/// How a chunk begins.
pub const CHUNK_MAGIC: [u8; 4] = *b"\xc4chk";

/// Size of [`FileHead`], in bytes.
pub const FILE_HEAD_BYTES: usize = size_of::<FileHead>();

/// Size of [`ChunkHead`], in bytes.
pub const CHUNK_HEAD_BYTES: usize = size_of::<ChunkHead>();

/// Longest content of a chunk, in bytes: a reader keeps one in memory, and takes no larger one.
pub const MAX_CONTENT: usize = 256 << 20;

/// The first bytes of a file.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct FileHead {
    /// [`FILE_MAGIC`].
    pub magic: [u8; 8],
    /// [`FORMAT_VERSION`].
    pub version: U32,
    /// CRC-32 of what stands before.
    pub crc: U32,
}

impl FileHead {
    /// The head of a file that this version writes.
    #[must_use]
    pub fn current() -> Self {
        Self::of_version(FORMAT_VERSION)
    }

    /// The head of a file of any version.
    #[must_use]
    pub fn of_version(version: u32) -> Self {
        let mut head = Self {
            magic: FILE_MAGIC,
            version: U32::new(version),
            crc: U32::ZERO,
        };
        head.crc = U32::new(head.checksum());
        head
    }

    /// What [`Self::crc`] should be.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..FILE_HEAD_BYTES - size_of::<U32>()])
    }
}

/// What a chunk holds. Numbers are never used again for something else; a reader leaves out what it
/// does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// A [`super::Header`] as JSON: which run and which host. The first chunk.
    Header = 1,
    /// What was given to the core, in its order.
    Journal = 2,
    /// A [`super::Facts`] as JSON: names and losses as far as they are known by now. The last one counts.
    Facts = 3,
    /// The recording was ended properly. The last chunk, without content.
    End = 4,
}

impl ChunkKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Header),
            2 => Some(Self::Journal),
            3 => Some(Self::Facts),
            4 => Some(Self::End),
            _ => None,
        }
    }
}

/// How a chunk's content is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Packing {
    /// Not at all.
    Plain = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// The first bytes of a chunk. The packed content follows.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ChunkHead {
    /// [`CHUNK_MAGIC`].
    pub magic: [u8; 4],
    /// [`ChunkKind`].
    pub kind: u8,
    /// [`Packing`].
    pub packing: u8,
    /// Streams of records in it: one a CPU, and one that belongs to none.
    pub streams: U16,
    /// Bytes that follow.
    pub packed_bytes: U32,
    /// Bytes of the content once it is unpacked; at most [`MAX_CONTENT`].
    pub content_bytes: U32,
    /// Records in it.
    pub records: U32,
    /// How many chunks stand before it.
    pub number: U32,
    /// Everything up to here had been given to the core before it; 0 at the beginning.
    pub from_ns: U64,
    /// Everything up to here has been given to the core after it.
    pub until_ns: U64,
    /// CRC-32 of the packed content.
    pub content_crc: U32,
    /// CRC-32 of what stands before in this head.
    pub crc: U32,
}

impl ChunkHead {
    /// What [`Self::crc`] should be.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..CHUNK_HEAD_BYTES - size_of::<U32>()])
    }

    /// Whether these are the first bytes of a chunk, unharmed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.magic == CHUNK_MAGIC && self.crc.get() == self.checksum()
    }
}

const _: () = assert!(FILE_HEAD_BYTES == 16 && CHUNK_HEAD_BYTES == 48);
