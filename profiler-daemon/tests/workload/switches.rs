//! Threads that hand a turn to each other as fast as they can.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::thread::futex;

use crate::crew::{Crew, allowed_cpus};
use crate::truth::{Expect, nanos};

/// One side of a pair.
trait Side: Send + 'static {
    /// Waits for the turn; false if the other side has ended.
    fn await_turn(&mut self) -> Result<bool>;
    /// Gives the turn away; with `last`, tells the other side to end.
    fn pass_turn(&mut self, last: bool) -> Result<()>;
}

/// A turn in a futex word: the number of the side that has it, or [`FutexSide::OVER`].
struct FutexSide {
    turn: Arc<AtomicU32>,
    own: u32,
}

impl FutexSide {
    const OVER: u32 = u32::MAX;
}

impl Side for FutexSide {
    fn await_turn(&mut self) -> Result<bool> {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            if turn == self.own || turn == Self::OVER {
                return Ok(turn == self.own);
            }
            match futex::wait(&self.turn, futex::Flags::PRIVATE, turn, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error).context("futex wait"),
            }
        }
    }

    fn pass_turn(&mut self, last: bool) -> Result<()> {
        let turn = if last { Self::OVER } else { 1 - self.own };
        self.turn.store(turn, Ordering::Release);
        futex::wake(&self.turn, futex::Flags::PRIVATE, 1).context("futex wake")?;
        Ok(())
    }
}

/// A turn that is a byte in a pipe; the pipe's end is the end.
struct PipeSide {
    from: PipeReader,
    to: Option<PipeWriter>,
}

impl Side for PipeSide {
    fn await_turn(&mut self) -> Result<bool> {
        Ok(self.from.read(&mut [0]).context("reading the pipe")? == 1)
    }

    fn pass_turn(&mut self, last: bool) -> Result<()> {
        if last {
            self.to = None;
        }
        match &mut self.to {
            Some(to) => to.write_all(b"x").context("writing the pipe"),
            None => Ok(()),
        }
    }
}

/// Adds two threads that pass a turn to and fro; the first has it, and sleeps for the period, if there is one, before
/// it passes it on.
fn pair(
    crew: &mut Crew,
    cpu: Option<usize>,
    number: usize,
    reason: &'static str,
    sides: [Box<dyn Side>; 2],
) -> Result<()> {
    for (place, mut side) in sides.into_iter().enumerate() {
        let name = format!("{}-{number}", ["ping", "pong"][place]);
        let mut waits = place == 1;
        let pause = Some(crew.options.period_or(0)).filter(|time| place == 0 && !time.is_zero());
        crew.thread_on(
            cpu,
            &name,
            Expect::blocked(reason, "partner"),
            move |meter, stop| {
                // A round is all from the end of one wait to the end of the next: no time off the
                // CPU, of whatever kind, is longer than the longest round.
                let mut longest_round = Duration::ZERO;
                let mut round = Instant::now();
                let mut goes_on = true;
                while goes_on {
                    goes_on = !waits || meter.wait(|| side.await_turn())?;
                    waits = true;
                    longest_round = longest_round.max(round.elapsed());
                    round = Instant::now();
                    if goes_on {
                        if let Some(time) = pause {
                            meter.wait(|| thread::sleep(time));
                        }
                        goes_on = !stop.due();
                        side.pass_turn(!goes_on)?;
                    }
                }
                meter.fact(
                    "longest_round_ns",
                    nanos(longest_round.max(round.elapsed())),
                );
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// The two sides of the kind that the user asked for.
fn sides(kind: &str) -> Result<(&'static str, [Box<dyn Side>; 2])> {
    if kind == "pipe" {
        let (near, far) = (
            std::io::pipe().context("pipe")?,
            std::io::pipe().context("pipe")?,
        );
        let side = |from, to| -> Box<dyn Side> { Box::new(PipeSide { from, to: Some(to) }) };
        return Ok(("pipe", [side(near.0, far.1), side(far.0, near.1)]));
    }
    let turn = Arc::new(AtomicU32::new(0));
    let side = |own| -> Box<dyn Side> {
        Box::new(FutexSide {
            turn: Arc::clone(&turn),
            own,
        })
    };
    Ok(("lock", [side(0), side(1)]))
}

/// `--threads` pairs, on one CPU if one is named.
pub(crate) fn pingpong(crew: &mut Crew) -> Result<()> {
    for number in 0..crew.options.threads_or(1) {
        let (reason, sides) = sides(&crew.options.kind)?;
        pair(crew, crew.options.cpu, number, reason, sides)?;
    }
    Ok(())
}

/// `--threads` pairs on each CPU: as many switches as the host can do.
pub(crate) fn storm(crew: &mut Crew) -> Result<()> {
    let mut number = 0;
    for cpu in allowed_cpus()? {
        for _ in 0..crew.options.threads_or(1) {
            let (reason, sides) = sides(&crew.options.kind)?;
            pair(crew, Some(cpu), number, reason, sides)?;
            number += 1;
        }
    }
    Ok(())
}
