//! The thread that writes: entries become chunks, and chunks go into files or stay in memory.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::chunk::{Chunk, Extent};
use super::facts::{Facts, Header};
use super::file::{RecordingFile, numbered};
use super::format::ChunkKind;
use super::history::History;
use super::journal::{Entry, Packer};
use super::tape::{Message, Shared, Tape};
use crate::priority;

/// A chunk is written when it is this large, before it is compressed, or this old: what is in it when the
/// program is killed is lost.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_AGE: Duration = Duration::from_secs(1);

/// Room in a file for what ends it.
const END_BYTES: u64 = 4 << 10;

/// Where a recording goes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file, or how the names of several begin.
    pub path: PathBuf,
    /// Bytes after which a file is full.
    pub max_bytes: Option<u64>,
    /// A full file is followed by another one, and of all files the newest so many are kept. Else the
    /// recording ends with the first one.
    pub keep: Option<u64>,
    /// Keep so much in memory, and write it when it is asked for.
    pub last: Option<Last>,
}

/// What a flight recorder keeps.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    /// So long a time, and a little more.
    pub time: Duration,
    /// But no more bytes than this.
    pub max_bytes: usize,
}

/// Why nothing is written any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The file has the size that was allowed.
    Full,
    /// It can't be written.
    Failed(String),
}

/// Where the answer to a request to save goes: what was saved, or why nothing was.
pub(super) type Saved = tokio::sync::oneshot::Sender<Result<SavedFile, String>>;

/// A file that a flight recorder wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// Its name.
    pub path: PathBuf,
    /// How much time is in it.
    pub time: Duration,
    /// How large it is.
    pub bytes: u64,
}

/// What came of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes in the files that are there.
    pub bytes: u64,
    /// Records that were written.
    pub records: u64,
    /// Records that the thread that writes could not keep up with. They are gaps in the recording.
    pub lost: u64,
    /// Why it ended early, if it did.
    pub stopped: Option<Stop>,
    /// The file, or the newest of several.
    pub path: PathBuf,
}

/// A recording under way, for whoever started it.
pub struct Recorder {
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    writer: JoinHandle<Summary>,
}

impl Recorder {
    /// Begins the file, and a thread that writes to it what comes by the tape.
    pub fn start(settings: Settings) -> io::Result<(Self, Tape)> {
        let (messages, inbox) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let outlet = Outlet::new(settings)?;
        let mut writer = Writer::new(outlet, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("record".into())
            .spawn(move || {
                priority::usual();
                writer.run(&inbox);
                writer.finish()
            })?;
        let tape = Tape::new(messages.clone(), Arc::clone(&shared));
        let recorder = Self {
            messages,
            shared,
            writer: thread,
        };
        Ok((recorder, tape))
    }

    /// What is known by now beside the records.
    pub fn facts(&self, facts: Facts) {
        self.shared.sent();
        // Without the writer nothing is recorded; that it broke shows at the end.
        let _ = self.messages.send(Message::Facts(Box::new(facts)));
    }

    /// Why nothing is written any more, if that is so.
    #[must_use]
    pub fn stopped(&self) -> Option<Stop> {
        self.shared.stopped()
    }

    /// How many records were written so far, or kept, and how many bytes they took.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        let (records, bytes) = (&self.shared.written, &self.shared.bytes);
        (
            records.load(Ordering::Relaxed),
            bytes.load(Ordering::Relaxed),
        )
    }

    /// Whether everything that came so far is written, or kept.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    /// Writes what is kept in memory to this file, or to the next of a series. For a recorder with
    /// [`Settings::last`].
    pub async fn save(&self, path: Option<PathBuf>) -> Result<SavedFile, String> {
        let (answer, saved) = tokio::sync::oneshot::channel();
        self.shared.sent();
        let _ = self.messages.send(Message::Save(path, answer));
        let gone = || "the thread that writes has ended".to_owned();
        saved.await.map_err(|_| gone())?
    }

    /// Ends the recording, once everything is written. The tape must be gone by then.
    pub fn finish(self) -> io::Result<Summary> {
        drop(self.messages);
        self.writer
            .join()
            .map_err(|_| io::Error::other("the thread that writes the recording broke"))
    }
}

/// Where chunks go.
enum Outlet {
    Files(Files),
    Memory(History),
}

impl Outlet {
    fn new(settings: Settings) -> io::Result<Self> {
        match settings.last {
            Some(last) => Ok(Self::Memory(History::new(settings, last)?)),
            None => Ok(Self::Files(Files::create(settings)?)),
        }
    }
}

/// One file, or several one after the other.
struct Files {
    settings: Settings,
    current: RecordingFile,
    number: u64,
    /// Names and sizes of the files before that are kept.
    before: VecDeque<(PathBuf, u64)>,
}

impl Files {
    fn create(settings: Settings) -> io::Result<Self> {
        let number = 1;
        let current = RecordingFile::create(&path_of(&settings, number))?;
        Ok(Self {
            settings,
            current,
            number,
            before: VecDeque::new(),
        })
    }

