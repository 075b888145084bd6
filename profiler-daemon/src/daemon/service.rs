//! `schedscope run`: measures the whole host for as long as it is let, and serves the figures.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use profiler_ebpf::Clock;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;

use super::config::{Config, Overrides};
use super::engine::{Engine, EngineGone, Handle};
use super::flight::FlightRecorder;
use super::http::{self, Duty, Figures, Guard, GuardError, Limits, Listen};
use super::reporting::dropped;
use super::self_check::{Findings, Pair};
use super::{notify, options, privileges};
use crate::cli::Run;
use crate::core::Snapshot;
use crate::exit::{Exit, Failure};
use crate::identity::{Keeper, Known, Registry};
use crate::priority;
use crate::sink::api::View;
use crate::sink::metrics::{Own, ProbeCost, Scrape, SelfChecked, program};
use crate::sink::recent::{Recent, STEP, Window};
use crate::source::{Counting, kernel_release};

/// The kernel counts the probes' runs for this long at a time. Counting costs each run of every BPF
/// program of the host some 50 ns, so it is a sample.
const COUNT_FOR: Duration = Duration::from_millis(100);

/// Whoever uses up the CPUs, and be it by asking, does not keep a scrape waiting. What the server does at once is
/// bounded, and the drain thread runs before it. At -10 a crowd of clients on the same two CPUs had it wait for
/// 86 ms of a scrape's 145; at -18 the longest was 32 ms, 8 of them waiting (`privileged_service::hostile`).
const SERVER_NICE: i32 = -18;

/// Runs the service until it is told to end.
pub fn run(args: &Run) -> Result<u8, Failure> {
    let config = load(args.config.as_ref(), &args.overrides)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Hashes of passwords are worked out there.
        .on_thread_start(priority::usual)
        .build()?;
    runtime.block_on(serve(args, config))
}

fn load(path: Option<&PathBuf>, overrides: &Overrides) -> Result<Config, Failure> {
    let config = match path {
        Some(path) => Config::load(path),
        None => Ok(Config::default()),
    };
    config
        .and_then(|config| config.apply(overrides.clone()))
        .map_err(|error| Failure::new(Exit::Usage, error))
}

