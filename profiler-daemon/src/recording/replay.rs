//! A recording becomes figures again.

use std::io::{self, Read};
use std::ops::Range;

use super::facts::{Facts, Header};
use super::journal::{Batch, Entry};
use super::reader::{Part, Reader};
use crate::core::{Core, Seen, Stream, TargetSpec, Trail};

/// What a core is to watch while it is given a recording.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The targets.
    pub specs: Vec<TargetSpec>,
    /// They are those of the recording: what came to them then comes to them again.
    pub is_as_recorded: bool,
}

/// Sees the core, and what no record carries.
type Look<'a> = Box<dyn FnMut(&Core, &Facts) + 'a>;

/// Somebody looks at the core now and again.
struct Looks<'a> {
    every_ns: u64,
    next_ns: u64,
    look: Look<'a>,
}

/// What a follower of a replay gets.
#[derive(Clone, Copy, Debug)]
pub enum Trailed<'e> {
    /// What was seen of waits that end soon.
    Seen(&'e [Seen]),
    /// What threads did, as it was booked.
    Did(&'e Trail),
}

/// Gets what threads did.
type Follower<'a> = Box<dyn FnMut(Trailed<'_>) -> io::Result<()> + 'a>;

/// Gives a recording to a core.
pub struct Replay<'a> {
    core: Core,
    facts: Facts,
    /// When the recording's own window begins.
    start_ns: u64,
    has_begun: bool,
    /// The core watches what was watched then.
    is_as_recorded: bool,
    /// The part of it that counts.
    window_ns: Range<u64>,
    looks: Option<Looks<'a>>,
    follower: Option<Follower<'a>>,
}

impl<'a> Replay<'a> {
    /// Gives it to a core that watches these targets. Only what lies in the window counts; times are those
    /// of the records' clock.
    #[must_use]
    pub fn new(header: &Header, watched: Watched, window_ns: Range<u64>) -> Self {
        Self {
            core: Core::new(watched.specs),
            is_as_recorded: watched.is_as_recorded,
            facts: Facts::default(),
            start_ns: header.start_ns,
            has_begun: false,
            window_ns,
            looks: None,
            follower: None,
        }
    }

    /// Has `follow` get what the threads of the targets do within the window, one by one. What it sums
    /// to for a thread are the thread's figures. An error of its ends the replay.
    #[must_use]
    pub fn with_follower(mut self, follow: impl FnMut(Trailed<'_>) -> io::Result<()> + 'a) -> Self {
        self.core.keep_trail();
        self.follower = Some(Box::new(follow));
        self
    }

    /// Has `look` see the core when the window begins, and then each time when so much time has gone by,
    /// with what is known by then beside the records.
    #[must_use]
    pub fn with_looks(mut self, every_ns: u64, look: impl FnMut(&Core, &Facts) + 'a) -> Self {
        self.looks = Some(Looks {
            every_ns: every_ns.max(1),
            next_ns: u64::MAX,
            look: Box::new(look),
        });
        self
    }

    /// Reads to the end, and tells `progress` now and again how far the records have come.
    pub fn run<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        mut progress: impl FnMut(u64),
    ) -> io::Result<()> {
        while let Some(part) = reader.next_part()? {
            match part {
                Part::Facts(facts) => self.facts = *facts,
                Part::Entries(entries) => {
                    for entry in entries {
                        self.give(entry)?;
                    }
                    progress(self.core.watermark_ns());
                }
            }
        }
        self.follow(Trailed::Did(&self.core.open_trail()))
    }

    /// The core, and what no record carries.
    #[must_use]
    pub fn finish(self) -> (Core, Facts) {
        (self.core, self.facts)
    }

    fn give(&mut self, entry: Entry) -> io::Result<()> {
        if self.core.watermark_ns() >= self.window_ns.end {
            return Ok(());
        }
        match entry {
            Entry::Feed(batch) => return self.feed(&batch),
            Entry::BeginWindow => self.begin_window(),
            // What came to a target that is not watched.
            Entry::Join(..) if !self.is_as_recorded => {}
            Entry::Seen(waits) => {
                self.follow(Trailed::Seen(&waits))?;
                self.core.seen(waits);
            }
            Entry::SeenWaiting(waits) => {
                self.follow(Trailed::Seen(&waits))?;
                self.core.seen_waiting(waits);
            }
            other => other.give(&mut self.core),
        }
        Ok(())
    }

    fn begin_window(&mut self) {
        self.has_begun = true;
        self.core.begin_window();
        if let Some(looks) = &mut self.looks {
            looks.next_ns = self.core.watermark_ns().saturating_add(looks.every_ns);
            (looks.look)(&self.core, &self.facts);
        }
    }

    /// The same as [`Entry::give`] where no window begins or ends within the batch.
    fn feed(&mut self, batch: &Batch) -> io::Result<()> {
        let mut streams: Vec<Stream<'_>> = batch.streams().map(Stream::new).collect();
        // A later file of a series has no entry for it, and in a damaged one it may be lost.
        if !self.has_begun && self.start_ns < batch.watermark_ns {
            self.feed_to(&mut streams, self.start_ns)?;
            self.begin_window();
        }
        let from_ns = self.window_ns.start;
        if self.core.watermark_ns() < from_ns && from_ns <= batch.watermark_ns {
            self.feed_to(&mut streams, from_ns)?;
            self.begin_window();
        }
        let until_ns = batch.watermark_ns.min(self.window_ns.end);
        while let Some(next_ns) = self.next_look_ns().filter(|&next_ns| next_ns <= until_ns) {
            self.feed_to(&mut streams, next_ns)?;
            if let Some(looks) = &mut self.looks {
                looks.next_ns = next_ns.saturating_add(looks.every_ns);
                (looks.look)(&self.core, &self.facts);
            }
        }
        self.feed_to(&mut streams, until_ns)
    }

    fn next_look_ns(&self) -> Option<u64> {
        self.looks.as_ref().map(|looks| looks.next_ns)
    }

    fn feed_to(&mut self, streams: &mut [Stream<'_>], watermark_ns: u64) -> io::Result<()> {
        let used = self.core.feed(streams, watermark_ns);
        for (stream, &used) in streams.iter_mut().zip(used) {
            // A batch has them in one piece.
            stream.first = stream.first.get(used..).unwrap_or_default();
        }
        let trail = self.core.take_trail();
        // What was before the window is not in the figures either.
        if self.has_begun && self.core.watermark_ns() > self.window_ns.start {
            self.follow(Trailed::Did(&trail))?;
        }
        Ok(())
    }

    fn follow(&mut self, what: Trailed<'_>) -> io::Result<()> {
        match &mut self.follower {
            Some(follow) => follow(what),
            None => Ok(()),
        }
    }
}