    fn path(&self) -> PathBuf {
        path_of(&self.settings, self.number)
    }

    fn has_room(&self, bytes: u64) -> bool {
        let max_bytes = self.settings.max_bytes.unwrap_or(u64::MAX);
        self.current.bytes().saturating_add(bytes) <= max_bytes
    }

    /// Goes on with another file.
    fn next(&mut self) -> io::Result<()> {
        let path = self.path();
        let next = RecordingFile::create(&path_of(&self.settings, self.number + 1))?;
        let ended = std::mem::replace(&mut self.current, next);
        self.before.push_back((path, ended.bytes()));
        self.number += 1;
        let keep = usize::try_from(self.settings.keep.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        while self.before.len() >= keep.max(1) {
            if let Some((path, _)) = self.before.pop_front() {
                // Somebody may have taken it away.
                let _ = std::fs::remove_file(path);
            }
        }
        ended.close()
    }
}

fn path_of(settings: &Settings, number: u64) -> PathBuf {
    match settings.keep {
        Some(_) => numbered(&settings.path, number),
        None => settings.path.clone(),
    }
}

struct Writer {
    outlet: Outlet,
    shared: Arc<Shared>,
    packer: Packer,
    /// When the first entry came that is not written.
    packing_since: Option<Instant>,
    /// The watermark after the last chunk.
    written_ns: u64,
    header: Option<Header>,
    /// Which groups have quotas, as it was last told: every part needs it.
    quotas: Option<Entry>,
    facts: Facts,
    /// Bytes that the last facts took.
    facts_bytes: u64,
    records: u64,
    has_stopped: bool,
}

impl Writer {
    fn new(outlet: Outlet, shared: Arc<Shared>) -> Self {
        Self {
            outlet,
            shared,
            packer: Packer::new(),
            packing_since: None,
            written_ns: 0,
            header: None,
            quotas: None,
            facts: Facts::default(),
            facts_bytes: 0,
            records: 0,
            has_stopped: false,
        }
    }

