//! The loop between the kernel and the core: waits, drains, feeds, and answers questions in between.
//!
//! It has a thread of its own, so that a slow scrape or a busy runtime can't hold up the rings. The
//! rest of the process talks to it through a [`Handle`]: every question is a closure that the loop
//! runs between two drains.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use profiler_ebpf::ThreadRecord;
use profiler_ebpf::why::MAX_EVIDENCE_TARGETS;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::self_check::{Findings, SelfCheck};
use super::shedding::{self, Shedder};
use super::user_stacks::{NamedStacks, UserStacks};
use super::witness::Witness;
use crate::core::{Core, Snapshot, TargetSpec, UnitNews};
use crate::identity::{Keeper, keeper::LEARN_EVERY};
use crate::priority::Hurry;
use crate::recording::{Intake, Tape};
use crate::source::evidence::EvidenceTargets;
use crate::source::quotas::groups_with_quota;
use crate::source::{Kernel, Options, ThreadsError, memory, pids, procfs};

/// A record is visible at the latest this long after the time that it carries: the scheduler reads its
/// clock before it chooses the next thread, and may do some balancing in between. One that is later
/// still is taken in all the same, out of order, and counted.
const SLACK_NS: u64 = 2_000_000;

/// Rings above this fill are drained without slack: a record out of order is better than one lost.
const URGENT_FILL: f64 = 0.5;

/// The clocks are related anew this often: in between they drift apart by less than a microsecond,
/// against a slack of two milliseconds.
const CALIBRATE_EVERY: Duration = Duration::from_secs(2);

/// The drain thread runs rarely and shortly, but when a ring fills it has some milliseconds at most,
/// against whatever made so many switches.
const DRAIN_NICE: i32 = -20;

/// Threads are read again this long after records were lost, to find out what that concerns.
const RESYNC_AFTER: Duration = Duration::from_secs(1);

/// And this many times as long after as the last time took: with very many threads reading them is itself what
/// rings overflow by.
const RESYNC_SHARE: u32 = 20;

/// A wait that goes on this long, and whose reason is not known, is looked at.
const LOOK_AFTER_NS: u64 = 1_000_000_000;

/// Where the kernel does not tell when quotas are used up, it is read this often who has one: it takes two
/// system calls a cgroup.
const READ_QUOTAS_EVERY: Duration = Duration::from_secs(10);

/// Least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// And this many times as long as the last one took: each goes through all threads of the host, and may take
/// one part of the time in so many.
const LOOK_SHARE: u32 = 100;

/// Stands for all processes in [`Engine::watched`]; no process has this id.
const EVERYBODY: [u32; 1] = [0];

/// What the loop has done, for the daemon's own metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Times that it woke up, for whatever reason.
    pub wakeups: u64,
    /// Times that it emptied the rings.
    pub drains: u64,
    /// Times that it read all threads again because records had been lost.
    pub resyncs: u64,
}

/// The threads that there are.
struct Found {
    threads: Vec<ThreadRecord>,
    /// How many of them the kernel shows to no BPF program.
    hidden: usize,
    /// When they were read, by the records' clock.
    read_ns: RangeInclusive<u64>,
}

/// The kernel's records on one side, the figures on the other.
pub struct Engine {
    kernel: Kernel,
    intake: Intake,
    /// Until there is a thread that drains.
    hurry: Option<Hurry>,
    /// Nothing later is taken in.
    end_ns: u64,
    max_interval: Duration,
    work: Work,
    /// Fullest that a ring was since somebody asked.
    fill: f64,
    lost: u64,
    /// Threads that were there at the start and that the kernel shows to no BPF program.
    hidden: usize,
    resync_at: Option<Instant>,
    /// Least time to the next one.
    resync_pause: Duration,
    calibrated_at: Instant,
    witness: Witness,
    user_stacks: Option<UserStacks>,
    /// The processes whose waits are looked at.
    watched: Vec<u32>,
    /// Whether waits are looked at at all.
    stacks: bool,
    /// Waits that go on are not looked at again before this.
    look_due: Instant,
    /// Who is told which processes began, and when that was last done.
    keeper: Option<(Keeper, Instant)>,
    /// Who tells which units there are.
    units: Option<mpsc::Receiver<UnitNews>>,
    /// When it is due to be read who has a quota; never where the kernel tells when one is used up.
    read_quotas_at: Option<Instant>,
    /// Holds figures against the kernel's, if somebody wants that.
    self_check: Option<SelfCheck>,
    shedder: Shedder,
    /// How long the last drain took.
    drained_in: Duration,
}