async fn serve(args: &Run, mut config: Config) -> Result<u8, Failure> {
    // The address first: it costs nothing, and is what most often can't be had.
    let guard = guard(&config).map_err(|error| Failure::new(Exit::Usage, error))?;
    let duty = Duty::new(guard);
    let listener = http::bind(config.listen.clone())
        .await
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    options::learn_ids()?;
    let targets = config
        .targets
        .iter()
        .map(super::config::Target::spec)
        .collect();
    let engine = Engine::start(
        &options::for_service(&config),
        targets,
        config.drain.max_interval,
    )
    .map_err(options::start_failure)?;
    if let Some(lack) = engine.symbols_lack() {
        eprintln!(
            "schedscope: stacks have no names, so reasons of some waits stay unknown: {lack}"
        );
    }
    let (handle, drain_thread) = engine.spawn()?;
    priority::raise(SERVER_NICE);
    give_up_privileges(&handle, &config).await?;
    let (keeper, units) =
        Keeper::start_with_units(Registry::for_good(), usize::from(config.units.max))
            .context("cannot start the thread that knows the units of processes")?;
    let told = keeper.clone();
    handle
        .ask(move |engine| {
            engine.tell(told);
            engine.check_itself();
            engine.follow_units(units);
        })
        .await?;
    let flight = flight_recorder(&config, &handle, &keeper).await?;
    let window = config.metrics.window;
    let host = Arc::new(Host::new(handle.clone(), keeper, window, flight.clone()));
    let (stop, mut stopped) = watch::channel(false);
    let server = tokio::spawn(http::serve(
        listener,
        http::router(Service(Arc::clone(&host)), Limits::default()),
        Limits::default(),
        duty.clone(),
        async move {
            // The sender gone means the same.
            let _ = stopped.wait_for(|&stop| stop).await;
        },
    ));
    eprintln!("schedscope: measuring; {}", served_at(&config));

    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut write_now = signal(SignalKind::user_defined1())?;
    let life = tokio::spawn(notify::show_life(handle));
    let mut sampler = tokio::spawn(sample_probes(config.probes.stats_interval));
    let recorder = tokio::spawn(record(Arc::clone(&host)));
    let mut gone = std::pin::pin!(watch_over(drain_thread));
    let mut tended = std::pin::pin!(tend(flight.clone()));
    notify::ready();
    let outcome = loop {
        tokio::select! {
            _ = hangup.recv() => {
                notify::reloading();
                match load(args.config.as_ref(), &args.overrides) {
                    Ok(new) => {
                        sampler.abort();
                        sampler = tokio::spawn(sample_probes(new.probes.stats_interval));
                        reload(&host, &config, &new).await?;
                        relieve(&duty, &new);
                        config = new;
                    }
                    // What ran goes on as it was.
                    Err(Failure { error, .. }) => {
                        eprintln!("schedscope: configuration not read again: {error:#}");
                    }
                }
                notify::ready();
            }
            _ = write_now.recv() => write_now_or_say(flight.as_ref()).await,
            error = &mut tended => break Err(error.into()),
            _ = interrupt.recv() => break Ok(Exit::Done as u8),
            _ = terminate.recv() => break Ok(Exit::Done as u8),
            error = &mut gone => break Err(error.into()),
        }
    };
    notify::stopping();
    sampler.abort();
    life.abort();
    recorder.abort();
    // Nobody listens only when the server has ended already.
    let _ = stop.send(true);
    let _ = server.await;
    eprintln!("schedscope: ended");
    outcome
}

/// Gives up what is not needed once the probes are attached, in the two threads that there are.
async fn give_up_privileges(drain: &Handle, config: &Config) -> anyhow::Result<()> {
    let costs_sampled = config.probes.stats_interval.is_some();
    let given_up =
        drain.ask(move |engine| privileges::give_up(costs_sampled, || engine.rehearse().is_ok()));
    let kept = given_up
        .await?
        .and_then(privileges::keep)
        .context("cannot give up capabilities")?;
    eprintln!(
        "schedscope: probes attached; capabilities kept: {}",
        privileges::names(kept)
    );
    Ok(())
}

/// Ends when the drain thread does, which it never should.
async fn watch_over(thread: std::thread::JoinHandle<()>) -> anyhow::Error {
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    match ended {
        Ok(Err(_)) => anyhow::anyhow!("the drain thread broke; the lines above say where"),
        _ => anyhow::anyhow!("the drain thread ended"),
    }
}

/// The flight recorder, if there is to be one.
async fn flight_recorder(
    config: &Config,
    handle: &Handle,
    keeper: &Keeper,
) -> Result<Option<FlightRecorder>, Failure> {
    let Some(last) = config.flight_recorder.last else {
        return Ok(None);
    };
    let (handle, keeper) = (handle.clone(), keeper.clone());
    let started = FlightRecorder::start(&config.flight_recorder, last, handle, keeper).await;
    started
        .map(Some)
        .map_err(|error| Failure::new(Exit::Usage, error))
}

/// Somebody sent SIGUSR1.
async fn write_now_or_say(flight: Option<&FlightRecorder>) {
    const NONE: &str = "SIGUSR1: there is no flight recorder; set flight_recorder.last";
    match flight {
        Some(flight) => flight.write_and_say("SIGUSR1").await,
        None => eprintln!("schedscope: {NONE}"),
    }
}

/// Sees to the flight recorder, if there is one. Ends only by an error.
async fn tend(flight: Option<FlightRecorder>) -> anyhow::Error {
    match flight {
        Some(flight) => flight.tend().await,
        None => std::future::pending().await,
    }
}

