//! `cargo xtask bench`: what watching costs, measured side by side with others who watch.
//!
//! Each part is measured by itself and kept under `target/bench`, so that a machine need not be quiet for an
//! hour: a part that is measured again takes the place of what it gave before. From all that is kept come the
//! table that is printed, the bars that are judged, and the generated part of `docs/overhead.md`.

mod bars;
mod daemon;
mod figures;
mod load;
mod peers;
mod plan;
mod proc;
mod programs;
mod render;
mod rows;
mod start;
mod storms;
mod table;
mod tools;

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use self::load::Loads;
use self::peers::{Peers, Wanted};
use self::plan::{MODES, Mode, Tool, WORKLOADS, Work, Workload};
use self::programs::Programs;
use self::storms::Measuring;
use self::table::{Store, Table, Unit};
use self::tools::Tools;
use crate::process::capture;
use crate::test::privileges;
use crate::workspace::Workspace;

/// What to measure, and how long.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench                          everything: half an hour, on a quiet machine\n  \
    cargo xtask bench storms -w pipe-pinned    one workload\n  \
    cargo xtask bench daemon start             two parts\n  \
    cargo xtask bench --tables                 only print what was measured before\n\n\
    Needs root. Debian's perf, libbpf-tools and bpftrace are fetched if they are not installed.")]
pub(crate) struct Args {
    /// Parts; without any all of them.
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<PartName>,
    /// Rounds of everything.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Of the storms, these workloads only (pipe-pinned, pipe, messaging, futex, mix, idle).
    #[arg(short, long = "workload", value_name = "NAME")]
    workloads: Vec<String>,
    /// Of those who watch, these only (service, attach, runqlat and so on).
    #[arg(short, long = "mode", value_name = "NAME")]
    modes: Vec<String>,
    /// One short round of everything, which shows that it works and nothing else; nothing is kept.
    #[arg(long)]
    quick: bool,
    /// Measure nothing: print what is kept, and write it into the document.
    #[arg(long)]
    tables: bool,
    /// Take programs that are built already: schedscope=PATH, workload=PATH, and benches by their names.
    #[arg(long = "program", value_name = "NAME=PATH", hide = true)]
    programs: Vec<String>,
}

/// The parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartName {
    /// What watching costs the watched.
    Storms,
    /// What each probe takes.
    Probes,
    /// What the daemon takes: for a record, idle, for threads.
    Daemon,
    /// What the core takes for a record.
    Core,
    /// What scrapes, snapshots, reports and exports take.
    Sinks,
    /// How long `attach` takes to begin.
    Start,
}

