//! `schedscope record`: measures, and keeps what the figures are made from.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exporting::Exports;
use super::gate;
use super::measuring::{End, Session};
use super::options;
use super::progress::Progress;
use super::recorder::{LOOK_EVERY, Recording};
use super::reporting::{self, Printer};
use super::targets::Targets;
use super::trigger::Watch;
use crate::cli::{Record, Reporting};
use crate::exit::{Exit, Failure};
use crate::identity::Registry;
use crate::recording::{Last, Recorder, SavedFile, Settings, Stop, Summary};
use crate::sink::text;

/// Files of a series are not smaller: each begins with what all threads do, and to find that out takes a
/// while in which a storm fills some megabytes.
const MIN_ROTATED: u64 = 8 << 20;

/// Runs the command; the code is that of the command that was started, if one was.
pub fn record(args: &Record) -> Result<u8, Failure> {
    if args.rotate.is_some() && args.max_size.is_none() && args.last.is_none() {
        return Err(Failure::usage(
            "--rotate needs to know when a file is full: give --max-size, too".to_owned(),
        ));
    }
    if args.rotate.is_some() && args.max_size.is_some_and(|bytes| bytes < MIN_ROTATED) {
        return Err(Failure::usage(format!(
            "--rotate needs files of at least {}: give a larger --max-size",
            text::bytes(MIN_ROTATED)
        )));
    }
    if !args.exporting.export.is_empty() && (args.rotate.is_some() || args.last.is_some()) {
        return Err(Failure::usage(
            "--export needs one recording: without --rotate and --last, or give each of their files to \
             `schedscope export`"
                .to_owned(),
        ));
    }
    options::learn_ids()?;
    let mut registry = Registry::default();
    let targets = if args.targets == crate::cli::Targets::default() {
        Targets::host()
    } else {
        Targets::find(&args.targets, &mut registry)?
    };
    let mut printer = match args.output {
        Some(output) => Some(Printer::open(&Reporting {
            output,
            output_file: args.output_file.clone(),
            view: args.view,
        })?),
        None => None,
    };
    let exports = Exports::open(&args.exporting.export)?;
    let (recorder, tape) = Recorder::start(settings(args)).map_err(|error| {
        Failure::usage(format!(
            "cannot write {}: {error}; give -o a place that can be written",
            args.file.display()
        ))
    })?;
    let options = options::for_attach(&args.probes, args.user_stacks);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let context = runtime.enter();
    let mut session = Session::begin(targets, registry, &options, args.duration, Some(tape))?;
    drop(context);
    let (handle, keeper) = (session.handle.clone(), session.keeper.clone());
    let mut recording = Recording::new(handle, keeper, recorder);
    let (measured, end) = runtime.block_on(async {
        let end = until_it_ends(&mut recording, &mut session, args).await?;
        Ok::<_, anyhow::Error>((session.finish().await?, end))
    })?;
    let command = end.command;
    let facts = reporting::facts(&session, &measured, end)?;
    let (facts, summary) = runtime.block_on(recording.finish(facts))?;
    if let Some(printer) = &mut printer {
        let header = &session.header;
        printer.print(&facts.reports(header, &header.targets, &measured.snapshot))?;
    }
    let code = command.map_or(Exit::Done as u8, gate::exit_code);
    let failure = say(args, &summary);
    exports.write(&summary.path)?;
    failure.map_or(Ok(code), Err)
}

fn settings(args: &Record) -> Settings {
    Settings {
        path: args.file.clone(),
        max_bytes: args.max_size,
        keep: args.rotate,
        last: args.last.map(|time| Last {
            time,
            max_bytes: usize::try_from(args.max_memory).unwrap_or(usize::MAX),
        }),
    }
}

/// Sees to names, conditions and signals until something ends the recording.
async fn until_it_ends(
    recording: &mut Recording,
    session: &mut Session,
    args: &Record,
) -> anyhow::Result<End> {
    let mut save_now = signal(SignalKind::user_defined1())?;
    let mut watch = Watch::new(&args.when);
    let mut progress = Progress::start();
    let mut ended = Box::pin(session.ended());
    loop {
        tokio::select! {
            end = &mut ended => return end,
            _ = save_now.recv(), if args.last.is_some() => {
                progress.clear();
                save(recording, "SIGUSR1").await;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                if recording.recorder.stopped().is_some() {
                    return Ok(End::default());
                }
                recording.gather_names().await?;
                if let Some(condition) = recording.look(&mut watch).await? {
                    progress.clear();
                    save(recording, &condition.to_string()).await;
                }
                let (records, bytes) = recording.recorder.written();
                progress.show(|elapsed| shown(elapsed, records, bytes));
            }
        }
    }
}

/// Writes what a flight recorder keeps, and says so.
async fn save(recording: &mut Recording, why: &str) {
    match recording.save(None).await {
        Ok(SavedFile { path, time, bytes }) => eprintln!(
            "{why}: wrote the last {} to {} ({})",
            text::duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            path.display(),
            text::bytes(bytes)
        ),
        Err(error) => eprintln!("schedscope: {why}: {error}"),
    }
}

fn shown(elapsed: Duration, records: u64, bytes: u64) -> String {
    format!(
        "recording: {} s, {} records, {}",
        elapsed.as_secs(),
        text::thousands(records),
        text::bytes(bytes)
    )
}

/// Says what came of a recording; a failure if it ended because it could not be written.
fn say(args: &Record, summary: &Summary) -> Option<Failure> {
    let path = summary.path.display();
    if summary.lost > 0 {
        eprintln!(
            "{} records could not be written in time: reports on {path} count them as lost; a faster disk or \
             --wakers off helps",
            text::thousands(summary.lost)
        );
    }
    let size = format!(
        "{} records in {}",
        text::thousands(summary.records),
        text::bytes(summary.bytes)
    );
    match &summary.stopped {
        Some(Stop::Failed(error)) => {
            return Some(Failure::new(
                Exit::Internal,
                anyhow::anyhow!(
                    "the recording ended early, {path} cannot be written: {error}; what is in it can be read \
                     ({size}): make room and record again"
                ),
            ));
        }
        Some(Stop::Full) => {
            eprintln!("{path} is full: {size}; a larger --max-size or --rotate keeps more");
        }
        None if args.last.is_some() => {}
        None => eprintln!("{path}: {size}; read it with `schedscope report {path}`"),
    }
    None
}
