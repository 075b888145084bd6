//! What a flight recorder keeps: the last parts of a run, each of which a recording can begin with.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chunk::{Chunk, Extent};
use super::facts::{Facts, Header};
use super::file::{RecordingFile, numbered};
use super::writer::{Last, SavedFile, Settings, begin, end};

/// A run is kept in so many parts, and one more: what is written may be longer by one.
const PARTS: u32 = 4;

/// A part that begins with what all threads do.
#[derive(Debug, Default)]
struct Part {
    /// When its window begins.
    start_ns: u64,
    until_ns: u64,
    bytes: usize,
    chunks: Vec<(Chunk, Extent)>,
}

/// The last parts of a run, in memory.
#[derive(Debug)]
pub(super) struct History {
    settings: Settings,
    last: Last,
    parts: VecDeque<Part>,
    bytes: usize,
    /// Files written so far.
    saved: u64,
}

impl History {
    /// Fails early where no file can be written later.
    pub(super) fn new(settings: Settings, last: Last) -> io::Result<Self> {
        let first = numbered(&settings.path, 1);
        drop(RecordingFile::create(&first)?);
        std::fs::remove_file(first)?;
        Ok(Self {
            settings,
            last,
            parts: VecDeque::from([Part::default()]),
            bytes: 0,
            saved: 0,
        })
    }

    /// How the names of its files begin.
    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    pub(super) fn add(&mut self, chunk: Chunk, extent: Extent) {
        if let Some(part) = self.parts.back_mut() {
            part.until_ns = extent.until_ns;
            part.bytes += chunk.len();
            self.bytes += chunk.len();
            part.chunks.push((chunk, extent));
        }
        self.forget();
    }

    /// Whether the newest part is long enough.
    pub(super) fn part_is_due(&self) -> bool {
        let time_ns = nanoseconds(self.last.time) / u64::from(PARTS);
        let max_bytes = self.last.max_bytes / PARTS as usize;
        self.parts.back().is_some_and(|part| {
            part.until_ns.saturating_sub(part.start_ns) >= time_ns || part.bytes >= max_bytes
        })
    }

    /// What comes now can be read without what came before.
    pub(super) fn begin_part(&mut self, start_ns: u64) {
        // One that nothing came to is none.
        if self.parts.back().is_some_and(|part| part.chunks.is_empty()) {
            self.parts.pop_back();
        }
        self.parts.push_back(Part {
            start_ns,
            until_ns: start_ns,
            ..Part::default()
        });
        self.forget();
    }

    /// The first part's window begins here.
    pub(super) fn set_start(&mut self, start_ns: u64) {
        if let Some(part) = self.parts.front_mut() {
            part.start_ns = start_ns;
        }
    }

    /// Drops the parts that are too old, or too much; never the newest.
    fn forget(&mut self) {
        let until_ns = self.parts.back().map_or(0, |part| part.until_ns);
        let needed_ns = until_ns.saturating_sub(nanoseconds(self.last.time));
        while let Some(second) = self.parts.get(1) {
            let is_needed = second.start_ns > needed_ns;
            if is_needed && self.bytes <= self.last.max_bytes {
                return;
            }
            if let Some(part) = self.parts.pop_front() {
                self.bytes -= part.bytes;
            }
        }
    }

    /// Writes everything that is kept to this file, or to the next of the series, and keeps it.
    pub(super) fn save(
        &mut self,
        header: &Header,
        facts: &Facts,
        path: Option<PathBuf>,
    ) -> Result<SavedFile, String> {
        let is_of_series = path.is_none();
        let path = path.unwrap_or_else(|| numbered(&self.settings.path, self.saved + 1));
        let (start_ns, until_ns) = match (self.parts.front(), self.parts.back()) {
            (Some(first), Some(last)) => (first.start_ns, last.until_ns),
            _ => (0, 0),
        };
        let header = Header {
            start_ns,
            start_unix_ns: header.unix_ns(start_ns),
            ..header.clone()
        };
        let bytes = self
            .write(&path, &header, facts)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        if is_of_series {
            self.saved += 1;
            let keep = self.settings.keep.unwrap_or(u64::MAX);
            if let Some(oldest) = self.saved.checked_sub(keep).filter(|&number| number > 0) {
                // Somebody may have taken it away.
                let _ = std::fs::remove_file(numbered(&self.settings.path, oldest));
            }
        }
        Ok(SavedFile {
            path,
            time: Duration::from_nanos(until_ns.saturating_sub(start_ns)),
            bytes,
        })
    }

    fn write(&mut self, path: &Path, header: &Header, facts: &Facts) -> io::Result<u64> {
        let mut file = RecordingFile::create(path)?;
        begin(&mut file, header)?;
        for part in &mut self.parts {
            for (chunk, _) in &mut part.chunks {
                file.add(chunk)?;
            }
        }
        end(&mut file, facts)?;
        let bytes = file.bytes();
        file.close()?;
        Ok(bytes)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
