//! The `schedscope` binary.

use std::process::ExitCode;

use clap::Parser;
use clap_complete::CompleteEnv;
use schedscope::cli::{Cli, Command};
use schedscope::completion::VARIABLE;
use schedscope::exit::{Exit, Failure};
use schedscope::source::{exhausted, memory};
use schedscope::{daemon, generate};

fn main() -> ExitCode {
    memory::keep_little();
    // A shell that completes a command line asks with a variable; that ends the process, too.
    CompleteEnv::with_factory(generate::completed)
        .var(VARIABLE)
        .complete();
    // clap ends the process itself, with code 2 for wrong usage.
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { exit, error }) => {
            let line = one_line(&error);
            match exhausted(&line) {
                // Nobody's fault but the limit's.
                Some(remedy) if !line.contains(remedy) => {
                    eprintln!("schedscope: {line}; {remedy}");
                    Exit::NotAllowed.into()
                }
                _ => {
                    eprintln!("schedscope: {line}");
                    exit.into()
                }
            }
        }
    }
}

fn run(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Attach(args) => daemon::attach::attach(args),
        Command::Generate { directory } => Ok(generate::write(directory)?),
        Command::Record(args) => daemon::record::record(args),
        Command::Report(args) => daemon::replay::report(args),
        Command::Top(args) => daemon::attach::top(args),
        Command::Diff(args) => daemon::diff::diff(args),
        Command::Export(args) => daemon::export::export(args),
        Command::ExecGate { command } => Ok(daemon::gate::become_command(command)?),
        Command::Run(args) => daemon::service::run(args),
        Command::Check(args) => daemon::check::check(args),
    }
}

/// An error with its causes in one line; a cause that the text above it has named is not repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    // The kernel's verifier has several to say.
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn causes_follow_once() {
        let cause = std::io::Error::other("disk on fire");
        let told = anyhow::Error::new(cause).context("cannot read x");
        assert_eq!(one_line(&told), "cannot read x: disk on fire");
        let retold = told.context("cannot start (cannot read x)");
        assert_eq!(
            one_line(&retold),
            "cannot start (cannot read x): disk on fire"
        );
    }
}