impl Engine {
    /// Attaches to the scheduler, reads which threads there are, and begins the window.
    ///
    /// `max_interval` bounds the time between two drains; a ring that fills faster rings the doorbell.
    pub fn start(
        options: &Options,
        targets: Vec<TargetSpec>,
        max_interval: Duration,
    ) -> anyhow::Result<Self> {
        Self::start_recorded(options, targets, max_interval, None)
    }

    /// The same, and what the core is given goes to the tape, if there is one.
    pub fn start_recorded(
        options: &Options,
        targets: Vec<TargetSpec>,
        max_interval: Duration,
        tape: Option<Tape>,
    ) -> anyhow::Result<Self> {
        // Read while the probes are loaded: both take a while.
        let mut witness = Witness::new(options.stacks.is_some());
        let user_stacks = if options.user_stacks {
            Some(UserStacks::start().context("cannot start the thread that names user stacks")?)
        } else {
            None
        };
        let hurry = Hurry::begin(DRAIN_NICE);
        // Rings begin to fill only when the names are there: a storm fills them faster than names are read.
        let kernel = Kernel::start_when(options, &mut || witness.await_names())?;
        let mut engine = Self {
            hurry: Some(hurry),
            intake: Intake::new(Core::new(targets), tape),
            kernel,
            end_ns: u64::MAX,
            max_interval,
            work: Work::default(),
            fill: 0.0,
            lost: 0,
            hidden: 0,
            resync_at: None,
            resync_pause: Duration::ZERO,
            calibrated_at: Instant::now(),
            witness,
            user_stacks,
            watched: Vec::new(),
            stacks: options.stacks.is_some(),
            look_due: Instant::now(),
            keeper: None,
            units: None,
            read_quotas_at: None,
            self_check: None,
            shedder: Shedder::default(),
            drained_in: Duration::ZERO,
        };
        if options.throttling && !engine.kernel.follows_quotas() {
            engine.read_quotas_at = Some(Instant::now());
        }
        engine.read_quotas();
        let found = engine
            .read_threads()
            .context("cannot read which threads there are")?;
        engine.hidden = found.hidden;
        let start_ns = *found.read_ns.end();
        engine.intake.found(&found.threads, found.read_ns);
        drop(found.threads);
        // Everything that happened while they were read must be in before the window begins.
        std::thread::sleep(Duration::from_nanos(SLACK_NS));
        engine.drain_to(start_ns);
        engine.intake.begin_window();
        engine.watch();
        engine.look_at_waits(start_ns);
        memory::give_back();
        Ok(engine)
    }

    fn read_threads(&mut self) -> Result<Found, ThreadsError> {
        // Rings fill while it lasts, however little there is to do.
        self.shedder.excuse();
        let from_ns = self.kernel.now_ns();
        let mut threads = self.kernel.threads()?;
        // /proc has other ids in another PID namespace, where the iterator does not show all anyway.
        let hidden = if pids::differ() {
            0
        } else {
            procfs::add_missing(&mut threads)
        };
        Ok(Found {
            threads,
            hidden,
            read_ns: from_ns..=self.kernel.now_ns(),
        })
    }

    /// Has the probes look at the waits of those processes that belong to a target now.
    fn watch(&mut self) {
        if !self.stacks {
            return;
        }
        let mut tgids: Vec<u32> = if self.intake.core().watches_all() {
            EVERYBODY.to_vec()
        } else {
            self.intake.core().watched().collect()
        };
        tgids.sort_unstable();
        tgids.dedup();
        if tgids == self.watched {
            return;
        }
        let chosen = if tgids == EVERYBODY || tgids.len() > MAX_EVIDENCE_TARGETS as usize {
            EvidenceTargets::All
        } else {
            EvidenceTargets::Processes(&tgids)
        };
        // Failing leaves some waits without evidence; the next drain tries again.
        if self.kernel.set_evidence_targets(chosen).is_ok() {
            self.watched = tgids;
        }
    }

    /// Looks where the threads of the targets stand that wait now, and takes in everything up to
    /// `until_ns`. What can't be seen stays as it is known.
    fn look_at_waits(&mut self, until_ns: u64) {
        if !self.stacks || self.watched.is_empty() {
            return;
        }
        let records = self.kernel.open_evidence().unwrap_or_default();
        self.drain_to(until_ns);
        let witness = &mut self.witness;
        let seen = records.iter().map(|record| witness.read(record));
        self.intake.seen_waiting(seen);
    }

