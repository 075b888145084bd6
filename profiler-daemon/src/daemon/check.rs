//! `schedscope check`: says what this host allows.

use std::io::{ErrorKind, Write};

use anyhow::Context;

use crate::cli;
use crate::exit::{Exit, Failure};
use crate::sink::check::Check;
use crate::sink::json;
use crate::sink::text::TextOptions;
use crate::source::check::look;

/// Runs the command; the code says whether this host can be measured.
pub fn check(args: &cli::Check) -> Result<u8, Failure> {
    let check = Check::new(env!("CARGO_PKG_VERSION"), &look());
    let mut out = std::io::stdout().lock();
    let written = match args.output {
        cli::Output::Json => json::write(&check, &mut out),
        cli::Output::Table => {
            let text = check.render(TextOptions::for_stdout());
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
    };
    match written {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("cannot write the report")?,
    }
    let exit = if check.able {
        Exit::Done
    } else {
        Exit::NotAllowed
    };
    Ok(exit as u8)
}
