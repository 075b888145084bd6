//! Reads recordings, damaged ones too: what is whole comes out, and what is not is told as lost.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use profiler_ebpf::{Gap, RawRecord, WIRE_VERSION};
use zerocopy::FromBytes;

use super::chunk;
use super::facts::{Facts, Header};
use super::format::{
    CHUNK_HEAD_BYTES, CHUNK_MAGIC, ChunkHead, ChunkKind, FILE_HEAD_BYTES, FILE_MAGIC,
    FORMAT_VERSION, FileHead, MAX_CONTENT,
};
use super::journal::{self, Batch, Entry};
use crate::core::decode::Event;

/// Why nothing can be read of a file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It can't be read at all.
    #[error("cannot read it: {0}; give the path of a file that `schedscope record` made")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("it is empty: the recording ended before its first byte was written")]
    Empty,
    /// It is something else.
    #[error(
        "it is no recording of schedscope: those begin with `schedrec`; `schedscope record` makes one"
    )]
    NotARecording,
    /// It was written by another version of the format.
    #[error(
        "it has version {0} of the format, and this schedscope reads version {FORMAT_VERSION}: use the \
         schedscope that it was recorded with, or a newer one"
    )]
    Version(u32),
    /// It was written by another version of the probes.
    #[error(
        "its records have version {0}, and this schedscope reads version {WIRE_VERSION}: use the \
         schedscope that it was recorded with"
    )]
    WireVersion(u32),
    /// It comes from a machine whose system calls have other numbers.
    #[error(
        "it was recorded on {0}, where system calls have other numbers than on {arch}: read it with \
         schedscope on {0}",
        arch = std::env::consts::ARCH
    )]
    Arch(String),
    /// Which run it is of can't be read.
    #[error(
        "its head is damaged, which says what was recorded and when: nothing can be reported of it"
    )]
    Head,
}

/// What of a recording could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that belong to no whole chunk.
    pub bytes: u64,
    /// Chunks that are missing or damaged, as far as their numbers tell.
    pub chunks: u64,
    /// Records in those of them whose heads are whole.
    pub records: u64,
    /// The recording was not ended properly, or its end is missing.
    pub is_unfinished: bool,
}

impl Damage {
    /// Whether there is any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// A part of a recording.
#[derive(Clone, Debug)]
pub enum Part {
    /// What is to be given to a core next.
    Entries(Vec<Entry>),
    /// What is known by now beside the records.
    Facts(Box<Facts>),
}

/// Reads a recording from its beginning to its end.
pub struct Reader<R> {
    bytes: Window<R>,
    header: Header,
    damage: Damage,
    /// The number that the next chunk should have.
    next_number: u64,
    /// Everything up to here is known, or told as lost.
    until_ns: u64,
    has_ended: bool,
}

impl Reader<File> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::new(File::open(path)?)
    }
}

impl<R: Read> Reader<R> {
    /// Reads what says which run it is.
    pub fn new(source: R) -> Result<Self, OpenError> {
        let mut bytes = Window::new(source);
        check_head(bytes.peek(FILE_HEAD_BYTES)?)?;
        bytes.skip(FILE_HEAD_BYTES);
        let mut damage = Damage::default();
        let mut next_number = 0;
        while let Some(found) = next_chunk(&mut bytes, &mut damage, &mut next_number)? {
            if found.kind != Some(ChunkKind::Header) {
                break;
            }
            let header: Option<Header> = serde_json::from_slice(&found.content).ok();
            if let Some(header) = header {
                check_header(&header)?;
                return Ok(Self {
                    bytes,
                    header,
                    damage,
                    next_number,
                    until_ns: 0,
                    has_ended: false,
                });
            }
        }
        Err(OpenError::Head)
    }

    /// Which run it is of.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What could not be read so far.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// What comes next; `None` at the end.
    pub fn next_part(&mut self) -> io::Result<Option<Part>> {
        loop {
            let found = next_chunk(&mut self.bytes, &mut self.damage, &mut self.next_number)?;
            let Some(found) = found else {
                self.damage.is_unfinished = !self.has_ended;
                return Ok(None);
            };
            match found.kind {
                Some(ChunkKind::Journal) => match journal::unpack(&found.content) {
                    Ok(entries) => return Ok(Some(Part::Entries(self.in_place(&found, entries)))),
                    Err(_) => self.damage.chunks += 1,
                },
                Some(ChunkKind::Facts) => match serde_json::from_slice(&found.content) {
                    Ok(facts) => return Ok(Some(Part::Facts(facts))),
                    Err(_) => self.damage.chunks += 1,
                },
                Some(ChunkKind::End) => self.has_ended = true,
                // The header's second copy, and what a later version adds.
                Some(ChunkKind::Header) | None => {}
            }
        }
    }

    /// The last that is known beside the records.
    pub fn into_facts(mut self) -> io::Result<Facts> {
        let mut facts = Facts::default();
        while let Some(found) =
            next_chunk(&mut self.bytes, &mut self.damage, &mut self.next_number)?
        {
            if found.kind == Some(ChunkKind::Facts) {
                facts = serde_json::from_slice(&found.content).unwrap_or(facts);
            }
        }
        Ok(facts)
    }