    /// Looks at waits that go on of which the reason is not known, if there are such and looking has not
    /// taken much of the time of late. A wait that was looked at, whatever that showed, is no reason to look
    /// again.
    pub fn look_at_open_waits(&mut self) {
        let start = Instant::now();
        if start >= self.look_due && self.intake.core().has_unexplained_wait(LOOK_AFTER_NS) {
            self.look_at_waits(self.intake.core().watermark_ns());
            self.look_due = Instant::now() + pause_after_look(start.elapsed());
        }
    }

    /// Takes in what the rings hold, as far as it is sure to be complete.
    pub fn drain(&mut self) {
        if self.calibrated_at.elapsed() >= CALIBRATE_EVERY {
            self.calibrated_at = Instant::now();
            // Failing keeps the relation that there was, which goes stale by microseconds.
            let _ = self.kernel.calibrate();
        }
        let fill = self.kernel.fill();
        self.fill = self.fill.max(fill);
        self.shed(fill);
        let begun = Instant::now();
        let slack_ns = if fill > URGENT_FILL { 0 } else { SLACK_NS };
        let until_ns = self.kernel.now_ns().saturating_sub(slack_ns);
        self.check_up_to(until_ns);
        self.drain_to(until_ns);
        self.drained_in = begun.elapsed();
        self.resync_after_loss();
        self.begin_part_if_due();
        self.watch();
        self.read_quotas();
        self.tell_births();
        self.learn_units();
    }

    /// Leaves out more threads, or fewer, as the rings fill.
    fn shed(&mut self, fill: f64) {
        let found = shedding::Found {
            fill,
            read: self.intake.core().events(),
            lost: self.kernel.ring_losses(),
            busy_ns: u64::try_from(self.drained_in.as_nanos()).unwrap_or(u64::MAX),
        };
        let is_over = self.shedder.act(&mut self.kernel, found, SLACK_NS);
        if is_over {
            // Those that sleep have no record soon that would say what they do.
            self.resync_at = Some(Instant::now() + RESYNC_AFTER.max(self.resync_pause));
        }
        if self.shedder.is_on()
            && let Some(check) = &mut self.self_check
        {
            check.forget();
        }
    }

    /// Does once what is done of the kernel later, when privileges have been given up.
    pub fn rehearse(&mut self) -> anyhow::Result<()> {
        self.kernel.calibrate()?;
        self.kernel.threads()?;
        pids::rehearse()?;
        Ok(())
    }

    fn read_quotas(&mut self) {
        if self.read_quotas_at.is_some_and(|at| Instant::now() >= at) {
            self.intake.untold_quotas(groups_with_quota());
            self.read_quotas_at = Some(Instant::now() + READ_QUOTAS_EVERY);
        }
    }

    /// Has some threads' figures held against the kernel's from now on.
    pub fn check_itself(&mut self) {
        self.self_check = Some(SelfCheck::start());
    }

    fn check_up_to(&mut self, until_ns: u64) {
        let Some(mut check) = self.self_check.take() else {
            return;
        };
        if let Some(at_ns) = check.asks_at_ns().filter(|&at_ns| at_ns <= until_ns) {
            self.drain_to(at_ns);
            check.ask_core(self.intake.core());
        }
        check.ask_kernel(self.intake.core(), || self.kernel.now_ns());
        self.self_check = Some(check);
    }

    /// What that has shown so far.
    #[must_use]
    pub fn self_check(&self) -> Findings {
        let check = self.self_check.as_ref();
        check.map(SelfCheck::findings).unwrap_or_default()
    }

    /// Has this keeper told which processes begin.
    pub fn tell(&mut self, keeper: Keeper) {
        self.keeper = Some((keeper, Instant::now()));
    }

    /// Keeps figures by unit, as this tells which there are.
    pub fn follow_units(&mut self, news: mpsc::Receiver<UnitNews>) {
        self.intake.core_mut().keep_units();
        self.units = Some(news);
    }

    fn learn_units(&mut self) {
        for news in self.units.iter().flat_map(mpsc::Receiver::try_iter) {
            self.intake.core_mut().learn_units(&news);
        }
    }

    fn tell_births(&mut self) {
        let Some((keeper, told)) = &mut self.keeper else {
            return;
        };
        if told.elapsed() >= LEARN_EVERY && self.intake.core().has_births() {
            *told = Instant::now();
            keeper.tell(self.intake.core_mut().take_births());
        }
    }