/// Measures, and shows it.
pub(crate) fn bench(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let dir = workspace.target().join("bench");
    let store = Store::open(if args.quick { dir.join("quick") } else { dir })?;
    if !args.tables {
        if let Some(reason) = privileges::why_not() {
            println!("not run: bench: {reason}");
            return Ok(ExitCode::FAILURE);
        }
        let bench = Bench::prepare(workspace, args, &store)?;
        bench.run()?;
    }
    let tables = store.all()?;
    let bars = bars::judge(&tables);
    print!("{}", render::text(&tables, &bars));
    if !args.quick {
        let document = workspace.root().join("docs/overhead.md");
        render::write_into(&document, &render::markdown(&tables, &bars))?;
        println!("\nwritten into {}", document.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// All that is needed to measure.
struct Bench<'a> {
    args: &'a Args,
    store: &'a Store,
    workspace: &'a Workspace,
    programs: Programs,
    peers: Peers,
    parts: Vec<PartName>,
    workloads: Vec<&'static Workload>,
    modes: Vec<&'static Mode>,
    rounds: usize,
}

impl<'a> Bench<'a> {
    fn prepare(workspace: &'a Workspace, args: &'a Args, store: &'a Store) -> Result<Self> {
        let workloads = choose(&WORKLOADS, &args.workloads, "workload", |its| its.name)?;
        let modes = choose(&MODES, &args.modes, "mode", |its| its.name)?;
        let programs = if args.programs.is_empty() {
            Programs::build(workspace)?
        } else {
            Programs::given(&args.programs)?
        };
        let parts = if args.parts.is_empty() {
            PartName::value_variants().to_vec()
        } else {
            args.parts.clone()
        };
        let storms = parts.contains(&PartName::Storms);
        let of = |is: fn(&Tool) -> bool| storms && modes.iter().any(|mode| is(&mode.tool));
        let perf_bench = |its: &&Workload| matches!(its.work, Work::Perf { .. });
        let wanted = Wanted {
            perf: of(|its| matches!(its, Tool::Perf)) || storms && workloads.iter().any(perf_bench),
            libbpf_tools: of(|its| matches!(its, Tool::Libbpf { .. })),
            bpftrace: of(|its| matches!(its, Tool::Bpftrace)),
        };
        Ok(Self {
            args,
            store,
            workspace,
            programs,
            peers: Peers::prepare(workspace, wanted),
            parts,
            workloads,
            modes,
            rounds: if args.quick {
                1
            } else {
                usize::from(args.rounds)
            },
        })
    }

    fn run(&self) -> Result<()> {
        for part in &self.parts {
            match part {
                PartName::Storms => self.storms()?,
                PartName::Probes => self.rows("b-probes", "probes", PROBES)?,
                PartName::Daemon => self.daemon()?,
                PartName::Core => self.rows("d-core", "core", CORE)?,
                PartName::Sinks => self.rows("e-sinks", "sinks", SINKS)?,
                PartName::Start => self.start()?,
            }
        }
        Ok(())
    }

    fn storms(&self) -> Result<()> {
        let loads = self.loads();
        let tools = self.tools();
        for (place, workload) in WORKLOADS.iter().enumerate() {
            if !self.workloads.iter().any(|its| its.name == workload.name) {
                continue;
            }
            let key = format!("a{}-{}", place + 1, workload.name);
            let title = format!("Watched: {}", workload.title);
            let mut table = self.table(&key, &title, storms::columns(workload))?;
            let with = Measuring {
                loads: &loads,
                tools: &tools,
                modes: &self.modes,
                rounds: self.rounds,
                repeats: if self.args.quick { 1 } else { workload.repeats },
                say: &says(workload.name),
            };
            storms::measure(with, workload, &mut table)?;
            if with.repeats > 1 {
                table.taken = format!(
                    "{}, {} runs in each of what the bars name",
                    table.taken, with.repeats
                );
            }
            table.taken = format!("{}; {}", table.taken, self.peers.told());
            self.store.put(&table)?;
        }
        Ok(())
    }

    fn daemon(&self) -> Result<()> {
        let loads = self.loads();
        let tools = self.tools();
        let ours: Vec<&Mode> = self
            .modes
            .iter()
            .copied()
            .filter(|mode| mode.is_ours())
            .collect();
        let title = "The daemon in the fastest switching: one pair on each CPU, 3 s each";
        let mut table = self.table("c1-events", title, daemon::EVENTS)?;
        let with = Measuring {
            loads: &loads,
            tools: &tools,
            modes: &ours,
            rounds: self.rounds,
            repeats: 1,
            say: &says("daemon"),
        };
        daemon::events(with, &mut table)?;
        self.store.put(&table)?;

        let each = Duration::from_millis(if self.args.quick { 300 } else { 10_000 });
        let title = "The daemon on a host that idles";
        let mut table = self.table("c2-idle", title, daemon::IDLE)?;
        let rounds = self.rounds.min(3);
        daemon::idle(Measuring { rounds, ..with }, each, &mut table)?;
        self.store.put(&table)?;

        let counts = if self.args.quick {
            [100, 200]
        } else {
            [1000, 11_000]
        };
        if let Some(mode) = ours.iter().find(|mode| mode.name == "service") {
            let title = "The service's memory, with more and more threads on the host";
            let mut table = self.table("c3-memory", title, daemon::MEMORY)?;
            daemon::memory(with, mode, counts, &mut table)?;
            self.store.put(&table)?;
        }
        Ok(())
    }

    fn start(&self) -> Result<()> {
        let mut table = self.table("f-start", "`attach`, from its start", start::COLUMNS)?;
        let mut sleeper = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .context("can't start sleep")?;
        let (schedscope, rounds) = (&self.programs.schedscope, self.rounds);
        let measured = start::measure(schedscope, sleeper.id(), rounds, &mut table, &says("start"));
        // It ends by itself, if not now.
        let _ = sleeper.kill().and_then(|()| sleeper.wait());
        measured?;
        self.store.put(&table)
    }

    /// A part that is a bench of the daemon's package.
    fn rows(&self, key: &str, bench: &str, title: &str) -> Result<()> {
        match self.programs.bench(bench) {
            Ok(program) => {
                says(bench)("runs");
                let mut table = self.table(key, title, &[])?;
                rows::run(program, self.args.quick, &mut table)?;
                self.store.put(&table)
            }
            Err(reason) => {
                println!("not run: {bench}: {reason}");
                Ok(())
            }
        }
    }

    fn table(&self, key: &str, title: &str, columns: &[(&str, Unit)]) -> Result<Table> {
        let now = capture(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?;
        let taken = format!(
            "{}; {}; load {} before; {} rounds",
            now.trim(),
            proc::host(),
            proc::load(),
            self.rounds
        );
        Ok(Table::new(key, title, &taken, columns))
    }

    fn loads(&self) -> Loads {
        Loads {
            own: self.programs.workload.clone(),
            perf: self.peers.perf().map(Into::into),
            quick: self.args.quick,
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            schedscope: self.programs.schedscope.clone(),
            peers: &self.peers,
            scratch: self
                .workspace
                .target()
                .join(format!("bench-scratch-{}", std::process::id())),
        }
    }
}

const PROBES: &str = "What a probe takes each time, by the kernel's own count";
const CORE: &str = "The core alone";
const SINKS: &str = "Scrapes, snapshots, reports and exports";

/// Tells on standard error how far it has come.
fn says(what: &str) -> impl Fn(&str) {
    move |how_far| eprintln!("{what}: {how_far}")
}

/// Those with these names; all if there are no names.
fn choose<T>(
    all: &'static [T],
    names: &[String],
    kind: &str,
    name_of: impl Fn(&T) -> &str,
) -> Result<Vec<&'static T>> {
    for name in names {
        let known: Vec<&str> = all.iter().map(&name_of).collect();
        ensure!(
            known.contains(&name.as_str()),
            "there is no {kind} '{name}'; there are: {}",
            known.join("; ")
        );
    }
    let is_wanted =
        |its: &&T| names.is_empty() || names.iter().any(|name| name.as_str() == name_of(its));
    Ok(all.iter().filter(is_wanted).collect())
}