    /// Puts before these entries what tells of a loss since the last ones.
    fn in_place(&mut self, found: &Found, mut entries: Vec<Entry>) -> Vec<Entry> {
        let (from_ns, until_ns) = (found.head.from_ns.get(), found.head.until_ns.get());
        if from_ns > self.until_ns {
            let streams = usize::from(found.head.streams.get());
            entries.insert(
                0,
                loss(streams, self.until_ns, from_ns, self.damage.records),
            );
        }
        self.until_ns = self.until_ns.max(until_ns);
        entries
    }
}

/// A batch in which every stream lost records.
fn loss(streams: usize, from_ns: u64, until_ns: u64, records: u64) -> Entry {
    let gap = |stream: usize| {
        let gap = Gap {
            ts_ns: from_ns,
            until_ns,
            // How many of each is not known; all of them together are told once.
            lost: if stream == 0 { records.max(1) } else { 0 },
            ..Gap::default()
        };
        Event::Gap(gap).encode()
    };
    let records: Vec<RawRecord> = (0..streams).map(gap).collect();
    Entry::Feed(Batch {
        watermark_ns: until_ns,
        counts: vec![1; streams],
        records,
    })
}

fn check_head(bytes: &[u8]) -> Result<(), OpenError> {
    if bytes.is_empty() {
        return Err(OpenError::Empty);
    }
    let magic = &bytes[..bytes.len().min(FILE_MAGIC.len())];
    if !FILE_MAGIC.starts_with(magic) {
        return Err(OpenError::NotARecording);
    }
    match FileHead::read_from_bytes(bytes) {
        Ok(head) if head.crc.get() != head.checksum() => Err(OpenError::Head),
        Ok(head) if head.version.get() != FORMAT_VERSION => {
            Err(OpenError::Version(head.version.get()))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(OpenError::Head),
    }
}

fn check_header(header: &Header) -> Result<(), OpenError> {
    if header.wire_version != WIRE_VERSION {
        return Err(OpenError::WireVersion(header.wire_version));
    }
    if header.arch != std::env::consts::ARCH {
        return Err(OpenError::Arch(header.arch.clone()));
    }
    Ok(())
}

/// A chunk that is whole.
struct Found {
    head: ChunkHead,
    kind: Option<ChunkKind>,
    content: Vec<u8>,
}

/// The next chunk that is whole. What is passed over on the way is added to the damage.
fn next_chunk<R: Read>(
    bytes: &mut Window<R>,
    damage: &mut Damage,
    next_number: &mut u64,
) -> io::Result<Option<Found>> {
    loop {
        let start = bytes.peek(CHUNK_HEAD_BYTES)?;
        if start.is_empty() {
            return Ok(None);
        }
        let head = ChunkHead::read_from_bytes(start)
            .ok()
            .filter(ChunkHead::is_whole);
        let Some(head) = head else {
            damage.bytes += pass_over(bytes)?;
            continue;
        };
        let length = CHUNK_HEAD_BYTES + head.packed_bytes.get() as usize;
        if length > MAX_CONTENT {
            damage.bytes += pass_over(bytes)?;
            continue;
        }
        let whole = bytes.peek(length)?;
        let content = whole
            .get(CHUNK_HEAD_BYTES..length)
            .and_then(|packed| chunk::unpack(&head, packed));
        let Some(content) = content else {
            damage.records += u64::from(head.records.get());
            damage.bytes += pass_over(bytes)?;
            continue;
        };
        bytes.skip(length);
        let number = u64::from(head.number.get());
        damage.chunks += number.saturating_sub(*next_number);
        *next_number = number + 1;
        return Ok(Some(Found {
            head,
            kind: ChunkKind::from_wire(head.kind),
            content,
        }));
    }
}

/// Goes on to where the next chunk may begin, one byte at least, and says how far that was.
fn pass_over<R: Read>(bytes: &mut Window<R>) -> io::Result<u64> {
    let mut passed = 0;
    loop {
        let here = bytes.peek(1 << 16)?;
        let place = here
            .windows(CHUNK_MAGIC.len())
            .skip(1)
            .position(|window| window == CHUNK_MAGIC);
        let (step, is_found) = match place {
            Some(place) => (place + 1, true),
            // The last bytes may be the beginning of a magic.
            None if here.len() > CHUNK_MAGIC.len() => (here.len() - CHUNK_MAGIC.len() + 1, false),
            None => (here.len(), true),
        };
        bytes.skip(step);
        passed += step as u64;
        if is_found {
            return Ok(passed);
        }
    }
}

/// Bytes of a stream, as many of the next ones as somebody wants to see.
struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
}

/// Read at once.
const READ_BYTES: usize = 1 << 18;

impl<R: Read> Window<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// The next bytes; fewer only at the end.
    fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.start < length && self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        while self.buffer.len() < length {
            let wanted = READ_BYTES.max(length - self.buffer.len()) as u64;
            let got = (&mut self.source)
                .take(wanted)
                .read_to_end(&mut self.buffer)?;
            if got == 0 {
                break;
            }
        }
        let rest = &self.buffer[self.start..];
        Ok(&rest[..rest.len().min(length)])
    }

    fn skip(&mut self, length: usize) {
        self.start = (self.start + length).min(self.buffer.len());
    }
}