    fn drain_to(&mut self, watermark_ns: u64) {
        let watermark_ns = watermark_ns.min(self.end_ns);
        let intake = &mut self.intake;
        for cpu in 0..self.kernel.cpus() {
            // Its record comes only when there is room again; until then nobody else tells.
            if let Some((from_ns, until_ns)) = self.kernel.open_gap(cpu) {
                intake.doubt(cpu, from_ns, until_ns);
            }
        }
        let witness = &mut self.witness;
        self.kernel.drain_with_evidence(|streams, evidence| {
            intake.seen(evidence.iter().map(|record| witness.read(record)));
            intake.feed(streams, watermark_ns)
        });
        self.work.drains += 1;
        self.name_user_stacks();
    }

    fn name_user_stacks(&mut self) {
        let met = self.witness.take_user_stacks();
        let Some(named) = &mut self.user_stacks else {
            return;
        };
        for (tgid, number) in met {
            let id = i32::try_from(number)
                .ok()
                .filter(|_| named.is_new(tgid, number));
            if let Some(addresses) = id.and_then(|id| self.kernel.user_stack(id)) {
                named.name(tgid, number, addresses);
            }
        }
    }

    /// User stacks by process and number, once; empty if they are not taken.
    pub(super) fn take_named_stacks(&mut self) -> NamedStacks {
        self.user_stacks
            .take()
            .map_or_else(NamedStacks::new, UserStacks::finish)
    }

    fn resync_after_loss(&mut self) {
        let lost = self.intake.core().lost();
        if lost != self.lost {
            self.lost = lost;
            self.resync_at = Some(Instant::now() + RESYNC_AFTER.max(self.resync_pause));
        }
        if self.resync_at.is_some_and(|at| Instant::now() >= at) {
            self.resync_at = None;
            let start = Instant::now();
            // Failing leaves doubt where there was doubt: nothing to undo.
            if let Ok(found) = self.read_threads() {
                self.work.resyncs += 1;
                self.intake.found(&found.threads, found.read_ns);
            }
            self.resync_pause = start.elapsed() * RESYNC_SHARE;
        }
    }

    /// Finds the threads anew where the recording needs it to go on in another file.
    fn begin_part_if_due(&mut self) {
        if !self.intake.tape().is_some_and(Tape::take_part_is_due) {
            return;
        }
        self.tell_again();
        // Failing leaves the file as it is; it asks again.
        if let Ok(found) = self.read_threads() {
            self.intake.begin_part(&found.threads, found.read_ns);
        }
    }

    /// Who reads only what follows has to know which threads are left out.
    fn tell_again(&mut self) {
        let now_ns = self.kernel.now_ns();
        self.shedder.tell_again(&mut self.kernel, now_ns);
    }

    /// Ends the window at this time of the records' clock: what happens later is not counted.
    pub fn end_at(&mut self, end_ns: u64) {
        self.end_ns = end_ns;
    }

    /// Takes in everything up to the end of the window, or up to now if that has none or it is still
    /// to come.
    pub fn finish(&mut self) -> Snapshot {
        let end_ns = self.end_ns.min(self.kernel.now_ns());
        self.end_ns = end_ns;
        while self.kernel.now_ns() < end_ns.saturating_add(SLACK_NS) {
            std::thread::sleep(Duration::from_nanos(SLACK_NS / 2));
        }
        // What was left out up to now; the events of the last moments, which come after the end, among it.
        self.shedder.tell_again(&mut self.kernel, end_ns);
        self.look_at_waits(end_ns);
        self.drain_to(end_ns);
        if let Some((keeper, _)) = &self.keeper {
            keeper.tell(self.intake.core_mut().take_births());
        }
        self.intake.core().snapshot()
    }

    /// The kernel's side.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// The figures' side.
    pub fn core(&mut self) -> &mut Core {
        self.intake.core_mut()
    }

    /// Adds processes to a target, as [`Core::join`] does.
    pub fn join(&mut self, target: usize, tgids: &BTreeSet<u32>) {
        self.intake.join(target, tgids);
    }

    /// Where the core's input is recorded, if it is.
    #[must_use]
    pub fn tape(&self) -> Option<&Tape> {
        self.intake.tape()
    }

