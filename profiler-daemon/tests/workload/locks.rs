//! Threads that wait for a lock.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;

use crate::cpu::burn_for;
use crate::crew::{Crew, Flag, Stop};
use crate::truth::{Expect, Meter, nanos};

/// Two counters that keep a holder and a waiter in step without a wait that would be counted: who
/// waits for the other computes, and gives the CPU away between two looks.
#[derive(Default)]
struct Rounds {
    held: AtomicU64,
    taken: AtomicU64,
}

impl Rounds {
    /// Waits until the counter has passed `round`; false if the workload is over.
    fn pass(counter: &AtomicU64, round: u64, over: &Flag) -> bool {
        while counter.load(Ordering::Acquire) <= round {
            if over.load(Ordering::Acquire) {
                return false;
            }
            rustix::thread::sched_yield();
        }
        true
    }
}

/// A lock that one thread holds for a known time, again and again, while another waits for it.
///
/// `take` returns a guard; it is called by both sides. `holder` is the holder's CPU and expectation,
/// `hold` what it does with the guard.
fn contended<L, G>(
    crew: &mut Crew,
    take: L,
    reason: &'static str,
    holder: (Option<usize>, Expect),
    hold: impl Fn(&mut Meter) + Send + 'static,
) -> Result<()>
where
    L: Fn() -> Result<G> + Clone + Send + 'static,
{
    let rounds = Arc::new(Rounds::default());
    let over = Flag::default();
    let (take_held, rounds_held, over_held) =
        (take.clone(), Arc::clone(&rounds), Arc::clone(&over));
    crew.thread_on(holder.0, "holder", holder.1, move |meter, stop| {
        let mut held_ns = 0;
        let mut round = 0;
        while !stop.due() {
            let guard = take_held()?;
            let start = Instant::now();
            rounds_held.held.store(round + 1, Ordering::Release);
            hold(meter);
            held_ns += nanos(start.elapsed());
            drop(guard);
            // The lock stays free until the waiter has had it: no lock here is fair.
            if !Rounds::pass(&rounds_held.taken, round, &over_held) {
                break;
            }
            round += 1;
        }
        over_held.store(true, Ordering::Release);
        meter.fact("held_ns", held_ns);
        meter.fact("rounds", round);
        Ok(())
    })?;
    crew.thread(
        "waiter",
        Expect::blocked(reason, "holder"),
        move |meter, _| {
            let mut round = 0;
            while Rounds::pass(&rounds.held, round, &over) {
                drop(meter.wait(&take)?);
                round += 1;
                rounds.taken.store(round, Ordering::Release);
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// A mutex on a futex (the standard library's), held by a thread that sleeps.
pub(crate) fn mutex(crew: &mut Crew) -> Result<()> {
    let time = crew.options.hold_or(20);
    let hold = move |meter: &mut Meter| meter.wait(|| thread::sleep(time));
    let holder = (crew.options.cpu, Expect::blocked("sleep", "timer"));
    contended(crew, leaked_mutex(), "lock", holder, hold)
}

/// A mutex whose holder computes and shares its CPU with a hog of another process: while the holder
/// is preempted, the waiter waits for the hog, by way of the holder.
pub(crate) fn preempted_holder(crew: &mut Crew) -> Result<()> {
    let cpu = crew.options.cpu_or_last()?;
    let hog_cpu = cpu.to_string();
    crew.process(&["spin", "--cpu", &hog_cpu, "--threads", "1", "--name", "hog"])?;
    let time = crew.options.hold_or(20);
    let hold = move |_: &mut Meter| burn_for(time);
    // The waiter may be anywhere, so that it need not compete with the two.
    let holder = (Some(cpu), Expect::contended("hog"));
    contended(crew, leaked_mutex(), "lock", holder, hold)
}

/// How to take a mutex that lives as long as the process.
fn leaked_mutex() -> impl Fn() -> Result<std::sync::MutexGuard<'static, ()>> + Clone + Send {
    let mutex: &'static Mutex<()> = Box::leak(Box::default());
    || Ok(mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A condition variable on a futex, notified by a thread that sleeps in between.
pub(crate) fn condvar(crew: &mut Crew) -> Result<()> {
    let period = crew.options.period_or(20);
    let shared: Arc<(Mutex<(u64, bool)>, Condvar)> = Arc::default();
    let notifying = Arc::clone(&shared);
    crew.thread(
        "waiter",
        Expect::blocked("lock", "notifier"),
        move |meter, _| {
            let (mutex, condvar) = &*shared;
            let mut seen = 0;
            loop {
                let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                let guard = meter.wait(|| {
                    condvar
                        .wait_while(guard, |(count, over)| *count == seen && !*over)
                        .unwrap_or_else(PoisonError::into_inner)
                });
                seen = guard.0;
                if guard.1 {
                    return Ok(());
                }
            }
        },
    )?;
    crew.thread(
        "notifier",
        Expect::blocked("sleep", "timer"),
        move |meter, stop| {
            let (mutex, condvar) = &*notifying;
            loop {
                meter.wait(|| thread::sleep(period));
                let mut guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                guard.0 += 1;
                guard.1 = stop.due();
                let over = guard.1;
                drop(guard);
                condvar.notify_one();
                if over {
                    return Ok(());
                }
            }
        },
    )?;
    Ok(())
}

/// An advisory lock on a whole file (`flock`), each side with a descriptor of its own.
pub(crate) fn flock(crew: &mut Crew) -> Result<()> {
    let path = crew
        .options
        .dir
        .join(format!("schedscope-workload-{}.lock", std::process::id()));
    File::create(&path).with_context(|| format!("creating '{}'", path.display()))?;
    let removed = path.clone();
    crew.at_end(move || {
        std::fs::remove_file(&removed)
            .with_context(|| format!("removing '{}'", removed.display()))?;
        Ok(serde_json::Map::new())
    });
    let time = crew.options.hold_or(20);
    let take = move || -> Result<File> {
        // Closing the file, which is the only one of its open file description, unlocks it.
        let file = File::open(&path).with_context(|| format!("opening '{}'", path.display()))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).context("flock")?;
        Ok(file)
    };
    let hold = move |meter: &mut Meter| meter.wait(|| thread::sleep(time));
    let holder = (crew.options.cpu, Expect::blocked("sleep", "timer"));
    contended(crew, take, "lock", holder, hold)
}

/// Sleeps again and again (`clock_nanosleep`).
pub(crate) fn sleep_loop(crew: &mut Crew) -> Result<()> {
    let period = crew.options.period_or(10);
    let body = move |meter: &mut Meter, stop: &Stop| {
        while !stop.due() {
            meter.wait(|| thread::sleep(period));
        }
        meter.fact("period_ns", nanos(period));
        Ok(())
    };
    crew.thread("sleeper", Expect::blocked("sleep", "timer"), body)?;
    Ok(())
}

/// Threads that make and close descriptors of one process. A spinlock in the kernel guards their table, and it is the
/// only thing that they could wait for: on a kernel with `PREEMPT_RT` such a lock is one that sleeps.
pub(crate) fn descriptors(crew: &mut Crew) -> Result<()> {
    let file: &'static File = Box::leak(Box::new(File::open("/dev/null")?));
    for number in 0..crew.options.threads_or(4) {
        let name = format!("opener-{number}");
        crew.thread(&name, Expect::mixed(), move |meter, stop| {
            let mut rounds: u64 = 0;
            while !stop.due() {
                drop(rustix::io::dup(file).context("a descriptor")?);
                rounds += 1;
            }
            meter.fact("rounds", rounds);
            Ok(())
        })?;
    }
    Ok(())
}
