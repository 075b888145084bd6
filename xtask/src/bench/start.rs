//! How long `attach` takes from its start to the first that one sees of it.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::figures::Figure;
use super::table::{Row, Table, Unit};
use crate::process::{capture, describe, find};

pub(super) const COLUMNS: &[(&str, Unit)] = &[("time", Unit::Milliseconds)];

/// Attaches to a process again and again.
pub(super) fn measure(
    schedscope: &Path,
    pid: u32,
    rounds: usize,
    table: &mut Table,
    say: &dyn Fn(&str),
) -> Result<()> {
    let mut report = Figure::default();
    let mut screen = Figure::default();
    let mut figures = Figure::default();
    // A terminal for a program whose output is read; of util-linux.
    let script = find("script");
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        let start = Instant::now();
        capture(
            Command::new(schedscope)
                .args(["attach", &pid.to_string()])
                .args(["--duration", "1ms", "--output", "json"]),
        )?;
        report.add(start.elapsed().as_secs_f64() * 1e3);
        if let Some(script) = &script {
            let (first, second) = on_a_screen(script, schedscope, pid)?;
            screen.add(first);
            figures.add(second);
        }
    }
    table.push("report of a millisecond", vec![report]);
    for (name, figure) in [
        ("first screen", screen),
        ("first figures on the screen", figures),
    ] {
        if script.is_some() {
            table.push(name, vec![figure]);
        } else {
            let reason = "this machine has no `script`".to_owned();
            table.rows.push(Row::lacking(name, reason));
        }
    }
    Ok(())
}

/// Milliseconds to the first picture, and to the first with figures: before there are any it says so.
fn on_a_screen(script: &Path, schedscope: &Path, pid: u32) -> Result<(f64, f64)> {
    let line = format!("'{}' attach {pid} --duration 2s", schedscope.display());
    let mut command = Command::new(script);
    command
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm-256color");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("can't start `{}`", describe(&command)))?;
    let mut output = child.stdout.take().context("the output is a pipe")?;
    let mut seen = Vec::new();
    let mut buffer = [0; 8192];
    let mut times = (None, None);
    loop {
        let count = output.read(&mut buffer).context("can't read a screen")?;
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&seen);
        let now = start.elapsed().as_secs_f64() * 1e3;
        let drawn = text.matches(DRAWN).count();
        if drawn > 0 {
            times.0.get_or_insert(now);
        }
        if drawn > 1 {
            times.1.get_or_insert(now);
        }
    }
    let status = child.wait().context("can't wait")?;
    ensure!(status.success(), "`{line}` failed ({status})");
    match times {
        (Some(first), Some(second)) => Ok((first, second)),
        _ => bail!("`{line}` showed no picture with figures"),
    }
}

/// What ends a picture (synchronized output, DEC mode 2026). The first says that there is nothing yet, and it
/// is drawn anew when there are figures.
const DRAWN: &str = "\x1b[?2026l";