    fn run(&mut self, inbox: &mpsc::Receiver<Message>) {
        loop {
            let patience = self
                .packing_since
                .map_or(CHUNK_AGE, |since| CHUNK_AGE.saturating_sub(since.elapsed()));
            match inbox.recv_timeout(patience) {
                Ok(message) => {
                    self.take(message);
                    self.shared.taken();
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let is_old = self
                .packing_since
                .is_some_and(|since| since.elapsed() >= CHUNK_AGE);
            if is_old || self.packer.len() >= CHUNK_BYTES {
                self.flush();
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Header(header) => {
                if let Outlet::Memory(history) = &mut self.outlet {
                    history.set_start(header.start_ns);
                }
                self.header = Some(*header);
                self.begin_file();
            }
            Message::Entry(entry, bytes) => {
                self.pack(&entry);
                self.shared.done(bytes);
                if let Entry::UntoldQuotas(_) = entry {
                    self.quotas = Some(entry);
                }
            }
            Message::Part(threads, from_ns, until_ns) => {
                self.begin_part(until_ns);
                self.pack(&Entry::Found(threads, from_ns, until_ns));
                if let Some(quotas) = self.quotas.take() {
                    self.pack(&quotas);
                    self.quotas = Some(quotas);
                }
            }
            Message::Facts(facts) => {
                self.facts = *facts;
                // What the facts are about comes before them.
                self.flush();
                self.write_facts();
            }
            Message::Save(path, answer) => {
                self.flush();
                let saved = self.save(path);
                let _ = answer.send(saved);
            }
        }
    }

    fn pack(&mut self, entry: &Entry) {
        if self.has_stopped {
            return;
        }
        self.packer.add(entry);
        self.packing_since.get_or_insert_with(Instant::now);
    }

    /// Writes what is packed, once it is known which run this is.
    fn flush(&mut self) {
        if self.packer.is_empty() || self.header.is_none() {
            return;
        }
        self.packing_since = None;
        let extent = Extent {
            streams: self.packer.streams(),
            records: self.packer.records(),
            from_ns: self.written_ns,
            until_ns: self.packer.until_ns(),
        };
        let content = self.packer.take();
        if self.has_stopped {
            return;
        }
        self.written_ns = extent.until_ns;
        match Chunk::new(ChunkKind::Journal, &content, extent) {
            Ok(chunk) => self.add_journal(chunk, extent),
            Err(error) => self.fail(&error),
        }
    }

    fn add_journal(&mut self, mut chunk: Chunk, extent: Extent) {
        let bytes = chunk.len() as u64;
        let reserve = self.facts_bytes * 2 + END_BYTES;
        match &mut self.outlet {
            Outlet::Memory(history) => {
                history.add(chunk, extent);
                let is_due = history.part_is_due();
                self.shared.wants_part.fetch_or(is_due, Ordering::Relaxed);
            }
            Outlet::Files(files) if !files.has_room(bytes + reserve) => {
                if files.settings.keep.is_none() {
                    self.stop(Stop::Full);
                } else {
                    // The next file begins as soon as the threads have been found anew.
                    self.shared.wants_part.store(true, Ordering::Relaxed);
                    self.shared.lose(extent.records);
                }
                return;
            }
            Outlet::Files(files) => {
                if let Err(error) = files.current.add(&mut chunk) {
                    return self.fail(&error);
                }
                // Early enough that no record is lost on the way to the next file.
                let is_rotated = files.settings.keep.is_some();
                if is_rotated && !files.has_room(bytes * 4 + reserve) {
                    self.shared.wants_part.store(true, Ordering::Relaxed);
                }
            }
        }
        self.records += extent.records as u64;
        self.shared.written.store(self.records, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// From here on a file can be read without what came before.
    fn begin_part(&mut self, start_ns: u64) {
        self.flush();
        let Some(header) = &mut self.header else {
            return;
        };
        header.start_unix_ns = header.unix_ns(start_ns);
        header.start_ns = start_ns;
        if self.has_stopped {
            return;
        }
        match &mut self.outlet {
            Outlet::Memory(history) => history.begin_part(start_ns),
            Outlet::Files(_) => {
                self.end_file();
                let Outlet::Files(files) = &mut self.outlet else {
                    return;
                };
                if let Err(error) = files.next() {
                    return self.fail(&error);
                }
                self.begin_file();
            }
        }
        // A reader knows nothing of what came before, and so misses nothing.
        self.written_ns = 0;
    }

    fn begin_file(&mut self) {
        let (Outlet::Files(files), Some(header)) = (&mut self.outlet, &self.header) else {
            return;
        };
        if let Err(error) = begin(&mut files.current, header) {
            self.fail(&error);
        }
    }

    fn write_facts(&mut self) {
        if self.has_stopped || self.header.is_none() {
            return;
        }
        let Outlet::Files(files) = &mut self.outlet else {
            return;
        };
        match document(ChunkKind::Facts, &self.facts) {
            Ok(mut chunk) => {
                self.facts_bytes = chunk.len() as u64;
                if !files.has_room(self.facts_bytes + END_BYTES) {
                    return;
                }
                if let Err(error) = files.current.add(&mut chunk) {
                    self.fail(&error);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Writes the last facts and the mark of the end. Where there is no room for that, what was written
    /// last gives way.
    fn end_file(&mut self) {
        if self.header.is_none() {
            return;
        }
        let Outlet::Files(files) = &mut self.outlet else {
            return;
        };
        let ended = end(&mut files.current, &self.facts).or_else(|error| {
            if !files.current.drop_last()? {
                return Err(error);
            }
            end(&mut files.current, &self.facts)
        });
        if let Err(error) = ended {
            self.fail(&error);
        }
    }

    fn save(&mut self, path: Option<PathBuf>) -> Result<SavedFile, String> {
        let (Outlet::Memory(history), Some(header)) = (&mut self.outlet, &self.header) else {
            return Err("nothing is kept in memory".to_owned());
        };
        history.save(header, &self.facts, path)
    }

    fn fail(&mut self, error: &io::Error) {
        self.stop(Stop::Failed(error.to_string()));
    }

    fn stop(&mut self, why: Stop) {
        self.has_stopped = true;
        self.shared.stop(why);
    }

    fn finish(mut self) -> Summary {
        self.flush();
        self.end_file();
        let (bytes, path) = match &self.outlet {
            Outlet::Files(files) => {
                let before: u64 = files.before.iter().map(|(_, bytes)| bytes).sum();
                (before + files.current.bytes(), files.path())
            }
            Outlet::Memory(history) => (0, history.path().to_owned()),
        };
        if let Outlet::Files(files) = self.outlet
            && let Err(error) = files.current.close()
        {
            self.shared.stop(Stop::Failed(error.to_string()));
        }
        Summary {
            bytes,
            records: self.records,
            lost: self.shared.lost(),
            stopped: self.shared.stopped(),
            path,
        }
    }
}

/// A value as a chunk.
fn document(kind: ChunkKind, value: &impl Serialize) -> io::Result<Chunk> {
    Chunk::new(kind, &serde_json::to_vec(value)?, Extent::default())
}

/// Writes what a file begins with. It stands there twice: without it nothing can be said of a file.
pub(super) fn begin(file: &mut RecordingFile, header: &Header) -> io::Result<()> {
    let mut chunk = document(ChunkKind::Header, header)?;
    file.add(&mut chunk)?;
    file.add(&mut chunk)
}

/// Writes what a file ends with.
pub(super) fn end(file: &mut RecordingFile, facts: &Facts) -> io::Result<()> {
    file.add(&mut document(ChunkKind::Facts, facts)?)?;
    file.add(&mut Chunk::new(ChunkKind::End, &[], Extent::default())?)
}
