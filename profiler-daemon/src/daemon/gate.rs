//! Starts a command in such a way that it can be measured from its first instruction on.
//!
//! A copy of Schedscope is started in its place, which stops itself. When the probes are attached it
//! is continued and becomes the command by `exec`, keeping its process id.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Exit codes that shells use for a command that can't be run and for one that can't be found.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A process that waits to become the command.
pub struct Gate {
    child: Child,
    pid: Pid,
}

impl Gate {
    /// Starts it and waits until it has stopped itself.
    pub fn start(command: &[OsString]) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(this)
            .arg("exec-gate")
            .arg("--")
            .args(command)
            .spawn()
            .context("cannot start a process for the command")?;
        let pid = Pid::from_child(&child);
        match waitpid(Some(pid), WaitOptions::UNTRACED)? {
            Some((_, status)) if status.stopped() => Ok(Self { child, pid }),
            status => bail!("the process for the command ended too early ({status:?})"),
        }
    }

    /// Its process id, which will be the command's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process id, to send signals to.
    #[must_use]
    pub fn process(&self) -> Pid {
        self.pid
    }

    /// Lets it become the command, and waits for that to end.
    pub fn open(mut self) -> anyhow::Result<ExitStatus> {
        kill_process(self.pid, Signal::CONT).context("cannot let the command begin")?;
        self.child.wait().context("cannot wait for the command")
    }
}

/// The code that a shell would give for this end.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The other side: stops itself, then becomes the command. Returns only if that fails, with the code
/// to end with.
pub fn become_command(command: &[OsString]) -> anyhow::Result<u8> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command given");
    };
    // Should the one that measures die first, nothing must stay behind, stopped for ever.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    kill_process(rustix::process::getpid(), Signal::STOP)?;
    rustix::process::set_parent_process_death_signal(None)?;
    let error = Command::new(program).args(arguments).exec();
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_RUN,
    };
    eprintln!(
        "schedscope: cannot run {}: {error}; give a program in PATH or a path to one",
        program.display()
    );
    Ok(code)
}
