//! `schedscope attach`: measures targets for a while and reports.

use super::config::Stacks;
use super::gate;
use super::measuring::Session;
use super::options;
use super::reporting::{self, Printer};
use super::targets::Targets;
use crate::cli::Attach;
use crate::exit::{Exit, Failure};
use crate::identity::Registry;

/// Runs the command; the code is that of the command that was started, if one was.
pub fn attach(args: &Attach) -> Result<u8, Failure> {
    if args.user_stacks && args.probes.stacks == Some(Stacks(None)) {
        return Err(Failure::usage(
            "--user-stacks goes with kernel stacks: leave out `--stacks off`, or give it a time"
                .to_owned(),
        ));
    }
    let mut registry = Registry::default();
    let targets = Targets::find(&args.targets, &mut registry)?;
    let mut printer = Printer::open(args.output_file.as_deref(), args.output, args.view)?;
    let options = options::for_attach(&args.probes, args.user_stacks);
    let mut session = Session::begin(targets, registry, &options, args.duration, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (measured, end) = runtime.block_on(async {
        let end = session.ended().await?;
        Ok::<_, anyhow::Error>((session.finish().await?, end))
    })?;
    let command = end.command;
    let has_begun = measured
        .snapshot
        .targets
        .iter()
        .any(|t| t.exec_ns.is_some());
    if let (Some(status), false, 1) = (command, has_begun, session.targets.list().len()) {
        // The gate has said why; there is nothing to report.
        return Ok(gate::exit_code(status));
    }
    printer.print(&reporting::reports(&session, &measured, end)?)?;
    Ok(command.map_or(Exit::Done as u8, gate::exit_code))
}
