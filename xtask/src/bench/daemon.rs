//! What the daemon takes itself: CPU time for a record, wakeups while nothing happens, memory for threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::figures::Figure;
use super::plan::{Mode, STORM};
use super::proc;
use super::storms::{Measuring, watched};
use super::table::{Row, Table, Unit};

/// CPU time for a record and losses, in the fastest switching that the host can do.
pub(super) fn events(with: Measuring<'_>, table: &mut Table) -> Result<()> {
    let Measuring { modes, rounds, .. } = with;
    let mut rows = vec![vec![Figure::default(); 4]; modes.len()];
    let mut lacks: Vec<Option<String>> = vec![None; modes.len()];
    for round in 0..rounds {
        for ((mode, row), lack) in modes.iter().zip(&mut rows).zip(&mut lacks) {
            with.says(round, mode);
            match watched(with, &STORM, mode)? {
                Ok(seen) => {
                    let told = seen.told;
                    row[0].add(told.events / seen.run.took_ns * 1e9);
                    row[1].add(seen.own_ns / told.events);
                    row[2].add(told.dropped);
                    row[3].add(seen.resident / f64::from(1 << 20));
                }
                Err(reason) => *lack = Some(reason),
            }
        }
    }
    for ((mode, row), lack) in modes.iter().zip(rows).zip(lacks) {
        match lack {
            None => table.push(mode.name, row),
            Some(reason) => table.rows.push(Row::lacking(mode.name, reason)),
        }
    }
    Ok(())
}

pub(super) const EVENTS: &[(&str, Unit)] = &[
    ("records a second", Unit::Rate),
    ("CPU for a record", Unit::Nanoseconds),
    ("lost", Unit::Count),
    ("memory, rings included", Unit::Mebibytes),
];

/// What it does while nearly nothing happens, for so long in each round.
pub(super) fn idle(with: Measuring<'_>, each: Duration, table: &mut Table) -> Result<()> {
    for mode in with.modes {
        let mut row = vec![Figure::default(); 3];
        // A thread that sleeps, as a target.
        let watching = match with.tools.begin(&mode.tool, std::process::id())? {
            Ok(watching) => watching,
            Err(reason) => {
                table.rows.push(Row::lacking(mode.name, reason));
                continue;
            }
        };
        let pid = watching.pid();
        for round in 0..with.rounds {
            with.says(round, mode);
            let before = (proc::waits(pid), proc::cpu_ns(pid), proc::switches());
            let start = Instant::now();
            thread::sleep(each);
            let seconds = start.elapsed().as_secs_f64();
            let grown = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            row[0].add(grown(proc::waits(pid), before.0));
            row[1].add(grown(proc::cpu_ns(pid), before.1) / 1e9 * 100.0);
            row[2].add(grown(proc::switches(), before.2));
        }
        watching.end(mode.is_ours())?;
        table.push(mode.name, row);
    }
    Ok(())
}

pub(super) const IDLE: &[(&str, Unit)] = &[
    ("wakeups a second", Unit::Rate),
    ("of a CPU", Unit::Percent),
    ("switches of the host a second", Unit::Rate),
];

/// What it takes to know so many threads more; the first row has the fewest.
///
/// A storm fills what is kept of the last switches, which is bounded and has nothing to do with how many threads
/// there are.
pub(super) fn memory(
    with: Measuring<'_>,
    mode: &Mode,
    counts: [usize; 2],
    table: &mut Table,
) -> Result<()> {
    let mut crowd = Crowd::default();
    let mut first = None;
    for count in counts {
        (with.say)(&format!("{count} threads"));
        crowd.grow_to(count)?;
        let watching = match with.tools.begin(&mode.tool, std::process::id())? {
            Ok(watching) => watching,
            Err(reason) => bail!("{}: {reason}", mode.name),
        };
        match with.loads.begin(&STORM)? {
            Ok(storm) => storm.run()?,
            Err(reason) => bail!("the storm: {reason}"),
        };
        // A scrape or two, as in service.
        thread::sleep(Duration::from_secs(1));
        watching.metrics()?;
        watching.metrics()?;
        let resident = proc::resident_bytes(watching.pid()) as f64;
        let rings = proc::mapped_bytes(watching.pid(), "bpf-map") as f64;
        watching.end(true)?;
        let own = resident - rings;
        let mebibytes = |bytes: f64| Figure::of([bytes / f64::from(1 << 20)]);
        let further = match first {
            None => Figure::default(),
            Some((fewest, least)) => Figure::of([(own - least) / (count - fewest) as f64]),
        };
        first.get_or_insert((count, own));
        let name = format!("{} threads", grouped(count));
        table.push(
            &name,
            vec![
                mebibytes(resident),
                mebibytes(rings),
                mebibytes(own),
                further,
            ],
        );
    }
    Ok(())
}

pub(super) const MEMORY: &[(&str, Unit)] = &[
    ("resident", Unit::Mebibytes),
    ("of that, rings", Unit::Mebibytes),
    ("without the rings", Unit::Mebibytes),
    ("each further thread", Unit::Bytes),
];

/// `11000` as `11,000`.
fn grouped(count: usize) -> String {
    if count < 1000 {
        count.to_string()
    } else {
        format!("{},{:03}", count / 1000, count % 1000)
    }
}

/// Threads of this process that do nothing, until it is dropped.
#[derive(Default)]
struct Crowd {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Crowd {
    fn grow_to(&mut self, count: usize) -> Result<()> {
        while self.threads.len() < count {
            let over = Arc::clone(&self.over);
            let thread = thread::Builder::new()
                .stack_size(16 * 1024)
                .spawn(move || {
                    while !over.load(Ordering::Acquire) {
                        thread::park();
                    }
                })
                .with_context(|| format!("can't start {count} threads"))?;
            self.threads.push(thread);
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Crowd, grouped};

    #[test]
    fn a_crowd_comes_and_goes() {
        let mut crowd = Crowd::default();
        crowd.grow_to(20).expect("twenty threads");
        crowd.grow_to(30).expect("ten more");
        assert_eq!(crowd.threads.len(), 30);
        drop(crowd);
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(11_000), "11,000");
    }
}
