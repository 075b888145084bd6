//! The `schedscope` binary.

use std::process::ExitCode;

use clap::Parser;
use schedscope::cli::{Cli, Command};
use schedscope::daemon;
use schedscope::exit::{Exit, Failure};

fn main() -> ExitCode {
    // clap ends the process itself, with code 2 for wrong usage.
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { exit, error }) => {
            // One line, causes included.
            eprintln!("schedscope: {error:#}");
            exit.into()
        }
    }
}

fn run(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Attach(args) => daemon::attach::attach(args),
        Command::ExecGate { command } => Ok(daemon::gate::become_command(command)?),
        Command::Run(args) => daemon::service::run(args),
        Command::Check(_) => Ok(Exit::Internal as u8),
    }
}
