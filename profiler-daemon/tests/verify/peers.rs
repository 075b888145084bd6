//! Experiments against other people's tools, over the same lives of the same threads.

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::check::{Check, ONE_PERCENT};
use crate::lives::clocks;
use crate::parse::{self, Log2, Span, log2_bucket};
use crate::run::{Bench, Measured, Started, Unable, cpus, finish, number, row_of};

/// How long other tools may take to start, and to read what they have recorded.
const PATIENCE: Duration = Duration::from_mins(1);

/// `perf sched record`, and what `timehist` then makes of it: run time, time off the CPU, and of that what
/// comes after a wakeup.
pub(crate) fn timehist(bench: &Bench) -> Result<Vec<Check>> {
    let perf = Bench::peer("perf")?;
    let file = bench.file("perf.data");
    let record = ["sched", "record", "-m", "8M", "-o"].map(OsStr::new);
    let mut before = vec![perf.as_os_str()];
    before.extend(record);
    before.extend([file.as_os_str(), OsStr::new("--")]);
    let mut checks = Vec::new();
    // Threads that compute beside one another, and threads that wake one another.
    for (workload, arguments) in [("spin", &[][..]), ("condvar", &["--period", "3ms"])] {
        let measured = bench.measure(&before, &bench.workload(workload, arguments));
        let read = measured.and_then(|measured| {
            let mut command = Command::new(&perf);
            command.args(["sched", "timehist", "-i"]).arg(&file);
            let (code, text, errors) = finish(command, PATIENCE)?;
            ensure!(code == Some(0), "perf sched timehist failed: {errors}");
            compare_timehist(&measured, &text)
        });
        let _ = std::fs::remove_file(&file);
        checks.extend(read?);
    }
    Ok(checks)
}

fn compare_timehist(measured: &Measured, text: &str) -> Result<Vec<Check>> {
    let all = parse::timehist(text);
    let mut checks = Vec::new();
    for truth in measured.truth["threads"].as_array().into_iter().flatten() {
        let name = truth["name"].as_str().unwrap_or_default();
        let tid = u32::try_from(number(truth, "/tid")?)?;
        let row = row_of(&measured.report, tid)?;
        let theirs = all.get(&tid).copied();
        let theirs = theirs.with_context(|| format!("perf shows no thread {tid}, {name}"))?;
        // What we call unknown, since the switch was not to be seen, they count as one or the other. And they cut
        // every figure to microseconds.
        let unknown = number(row, "/time_ns/unknown")?;
        let allowed = ONE_PERCENT.plus(theirs.stints * 1_000 + unknown);
        let running = Check::time(
            format!("running, {name}"),
            "perf timehist",
            number(row, "/time_ns/running")?,
            theirs.run_ns,
            allowed,
        );
        // Their first stint has nothing before it; ours has the time from birth to it.
        let off = Check::time(
            format!("off the CPU, {name}"),
            "perf timehist",
            number(row, "/offcpu/sum_ns")?
                .saturating_sub(number(row, "/runnable_by_origin_ns/forked")?),
            theirs.off_ns,
            allowed,
        );
        let is_long = theirs.run_ns >= theirs.stints * LONG_STINT_NS;
        checks.extend([running, off].map(|check| {
            if is_long {
                check
            } else {
                check.differs_by_definition(
                    "a switch's own work is the next thread's, theirs the last's",
                )
            }
        }));
        let woken = number(row, "/runnable_by_origin_ns/woken")?;
        let woken = Check::time(
            format!("woken, then queued, {name}"),
            "perf timehist",
            woken + number(row, "/runnable_by_origin_ns/forked")?,
            theirs.delay_ns,
            ONE_PERCENT,
        );
        checks.push(woken.differs_by_definition("theirs has the wakeup's way to the CPU in it"));
    }
    // Short stints are held against the thread's own clock, which is of our definition.
    checks.extend(clocks(measured)?);
    Ok(checks)
}

/// `runqlat` of libbpf-tools: the same histogram of the same waits of a thread.
pub(crate) fn runqlat(bench: &Bench) -> Result<Vec<Check>> {
    let runqlat = Bench::peer("runqlat")?;
    let mut checks = Vec::new();
    for (workload, arguments) in [("spin", &[][..]), ("condvar", &["--period", "1ms"])] {
        let mut command = Command::new(&runqlat);
        command.args(["-L", "1000"]);
        let mut tool = Started::start(command)?;
        wait_until_it_traces(&mut tool)?;
        let measured = bench.measure(&[], &bench.workload(workload, arguments))?;
        let text = tool.interrupt()?;
        checks.extend(compare_runqlat(&measured, &text)?);
    }
    Ok(checks)
}