/// Where the figures are, for the log.
fn served_at(config: &Config) -> String {
    match &config.listen {
        Listen::Tcp(address) => {
            let has_web = !config.web.config.as_os_str().is_empty();
            let scheme = if has_web { "http(s)" } else { "http" };
            format!("figures are at {scheme}://{address}/metrics")
        }
        listen => format!("figures are at {listen}"),
    }
}

/// Who may ask.
fn guard(config: &Config) -> Result<Guard, GuardError> {
    let path = &config.web.config;
    if path.as_os_str().is_empty() {
        Ok(Guard::default())
    } else {
        Guard::load(path)
    }
}

fn relieve(duty: &Duty, config: &Config) {
    match guard(config) {
        Ok(guard) => duty.relieve(guard),
        Err(error) => {
            eprintln!("schedscope: goes on with the web configuration from before: {error}");
        }
    }
}

async fn reload(host: &Host, old: &Config, new: &Config) -> Result<(), EngineGone> {
    let targets: Vec<_> = new
        .targets
        .iter()
        .map(super::config::Target::spec)
        .collect();
    let max_interval = new.drain.max_interval;
    let retarget = old.targets != new.targets;
    host.engine
        .ask(move |engine| {
            engine.set_max_interval(max_interval);
            if retarget {
                engine.core().retarget(targets);
            }
        })
        .await?;
    let needs_restart = old.listen != new.listen
        || old.flight_recorder != new.flight_recorder
        || options::for_service(old) != options::for_service(new);
    if needs_restart {
        eprintln!(
            "schedscope: configuration read again; a new listen address, flight recorder, ring size, clock \
             or wakeups setting needs a restart"
        );
    } else {
        eprintln!(
            "schedscope: configuration read again, {} targets",
            new.targets.len()
        );
    }
    Ok(())
}

