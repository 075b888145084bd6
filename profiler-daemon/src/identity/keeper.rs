//! The thread that has the registry.
//!
//! Reading `/proc/PID/cgroup` takes a lock that the kernel may hold for long while many cgroups come and
//! go, so neither the drain nor the server may wait for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::places::Places;
use super::registry::{Known, Registry};
use super::selection::Selection;
use crate::core::{Birth, UnitNews};
use crate::priority;

/// News of births are best brought no more often than this: a wakeup for each would disturb an idle host,
/// and what is born inherits its parent's cgroup anyway.
pub const LEARN_EVERY: Duration = Duration::from_secs(2);

/// Messages that wait. News for which there is no room are lost; questions wait for room.
const MAX_MESSAGES: usize = 64;

/// Who moved is looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// News of units that wait to be taken.
const MAX_NEWS: usize = 8;

enum Message {
    Births(Vec<Birth>),
    Question(Vec<u32>, oneshot::Sender<HashMap<u32, Known>>),
    Selection(Vec<Selection>, oneshot::Sender<Vec<BTreeSet<u32>>>),
}

/// The keeper has ended, which it does only when something in it broke.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the thread that knows the units of processes has ended; the log says why")]
pub struct KeeperGone;

/// Asks the keeper things, and brings it news. It ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub struct Keeper {
    messages: SyncSender<Message>,
}

impl Keeper {
    /// Starts the thread, which begins with reading which processes there are.
    pub fn start(registry: Registry) -> std::io::Result<Self> {
        let (messages, inbox) = sync_channel(MAX_MESSAGES);
        std::thread::Builder::new()
            .name("identity".into())
            .spawn(move || {
                priority::usual();
                keep(registry, &inbox);
            })?;
        Ok(Self { messages })
    }

    /// [`Self::start`], and tells which units there are, of which at most `most` get a number.
    pub fn start_with_units(
        registry: Registry,
        most: usize,
    ) -> std::io::Result<(Self, Receiver<UnitNews>)> {
        let (messages, inbox) = sync_channel(MAX_MESSAGES);
        let (units, news) = sync_channel(MAX_NEWS);
        let teller = Teller {
            places: Places::new(most),
            units,
        };
        std::thread::Builder::new()
            .name("identity".into())
            .spawn(move || {
                priority::usual();
                keep_units(registry, &inbox, teller);
            })?;
        Ok((Self { messages }, news))
    }

    /// Brings news of processes that began, in their order. Never waits.
    pub fn tell(&self, births: Vec<Birth>) {
        // What gets lost is read when somebody asks for it.
        let _ = self.messages.try_send(Message::Births(births));
    }

    /// What these processes are called and belong to, as far as anybody knows.
    pub async fn known(&self, tgids: Vec<u32>) -> Result<HashMap<u32, Known>, KeeperGone> {
        self.ask(tgids)?.await.map_err(|_| KeeperGone)
    }

    /// [`Self::known`] where nothing else is to be done meanwhile. Not for asynchronous code.
    pub fn known_now(&self, tgids: Vec<u32>) -> Result<HashMap<u32, Known>, KeeperGone> {
        self.ask(tgids)?.blocking_recv().map_err(|_| KeeperGone)
    }

    /// The processes that each of these selections takes now.
    pub async fn select(
        &self,
        selections: Vec<Selection>,
    ) -> Result<Vec<BTreeSet<u32>>, KeeperGone> {
        let (answer, reply) = oneshot::channel();
        let question = Message::Selection(selections, answer);
        self.messages.try_send(question).map_err(|_| KeeperGone)?;
        reply.await.map_err(|_| KeeperGone)
    }

    fn ask(&self, tgids: Vec<u32>) -> Result<oneshot::Receiver<HashMap<u32, Known>>, KeeperGone> {
        let (answer, reply) = oneshot::channel();
        let question = Message::Question(tgids, answer);
        // A full inbox means that a question waits for a long read already; one more can't help that.
        self.messages.try_send(question).map_err(|_| KeeperGone)?;
        Ok(reply)
    }
}

fn keep(mut registry: Registry, inbox: &Receiver<Message>) {
    registry.discover(Instant::now());
    for message in inbox {
        heed(&mut registry, message, Instant::now());
    }
}

fn heed(registry: &mut Registry, message: Message, now: Instant) {
    match message {
        Message::Births(births) => {
            registry.born(&births, now);
            registry.look_at_born(&births, now);
            registry.sweep(now);
        }
        Message::Question(tgids, answer) => {
            // Whoever asked may have gone away since.
            let _ = answer.send(registry.known(tgids, now));
        }
        Message::Selection(selections, answer) => {
            registry.refresh(now);
            let _ = answer.send(registry.select(&selections, now));
        }
    }
}

/// Tells which units there are.
struct Teller {
    places: Places,
    units: SyncSender<UnitNews>,
}

impl Teller {
    fn tell(&mut self, registry: &mut Registry, now: Instant) {
        let news = self.places.news(&registry.placed(now), now);
        if !news.is_empty() {
            // Nobody listens any more only when everything ends.
            let _ = self.units.send(news);
        }
    }
}

fn keep_units(mut registry: Registry, inbox: &Receiver<Message>, mut teller: Teller) {
    let mut looked = Instant::now();
    registry.discover(looked);
    teller.tell(&mut registry, looked);
    loop {
        let message = inbox.recv_timeout(LOOK_EVERY.saturating_sub(looked.elapsed()));
        let now = Instant::now();
        let mut has_news = false;
        match message {
            Ok(message) => {
                has_news = matches!(message, Message::Births(_));
                heed(&mut registry, message, now);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if now.saturating_duration_since(looked) >= LOOK_EVERY {
            looked = now;
            registry.reread(now);
            has_news = true;
        }
        if has_news {
            teller.tell(&mut registry, now);
        }
    }
}
