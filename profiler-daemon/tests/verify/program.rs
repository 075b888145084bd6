//! Holds our figures against those of others: programs that time themselves, the kernel's own books, and other
//! people's tools over the same time. Prints a table; the exit code says whether all of it holds.

mod check;
mod kernel;
mod lives;
mod parse;
mod peers;
mod run;
mod sample;
mod stalls;
mod stolen;
mod taskstats;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use check::{Check, Outcome};
use run::{Bench, Unable};

/// What the user asked for.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "verify",
    about = "Compares our figures with those of others, and prints a table."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Options {
    /// Only on a machine that does nothing else; both kinds without either flag.
    #[arg(long, conflicts_with = "busy")]
    quiet: bool,

    /// Only with one CPU busy with something else.
    #[arg(long)]
    busy: bool,

    /// A few seconds instead of some minutes: for a first look.
    #[arg(long)]
    short: bool,

    /// Only experiments whose names hold this.
    #[arg(long, value_name = "PART")]
    only: Option<String>,

    /// Print what experiments there are.
    #[arg(long)]
    list: bool,

    /// The binary that is judged; beside this program's directory without this.
    #[arg(long, value_name = "FILE")]
    schedscope: Option<PathBuf>,

    /// Directory for files; must be on a disk for some.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// Something that is tried.
struct Experiment {
    name: &'static str,
    about: &'static str,
    /// How long in the short form; nothing if it is not part of it.
    short: Option<Duration>,
    /// How long in the long form.
    long: Duration,
    run: fn(&Bench) -> Result<Vec<Check>>,
}

const fn row(
    name: &'static str,
    about: &'static str,
    short_ms: u64,
    long_ms: u64,
    run: fn(&Bench) -> Result<Vec<Check>>,
) -> Experiment {
    Experiment {
        name,
        about,
        short: if short_ms > 0 {
            Some(Duration::from_millis(short_ms))
        } else {
            None
        },
        long: Duration::from_millis(long_ms),
        run,
    }
}

/// All experiments.
#[rustfmt::skip]
const EXPERIMENTS: &[Experiment] = &[
    row("spin", "three threads that compute on one CPU, from birth to end", 1500, 5000, kernel::spinners),
    row("storm", "two threads that pass a turn to and fro on one CPU", 1000, 5000, kernel::storm),
    row("network", "a thread that the network wakes a thousand times a second", 1000, 5000, kernel::network),
    row("sleep", "a thread that sleeps 10 ms again and again", 1000, 5000, kernel::sleeper),
    row("mutex", "a thread that waits for a mutex, held 20 ms again and again", 1000, 5000, kernel::mutex),
    row("quota", "a thread that computes in a cgroup with a quota of 20%", 1500, 10000, kernel::quota),
    row("window", "three threads on one CPU that were there before and stay", 1500, 10000, kernel::window),
    row("delays", "a thread that reads from a disk, over a window", 1000, 5000, kernel::delays),
    row("host", "the switches of the whole host, over a window of a service", 1500, 10000, kernel::host),
    row("timehist", "threads that compute, and threads that wake one another, recorded by perf as well", 0, 5000, peers::timehist),
    row("runqlat", "the same, traced by runqlat as well", 1000, 5000, peers::runqlat),
    row("cyclictest", "cyclictest beside three threads that compute on its CPU", 0, 10000, peers::cyclictest),
    row("requests", "a server of which one request in a thousand is stalled on purpose", 0, 20500, stalls::found),
];

fn main() -> ExitCode {
    match verify(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("verify: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verify(options: &Options) -> Result<ExitCode> {
    if options.list {
        for experiment in EXPERIMENTS {
            println!("{:<12} {}", experiment.name, experiment.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let own = std::env::current_exe().context("finding this program's own file")?;
    let examples = own.parent().context("it has a directory")?;
    let bench = Bench {
        schedscope: match &options.schedscope {
            Some(path) => path.clone(),
            None => examples.with_file_name("schedscope"),
        },
        workload: examples.join("workload"),
        dir: options.dir.clone(),
        time: Duration::ZERO,
    };
    for program in [&bench.schedscope, &bench.workload] {
        anyhow::ensure!(
            program.is_file(),
            "'{}' is not there: build it first",
            program.display()
        );
    }
    let machines = match (options.quiet, options.busy) {
        (true, _) => &["quiet"][..],
        (_, true) => &["busy"],
        _ => &["quiet", "busy"],
    };
    let mut results = Vec::new();
    for &machine in machines {
        let hog = match machine {
            "busy" => Some(occupy(&bench)?),
            _ => None,
        };
        for experiment in EXPERIMENTS {
            results.extend(attempt(options, &bench, machine, experiment));
        }
        drop(hog);
    }
    print!("{}", check::table(&results));
    let mut is_sampled = false;
    if !options.short
        && options
            .only
            .as_deref()
            .is_none_or(|part| "sampling".contains(part))
    {
        match stalls::sampled(&Bench {
            time: Duration::from_millis(20_500),
            ..bench
        }) {
            Ok(text) => {
                is_sampled = true;
                println!("\n{text}");
            }
            Err(error) => println!("\nnot run: sampling: {error:#}"),
        }
    }
    let (hold, all) = check::tally(&results);
    Ok(if hold == all && (all > 0 || is_sampled) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Keeps the last CPU busy until it is dropped.
fn occupy(bench: &Bench) -> Result<run::Started> {
    let cpu = run::cpus()?
        .last()
        .copied()
        .context("no CPU is allowed")?
        .to_string();
    bench.start(
        "spin",
        &["--threads", "1", "--name", "other", "--cpu", &cpu],
    )
}

/// Runs an experiment, if it is wanted.
fn attempt(
    options: &Options,
    bench: &Bench,
    machine: &'static str,
    experiment: &Experiment,
) -> Option<check::Result> {
    let is_wanted = options
        .only
        .as_deref()
        .is_none_or(|part| experiment.name.contains(part));
    let time = if options.short {
        experiment.short
    } else {
        Some(experiment.long)
    };
    let time = time.filter(|_| is_wanted)?;
    let bench = Bench {
        time,
        ..bench.clone()
    };
    eprintln!("{} ({machine}): {}", experiment.name, experiment.about);
    let outcome = match (experiment.run)(&bench) {
        Ok(checks) => Outcome::Compared(checks),
        Err(error) => match error.downcast_ref::<Unable>() {
            Some(reason) => Outcome::NotRun(reason.to_string()),
            // It was not to be expected: it must not pass for a success.
            None => Outcome::Compared(vec![Check::count(
                format!("failed: {error:#}"),
                "-",
                0,
                1,
                check::ONE_PERCENT,
            )]),
        },
    };
    Some(check::Result {
        name: experiment.name,
        about: experiment.about,
        machine,
        outcome,
    })
}