/// Has the kernel count what the probes cost, a little now and then.
async fn sample_probes(interval: Option<Duration>) {
    let Some(interval) = interval else { return };
    loop {
        match Counting::start() {
            Ok(counting) => {
                tokio::time::sleep(COUNT_FOR).await;
                drop(counting);
            }
            // The usual case: the unit gives no such capability, and docs/service.md says what follows.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
            Err(error) => {
                eprintln!("schedscope: the probes' own cost can't be sampled: {error}");
                return;
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// What the server asks.
struct Host {
    engine: Handle,
    kernel: String,
    keeper: Keeper,
    recent: Mutex<Recent>,
    flight: Option<FlightRecorder>,
}

/// Takes a snapshot now and then, for the figures of the last minute.
async fn record(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok((snapshot, unix_ns)) = host.engine.ask(dated_snapshot).await else {
            return;
        };
        host.recent.lock().await.take(&snapshot, unix_ns);
    }
}

/// All figures, and when that is in nanoseconds since 1970.
fn dated_snapshot(engine: &mut Engine) -> (Snapshot, u64) {
    let snapshot = engine.core().snapshot();
    let unix_ns = engine.kernel().unix_ns(snapshot.at_ns);
    (snapshot, unix_ns)
}

impl Host {
    fn new(
        engine: Handle,
        keeper: Keeper,
        window: Duration,
        flight: Option<FlightRecorder>,
    ) -> Self {
        Self {
            recent: Mutex::new(Recent::new(window)),
            engine,
            kernel: kernel_release(),
            keeper,
            flight,
        }
    }

    /// What those are called that took CPUs from others.
    async fn process_names(&self, snapshot: &Snapshot) -> HashMap<u32, String> {
        let by_process = snapshot.inflicted.rows().into_iter();
        let mut tgids: BTreeSet<u32> = by_process.map(|(_, who, _)| who.tgid).collect();
        for target in &snapshot.targets {
            let by_thread = target.total.detail.culprits.rows().into_iter();
            tgids.extend(by_thread.map(|(_, who, _)| who.tgid));
        }
        tgids.remove(&0);
        // Without names the figures are still right.
        let known = self.keeper.known(tgids.into_iter().collect()).await;
        let named = known.unwrap_or_default().into_iter();
        named
            .map(|(tgid, known)| (tgid, process_name(known)))
            .filter(|(_, name)| !name.is_empty())
            .collect()
    }
}

/// What a process is called that takes CPUs from others: its unit, or if it belongs to none its own name.
fn process_name(known: Known) -> String {
    match known.unit.as_str() {
        "" | "/" => program(&known.name).to_owned(),
        _ => known.unit,
    }
}

struct Service(Arc<Host>);

impl Figures for Service {
    async fn scrape(&self) -> anyhow::Result<Scrape> {
        let kernel = self.0.kernel.clone();
        let mut scrape = self
            .0
            .engine
            .ask(move |engine| scrape(engine, kernel))
            .await?;
        scrape.window = self.0.recent.lock().await.window(&scrape.snapshot);
        scrape.processes = self.0.process_names(&scrape.snapshot).await;
        scrape.own.cpu_ns = process_cpu_ns();
        scrape.own.resident_bytes = resident_bytes().context("cannot read /proc/self/statm")?;
        Ok(scrape)
    }

    async fn view(&self) -> anyhow::Result<View> {
        let look = |engine: &mut Engine| (dated_snapshot(engine), engine.core().threads_now());
        let ((snapshot, unix_ns), threads) = self.0.engine.ask(look).await?;
        let recent = self.0.recent.lock().await;
        Ok(View {
            window: recent.window(&snapshot),
            snapshot,
            unix_ns,
            threads,
            columns: recent.columns().copied().collect(),
        })
    }

    fn flight_recorder(&self) -> Option<&FlightRecorder> {
        self.0.flight.as_ref()
    }

    async fn events(&self) -> anyhow::Result<u64> {
        Ok(self.0.engine.ask(|engine| engine.core().events()).await?)
    }
}

fn scrape(engine: &mut Engine, kernel_release: String) -> Scrape {
    engine.look_at_open_waits();
    let (snapshot, unix_ns) = dated_snapshot(engine);
    let work = engine.work();
    let ring_fill = engine.take_fill();
    let kernel = engine.kernel();
    let own = Own {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel_release,
        clock: match kernel.clock() {
            Clock::RunQueue => "run-queue",
            Clock::Monotonic => "monotonic",
        },
        wakeups_recorded: kernel.wakeups(),
        dropped: dropped(&kernel.losses()),
        shed: kernel.shed_counts(),
        ring_fill,
        probes: kernel.probe_stats().into_iter().map(probe_cost).collect(),
        lag_ns: kernel.now_ns().saturating_sub(snapshot.at_ns),
        clock_error_ns: Some(kernel.clock_error_ns()),
        drains: work.drains,
        drain_wakeups: work.wakeups,
        resyncs: work.resyncs,
        self_check: self_checked(engine.self_check()),
        ..Own::default()
    };
    // Targets keep their figures when others come or go, so no counter ever begins anew.
    Scrape {
        generation: 0,
        snapshot,
        processes: HashMap::new(),
        window: Window::default(),
        unix_ns,
        own,
    }
}

fn self_checked(findings: Findings) -> SelfChecked {
    let figure = |name, pair: Pair| (name, pair.ours_ns, pair.kernel_ns);
    SelfChecked {
        agree: findings.agree,
        differ: findings.differ,
        unsure: findings.unsure,
        figures: vec![
            figure("running", findings.running),
            figure("runnable", findings.runnable),
        ],
    }
}

fn probe_cost(stats: crate::source::ProbeStats) -> ProbeCost {
    ProbeCost {
        name: stats.name,
        runs: stats.runs,
        run_ns: stats.run_time_ns,
        missed: stats.missed,
    }
}

fn process_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn resident_bytes() -> anyhow::Result<u64> {
    let pages = procfs::process::Process::myself()?.statm()?.resident;
    Ok(pages * procfs::page_size())
}
