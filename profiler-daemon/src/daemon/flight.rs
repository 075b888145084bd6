//! The service's flight recorder: keeps the last while in memory, and writes it when it is asked to.
//!
//! Files are few, of bounded size, and have names that it gives: nobody who asks has a say in where anything
//! is written.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::config::FlightRecorder as Config;
use super::engine::Handle;
use super::measuring;
use super::recorder::{LOOK_EVERY, NAMES_EVERY, Recording};
use super::trigger::Watch;
use crate::core::Selector;
use crate::identity::Keeper;
use crate::recording::facts::Target;
use crate::recording::{Last, Recorder, Settings};

/// How names of files begin and end; between that they have the time (UTC).
const PREFIX: &str = "schedscope-";
const SUFFIX: &str = ".sched";

/// A file that is being written has this at its end, too.
const UNFINISHED: &str = ".part";

/// Keeps the last while of a service.
#[derive(Clone)]
pub struct FlightRecorder {
    recording: Arc<Mutex<Recording>>,
    config: Arc<Config>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, in seconds since 1970.
    pub written_unix: u64,
}

/// Why none was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// The last one was written a moment ago.
    #[error("a recording was written a moment ago: the next may be in {} s", .0.as_secs() + 1)]
    TooSoon(Duration),
    /// It can't be.
    #[error("{0}; make room, or give flight_recorder.directory a place that can be written")]
    Failed(String),
}

impl FlightRecorder {
    /// Begins to keep what happens. To be called when privileges were given up: the thread that writes
    /// needs none.
    pub(super) async fn start(
        config: &Config,
        last: Duration,
        handle: Handle,
        keeper: Keeper,
    ) -> anyhow::Result<Self> {
        let directory = &config.directory;
        let settings = Settings {
            path: directory.join("schedscope"),
            max_bytes: None,
            keep: None,
            last: Some(Last {
                time: last,
                max_bytes: usize::try_from(config.max_memory).unwrap_or(usize::MAX),
            }),
        };
        let (recorder, tape) = fs::create_dir_all(directory)
            .and_then(|()| Recorder::start(settings))
            .with_context(|| {
                format!(
                    "the flight recorder cannot write to {}: give flight_recorder.directory a place \
                     that can be written",
                    directory.display()
                )
            })?;
        let host = Target {
            kind: "host".to_owned(),
            value: String::new(),
            selector: Selector::All,
        };
        let begun = handle.ask(move |engine| {
            let start_ns = engine.core().watermark_ns();
            tape.header(measuring::header(engine, vec![host], start_ns));
            engine.begin_recording(tape)
        });
        begun
            .await?
            .context("the flight recorder cannot read which threads there are")?;
        Ok(Self {
            recording: Arc::new(Mutex::new(Recording::new(handle, keeper, recorder))),
            config: Arc::new(config.clone()),
        })
    }

    /// Sees to names and conditions. Ends only by an error.
    pub(super) async fn tend(self) -> anyhow::Error {
        let mut watch = Watch::new(&self.config.when.0);
        let every = if watch.is_empty() {
            NAMES_EVERY
        } else {
            LOOK_EVERY
        };
        loop {
            let next = Instant::now() + every;
            let met = async {
                let mut recording = self.recording.lock().await;
                recording.gather_names().await?;
                recording.look(&mut watch).await
            };
            match met.await {
                Ok(None) => {}
                Ok(Some(condition)) => self.write_and_say(&condition.to_string()).await,
                Err(error) => return error,
            }
            sleep_until(next).await;
        }
    }

    /// Writes what is kept, and says so in the log.
    pub(super) async fn write_and_say(&self, why: &str) {
        match self.write().await {
            Ok(written) => eprintln!("schedscope: {why}: wrote {}", written.name),
            Err(error) => eprintln!("schedscope: {why}: {error}"),
        }
    }

    /// Writes what is kept to a new file.
    pub async fn write(&self) -> Result<Written, NotWritten> {
        let mut recording = self.recording.lock().await;
        if let Some(left) = recording.too_early() {
            return Err(NotWritten::TooSoon(left));
        }
        let failed = |error: io::Error| NotWritten::Failed(error.to_string());
        // Without the newest names there are still those from before.
        let _ = recording.gather_names_now().await;
        let name = name_at(SystemTime::now());
        let path = self.config.directory.join(&name);
        let unfinished = self.config.directory.join(format!("{name}{UNFINISHED}"));
        let saved = recording.save(Some(unfinished.clone())).await;
        let moved = saved.map_err(NotWritten::Failed).and_then(|saved| {
            fs::rename(&unfinished, path)
                .map(|()| saved)
                .map_err(failed)
        });
        if moved.is_err() {
            // Half a file is of no use to anybody.
            let _ = fs::remove_file(unfinished);
        }
        let saved = moved?;
        self.forget().map_err(failed)?;
        Ok(Written {
            name,
            bytes: saved.bytes,
            written_unix: unix_seconds(SystemTime::now()),
        })
    }

    /// Removes the oldest files above the number that is kept.
    fn forget(&self) -> io::Result<()> {
        let files = list(&self.config.directory)?;
        let keep = usize::try_from(self.config.files).unwrap_or(usize::MAX);
        for file in files.iter().skip(keep) {
            fs::remove_file(self.config.directory.join(&file.name))?;
        }
        Ok(())
    }

    /// The files that there are, the newest first.
    pub fn files(&self) -> io::Result<Vec<Written>> {
        list(&self.config.directory)
    }

    /// Opens one of [`Self::files`]; `None` if no file has that name.
    pub fn open(&self, name: &str) -> io::Result<Option<(File, u64)>> {
        let files = self.files()?;
        // The name of ours, not theirs, makes the path.
        let Some(file) = files.iter().find(|file| file.name == name) else {
            return Ok(None);
        };
        let opened = File::open(self.config.directory.join(&file.name))?;
        Ok(Some((opened, file.bytes)))
    }
}

/// The files of a flight recorder, the newest first.
fn list(directory: &Path) -> io::Result<Vec<Written>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let metadata = entry.metadata()?;
        if is_ours(&name) && metadata.is_file() {
            files.push(Written {
                name,
                bytes: metadata.len(),
                written_unix: metadata.modified().map_or(0, unix_seconds),
            });
        }
    }
    // Their names are times.
    files.sort_by(|a, b| b.name.cmp(&a.name));
    Ok(files)
}

fn is_ours(name: &str) -> bool {
    let time = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    time.is_some_and(|time| {
        let is_of_time = |byte: u8| byte.is_ascii_digit() || byte == b'T' || byte == b'Z';
        time.len() == TIME_LENGTH && time.bytes().all(is_of_time)
    })
}

/// `20261121T072310Z`.
const TIME_LENGTH: usize = 16;

fn name_at(time: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(time).to_string();
    let time: String = time.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{PREFIX}{time}{SUFFIX}")
}

fn unix_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{is_ours, name_at};
    use std::time::{Duration, SystemTime};

    #[test]
    fn names_tell_the_time_and_nothing_else_has_such_a_name() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_245_790);
        let name = name_at(time);
        assert_eq!(name, "schedscope-20261121T072310Z.sched");
        assert!(is_ours(&name));
        for other in [
            "schedscope-20261121T072310Z.sched.part",
            "schedscope-../../../etc/pass.sched",
            "schedscope-20261121T07231/Z.sched",
            "schedscope-.sched",
            "passwd",
            "..",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
