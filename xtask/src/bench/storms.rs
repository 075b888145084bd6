//! What watching costs the watched: each workload with somebody watching, between two runs without.

use anyhow::Result;

use super::figures::Figure;
use super::load::{Loads, Run};
use super::plan::{Mode, Work, Workload};
use super::proc::{self, Counting};
use super::table::{Row, Table, Unit};
use super::tools::{Told, Tools, Watching};

/// What is measured, and with what.
#[derive(Clone, Copy)]
pub(super) struct Measuring<'a> {
    pub(super) loads: &'a Loads,
    pub(super) tools: &'a Tools<'a>,
    /// Who watches, in turns.
    pub(super) modes: &'a [&'a Mode],
    pub(super) rounds: usize,
    /// Of what the bars name, so many runs in a round.
    pub(super) repeats: usize,
    /// Is told how far it has come.
    pub(super) say: &'a dyn Fn(&str),
}

/// What one way to watch showed in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) run: Run,
    /// CPU time that it took itself meanwhile.
    pub(super) own_ns: f64,
    /// Its memory at the end of the workload.
    pub(super) resident: f64,
    /// Its BPF programs' runs and run time meanwhile, if the kernel counted.
    pub(super) probes: (f64, f64),
    pub(super) told: Told,
}

impl Measuring<'_> {
    /// Says that a round with this one watching is next.
    pub(super) fn says(&self, round: usize, mode: &Mode) {
        let rounds = self.rounds;
        (self.say)(&format!("round {} of {rounds}, {}", round + 1, mode.name));
    }
}

/// One run with somebody watching; an error that is a string is a reason why this host can't.
pub(super) fn watched(
    with: Measuring<'_>,
    workload: &Workload,
    mode: &Mode,
) -> Result<Result<Seen, String>> {
    let gated = match with.loads.begin(workload)? {
        Ok(gated) => gated,
        Err(reason) => return Ok(Err(reason)),
    };
    let watching = match with.tools.begin(&mode.tool, gated.pid())? {
        Ok(watching) => watching,
        Err(reason) => return Ok(Err(reason)),
    };
    let before = Marks::of(&watching);
    let run = gated.run()?;
    let after = Marks::of(&watching);
    let resident = proc::resident_bytes(watching.pid()) as f64;
    let told = watching.end(mode.is_ours())?;
    Ok(Ok(Seen {
        run,
        own_ns: after.own_ns - before.own_ns,
        resident,
        probes: (
            after.probes.0 - before.probes.0,
            after.probes.1 - before.probes.1,
        ),
        told,
    }))
}

/// Counters of somebody who watches, at one moment.
struct Marks {
    own_ns: f64,
    probes: (f64, f64),
}

impl Marks {
    fn of(watching: &Watching) -> Self {
        let (runs, time_ns) = proc::probe_runs(watching.pid());
        Self {
            own_ns: proc::cpu_ns(watching.pid()) as f64,
            probes: (runs as f64, time_ns as f64),
        }
    }
}

