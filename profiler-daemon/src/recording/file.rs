//! Recordings as files: made, filled chunk by chunk, and left readable whatever happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zerocopy::IntoBytes;

use super::chunk::Chunk;
use super::format::{FILE_HEAD_BYTES, FileHead};

/// A recording under way.
#[derive(Debug)]
pub(super) struct RecordingFile {
    file: File,
    /// Bytes that are whole chunks.
    bytes: u64,
    chunks: u32,
    /// Where the last chunk begins, if it may be dropped.
    last: Option<u64>,
}

impl RecordingFile {
    /// Begins a file, in the place of one that has that name. Only its owner may read it: names of
    /// processes and functions are in it.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path)?;
        file.write_all(FileHead::current().as_bytes())?;
        Ok(Self {
            file,
            bytes: FILE_HEAD_BYTES as u64,
            chunks: 0,
            last: None,
        })
    }

    /// Adds a chunk. Where that fails, the file ends with the last whole one.
    pub(super) fn add(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        let written = self.file.write_all(chunk.numbered(self.chunks));
        if let Err(error) = written {
            // A reader would leave half a chunk out as well, but has to call the file damaged.
            self.cut(self.bytes)?;
            return Err(error);
        }
        self.last = Some(self.bytes);
        self.bytes += chunk.len() as u64;
        self.chunks += 1;
        Ok(())
    }

    /// Drops the chunk that was added last, once, and says whether there was one.
    pub(super) fn drop_last(&mut self) -> io::Result<bool> {
        let Some(start) = self.last.take() else {
            return Ok(false);
        };
        self.cut(start)?;
        self.bytes = start;
        self.chunks -= 1;
        Ok(true)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.seek(SeekFrom::Start(bytes)).map(|_| ())
    }

    /// Bytes in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends it: what was written is on the disk then, where that can be had.
    pub(super) fn close(self) -> io::Result<()> {
        match self.file.sync_data() {
            // A pipe or a device has no disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }
}

/// The name of the file with this number in a series: `FILE.1`, `FILE.2`, ...
#[must_use]
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