/// Waits until a tool holds BPF programs, and a little longer: it attaches them one after the other, and what
/// it says of that stays in its buffer.
fn wait_until_it_traces(tool: &mut Started) -> Result<()> {
    let start = Instant::now();
    loop {
        if tool.has_ended() {
            return Err(
                Unable("it ends at once: its probes don't fit this kernel".to_owned()).into(),
            );
        }
        let files = std::fs::read_dir(format!("/proc/{}/fdinfo", tool.pid()));
        let files = files.into_iter().flatten().flatten();
        let mut texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        if texts.any(|text| text.contains("prog_id:")) {
            std::thread::sleep(Duration::from_millis(500));
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "it does not attach");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn compare_runqlat(measured: &Measured, text: &str) -> Result<Vec<Check>> {
    let all = parse::runqlat(text);
    let spans = parse::spans(&measured.csv).context("the table of spans can be read")?;
    let mut checks = Vec::new();
    for truth in measured.truth["threads"].as_array().into_iter().flatten() {
        let name = truth["name"].as_str().unwrap_or_default();
        let tid = u32::try_from(number(truth, "/tid")?)?;
        let theirs = all.get(&tid);
        let theirs = theirs.with_context(|| format!("runqlat shows no thread {tid}, {name}"))?;
        let mut ours = histogram(&spans, tid);
        let row = row_of(&measured.report, tid)?;
        // A stay that begins and ends between two updates of the run queue's clock is no span.
        let stays = number(row, "/runqueue_delay/count")?;
        ours[0] += stays.saturating_sub(ours.iter().sum());
        let is_known = number(row, "/time_ns/unknown")? == 0;
        let total: u64 = theirs.iter().sum();
        let unseen = if is_known { 0 } else { total };
        checks.push(Check::count(
            format!("stays on a run queue, {name}"),
            "runqlat",
            ours.iter().sum(),
            total,
            ONE_PERCENT.plus(2).unknown(unseen),
        ));
        for bound_us in [64_u64, 512, 4096] {
            let first = log2_bucket(bound_us * 1000);
            let from = |buckets: &Log2| buckets.iter().skip(first).sum::<u64>();
            checks.push(Check::count(
                format!("of those {bound_us} us or longer, {name}"),
                "runqlat",
                from(&ours),
                from(theirs),
                ONE_PERCENT
                    .plus(2 + near(&spans, tid, bound_us * 1000))
                    .unknown(unseen),
            ));
        }
    }
    Ok(checks)
}

/// They take the time when their hooks run, we when the run queue's clock was last brought up to date: both
/// ends of a stay may be so far apart.
const CLOCKS_NS: u64 = 20_000;

/// Of a switch, they have the time of the tracepoint, and we that of the run queue's clock, read some instructions
/// and their own hook earlier: what lies between, some microseconds, goes to the one or the other thread. In
/// stints as long as this it is far below one percent.
const LONG_STINT_NS: u64 = 1_000_000;

fn queued(spans: &[Span], tid: u32) -> impl Iterator<Item = u64> {
    spans
        .iter()
        .filter(move |span| span.tid == tid && span.state == "runnable")
        .map(|span| span.duration_ns)
}

fn histogram(spans: &[Span], tid: u32) -> Log2 {
    let mut buckets = vec![0; 64];
    for time_ns in queued(spans, tid) {
        buckets[log2_bucket(time_ns)] += 1;
    }
    buckets
}

fn near(spans: &[Span], tid: u32, bound_ns: u64) -> u64 {
    let count = queued(spans, tid).filter(|time_ns| time_ns.abs_diff(bound_ns) <= CLOCKS_NS);
    u64::try_from(count.count()).unwrap_or(u64::MAX)
}

/// `cyclictest` among hogs on its CPU: how late it finds itself woken.
pub(crate) fn cyclictest(bench: &Bench) -> Result<Vec<Check>> {
    let program = Bench::peer("cyclictest")?;
    let cpu = cpus()?.last().copied().context("no CPU is allowed")?;
    let hogs = bench.start("spin", &["--threads", "3"])?;
    let cycles = (bench.time.as_millis() / 10).to_string();
    let cpu_text = cpu.to_string();
    let program_text = program.display().to_string();
    let command = [
        &*program_text,
        "-q",
        "-N",
        "-t1",
        "--policy=other",
        "-i",
        "10000",
        "-l",
        &cycles,
        "-a",
        &cpu_text,
    ];
    let command = command.map(str::to_owned);
    let measured = bench.measure(&[], &command)?;
    drop(hogs);
    let theirs = parse::cyclictest(&measured.stdout)
        .with_context(|| format!("cyclictest printed '{}'", measured.stdout))?;
    let row = row_of(&measured.report, theirs.tid)?;
    // Theirs is from the moment for which the timer was set to the program's next look at the clock: the
    // timer's own lateness and the way back from the kernel are in it, and so ours can only be less.
    Ok(vec![Check::time(
        "woken, then queued",
        "cyclictest",
        number(row, "/runnable_by_origin_ns/woken")?,
        theirs.average_ns * theirs.cycles,
        // They cut the average to microseconds.
        ONE_PERCENT
            .plus(theirs.cycles * 1_000)
            .theirs_more(u64::MAX),
    )])
}