    /// Begins a recording: it holds what the core is given from now on.
    pub fn begin_recording(&mut self, tape: Tape) -> Result<(), ThreadsError> {
        self.tell_again();
        let found = self.read_threads()?;
        self.intake.set_tape(tape);
        self.intake.begin_part(&found.threads, found.read_ns);
        // It has to know who has a quota, too.
        if self.read_quotas_at.is_some() {
            self.read_quotas_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Ends the recording: what the core is given from now on is not in it.
    pub fn end_recording(&mut self) {
        self.intake.drop_tape();
    }

    /// The fullest that a ring was, from 0 to 1, since this was last asked.
    pub fn take_fill(&mut self) -> f64 {
        std::mem::take(&mut self.fill)
    }

    /// Why the kernel's functions have no names, if they are wanted and have none.
    #[must_use]
    pub fn symbols_lack(&self) -> Option<&str> {
        self.witness.lack()
    }

    /// Threads that were there at the start and that the kernel shows to no BPF program.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// What the loop has done so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// Changes the bound on the time between two drains.
    pub fn set_max_interval(&mut self, max_interval: Duration) {
        self.max_interval = max_interval;
    }

    /// Runs the loop in a thread of its own, until every [`Handle`] is gone.
    pub fn spawn(mut self) -> anyhow::Result<(Handle, JoinHandle<()>)> {
        let hurry = self.hurry.take();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (questions, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("drain".into())
            .spawn({
                let bell = Arc::clone(&bell);
                move || self.run(&inbox, &bell)
            })
            .context("cannot start the drain thread")?;
        drop(hurry);
        let bell = Bell(bell);
        Ok((Handle { questions, bell }, thread))
    }

    fn run(mut self, inbox: &mpsc::Receiver<Question>, bell: &OwnedFd) {
        // A ring that is not emptied in time loses records; where this is not allowed, larger rings do.
        let _ = setpriority_process(Some(gettid()), DRAIN_NICE);
        loop {
            self.wait(bell);
            self.work.wakeups += 1;
            self.kernel.clear_doorbell();
            self.drain();
            loop {
                match inbox.try_recv() {
                    Ok(question) => question(&mut self),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn wait(&self, bell: &OwnedFd) {
        let mut timeout = match self.resync_at {
            Some(at) => self
                .max_interval
                .min(at.saturating_duration_since(Instant::now())),
            None => self.max_interval,
        };
        if self.shedder.is_due() {
            timeout = timeout.min(Duration::from_nanos(SLACK_NS));
        }
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [
            PollFd::new(&self.kernel, PollFlags::IN),
            PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN),
        ];
        // An interrupted poll is a wakeup like any other.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        // Nothing to read means that nobody rang.
        let _ = rustix::io::read(bell, &mut count);
    }
}

/// How long waits are not looked at after a look that took so long.
fn pause_after_look(took: Duration) -> Duration {
    took.saturating_mul(LOOK_SHARE).max(LOOK_PAUSE)
}

type Question = Box<dyn FnOnce(&mut Engine) + Send>;

/// The loop has ended, which it does only when something in it broke.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the drain thread has ended; the log says why")]
pub struct EngineGone;

/// Asks the loop things. The loop ends when the last handle is dropped.
#[derive(Clone)]
pub struct Handle {
    // The order matters: who wakes up by the last handle's end must find that nobody asks any more.
    questions: mpsc::Sender<Question>,
    bell: Bell,
}

/// Wakes the loop, at last when it is dropped.
#[derive(Clone)]
struct Bell(Arc<OwnedFd>);

impl Bell {
    fn ring(&self) {
        // A full counter means that it has been rung already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Handle {
    /// Has the loop drain the rings and then answer a question.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, EngineGone> {
        let (answer, reply) = tokio::sync::oneshot::channel();
        let question: Question = Box::new(move |engine| {
            // Whoever asked may have gone away since.
            let _ = answer.send(question(engine));
        });
        self.questions.send(question).map_err(|_| EngineGone)?;
        self.bell.ring();
        reply.await.map_err(|_| EngineGone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause_after_look;

    #[test]
    fn looking_at_waits_takes_a_hundredth_of_the_time_at_most() {
        let pause = |micros| pause_after_look(Duration::from_micros(micros));
        assert_eq!(pause(0), Duration::from_millis(100));
        assert_eq!(pause(1000), Duration::from_millis(100));
        assert_eq!(pause(50_000), Duration::from_secs(5));
        assert_eq!(pause(400_000), Duration::from_secs(40));
    }
}
