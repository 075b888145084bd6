//! Exports of what is being measured: a recording is made meanwhile, and exported at the end.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::export::{self, Wanted, create};
use super::replay::Opened;
use crate::cli::{Choice, ExportTo};
use crate::exit::Failure;
use crate::recording::{Recorder, Settings, Tape};

/// Exports that are to be written when a measuring is over, with their files begun.
pub(super) struct Exports(Vec<Wanted>);

impl Exports {
    /// Begins the files, so that nobody measures for an hour to find that one can't be written.
    pub(super) fn open(wanted: &[ExportTo]) -> Result<Self, Failure> {
        let open = |its: &ExportTo| Ok((its.format, create(&its.path, "--export")?));
        wanted.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Writes them from this recording.
    pub(super) fn write(self, recording: &Path) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let opened = Opened::new(recording, &Choice::default())?;
        export::write(opened, self.0).map(drop)
    }
}

/// A recording without a name, which is gone with the program however that ends.
pub(super) struct Scratch {
    file: File,
}

impl Scratch {
    /// Beside the first of these exports, where there should be room; nothing if there is none.
    pub(super) fn begin(exports: &[ExportTo]) -> Result<Option<(Self, Recorder, Tape)>, Failure> {
        let Some(first) = exports.first() else {
            return Ok(None);
        };
        let mut name = first.path.as_os_str().to_owned();
        name.push(format!(".recording-{}", std::process::id()));
        let path = PathBuf::from(name);
        let failed = |error: std::io::Error| {
            Failure::usage(format!(
                "cannot write {}: {error}; --export needs room for a recording beside {}",
                path.display(),
                first.path.display()
            ))
        };
        let settings = Settings {
            path: path.clone(),
            max_bytes: None,
            keep: None,
            last: None,
        };
        let (recorder, tape) = Recorder::start(settings).map_err(failed)?;
        let file = File::open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        Ok(Some((Self { file }, recorder, tape)))
    }

    /// Where it can be read.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}