/// Measures a workload in all these ways, in turns.
pub(super) fn measure(with: Measuring<'_>, workload: &Workload, table: &mut Table) -> Result<()> {
    if matches!(workload.work, Work::Idle { .. }) {
        return idle(with, workload, table);
    }
    let Measuring {
        loads,
        modes,
        rounds,
        repeats,
        ..
    } = with;
    let mut bare = Vec::new();
    let mut seen: Vec<Vec<Result<(usize, Seen), String>>> = vec![Vec::new(); modes.len()];
    for round in 0..rounds {
        match alone(loads, workload)? {
            Ok(run) => bare.push(run),
            Err(reason) => {
                table.rows.push(Row::lacking("nothing", reason));
                return Ok(());
            }
        }
        for repeat in 0..repeats {
            for (mode, seen) in modes.iter().zip(&mut seen) {
                if seen.iter().any(Result::is_err) || (repeat > 0 && !mode.is_judged()) {
                    continue;
                }
                with.says(round, mode);
                let its = watched(with, workload, mode)?;
                // The run without just before it, and the one just after.
                let before = bare.len() - 1;
                if let Ok(run) = alone(loads, workload)? {
                    bare.push(run);
                }
                seen.push(its.map(|its| (before, its)));
            }
        }
    }
    let switch = Figure::of(bare.iter().map(|its| its.cpu_ns * its.count / its.switches));
    table.push(
        "nothing",
        vec![
            neighbours(&bare, |its| its.wall_ns),
            neighbours(&bare, |its| its.cpu_ns),
            switch,
            Figure::default(),
            Figure::default(),
        ],
    );
    for (mode, seen) in modes.iter().zip(seen) {
        let reason = seen.iter().find_map(|its| its.as_ref().err());
        if let Some(reason) = reason {
            table.rows.push(Row::lacking(mode.name, reason.clone()));
            continue;
        }
        let mut figures = vec![Figure::default(); 5];
        for (before, its) in seen.iter().flatten() {
            let next = (before + 1).min(bare.len() - 1);
            let wall = around(&bare, *before, next, |its| its.wall_ns);
            let cpu = around(&bare, *before, next, |its| its.cpu_ns);
            let switches = around(&bare, *before, next, |its| its.switches / its.count);
            figures[0].add(its.run.wall_ns / wall);
            figures[1].add(its.run.cpu_ns / cpu);
            figures[2].add((its.run.cpu_ns - cpu) / switches);
            figures[3].add(its.own_ns / its.run.count / switches);
            if mode.is_ours() {
                figures[4].add(its.told.dropped);
            }
        }
        table.push(mode.name, figures);
    }
    Ok(())
}

/// The columns of a workload's table.
pub(super) fn columns(workload: &Workload) -> &'static [(&'static str, Unit)] {
    match workload.work {
        Work::Idle { .. } => &[
            ("probes, for a switch", Unit::Nanoseconds),
            ("probes, for a call", Unit::Nanoseconds),
            ("its own share of a CPU", Unit::Percent),
        ],
        _ => &[
            ("slowdown", Unit::Ratio),
            ("CPU time", Unit::Ratio),
            ("added to a switch", Unit::Nanoseconds),
            ("its own CPU time for a switch", Unit::Nanoseconds),
            ("records lost", Unit::Count),
        ],
    }
}

fn alone(loads: &Loads, workload: &Workload) -> Result<Result<Run, String>> {
    match loads.begin(workload)? {
        Ok(gated) => Ok(Ok(gated.run()?)),
        Err(reason) => Ok(Err(reason)),
    }
}

/// Each run without against those before and after it.
fn neighbours(bare: &[Run], figure: impl Fn(&Run) -> f64 + Copy) -> Figure {
    let inner = 1..bare.len().saturating_sub(1);
    Figure::of(inner.map(|place| figure(&bare[place]) / around(bare, place - 1, place + 1, figure)))
}

/// The mean of two runs' figures.
fn around(runs: &[Run], first: usize, second: usize, figure: impl Fn(&Run) -> f64) -> f64 {
    f64::midpoint(figure(&runs[first]), figure(&runs[second]))
}

fn idle(with: Measuring<'_>, workload: &Workload, table: &mut Table) -> Result<()> {
    let Measuring { modes, rounds, .. } = with;
    let mut rows: Vec<Result<Vec<Figure>, String>> =
        vec![Ok(vec![Figure::default(); 3]); modes.len()];
    let counting = Counting::begin()?;
    for round in 0..rounds {
        for (mode, row) in modes.iter().zip(&mut rows) {
            with.says(round, mode);
            let Ok(figures) = row else { continue };
            match watched(with, workload, mode)? {
                Ok(seen) => {
                    // perf has no BPF programs.
                    if seen.probes.0 > 0.0 {
                        figures[0].add(seen.probes.1 / seen.run.switches);
                        figures[1].add(seen.probes.1 / seen.probes.0);
                    }
                    figures[2].add(seen.own_ns / seen.run.took_ns * 100.0);
                }
                Err(reason) => *row = Err(reason),
            }
        }
    }
    drop(counting);
    for (mode, row) in modes.iter().zip(rows) {
        match row {
            Ok(figures) => table.push(mode.name, figures),
            Err(reason) => table.rows.push(Row::lacking(mode.name, reason)),
        }
    }
    Ok(())
}
