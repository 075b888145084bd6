//! A booted systemd, in namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{capture, find, output};
use crate::stamp;
use crate::test::privileges;

/// Boots; see there.
const BOOT: &str = include_str!("boot.sh");

/// Longest time for the boot, and for a script in the machine, in seconds.
const PATIENCE: u64 = 60;

/// A machine that runs; it is gone, with all that it changed, when this is dropped.
pub(super) struct Machine {
    /// `unshare`, whose end takes the machine with it.
    outer: Child,
    /// The machine's process 1, by the host's number.
    init: u32,
    cgroup: PathBuf,
}

impl Machine {
    /// Boots what is in `root`, which stays as it is. What is in `share` is `/mnt` there.
    pub(super) fn boot(root: &Path, scratch: &Path, share: &Path) -> Result<Self> {
        stamp::empty(scratch)?;
        let cgroup = cgroup2()?.join(format!("schedscope-booted-{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("can't make {}", cgroup.display()))?;
        let enter = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;
        let outer = Command::new("sh")
            .args(["-c", enter])
            .arg(&cgroup)
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--uts", "--ipc", "--cgroup", "--net"])
            .args(["sh", "-c", BOOT, "boot"])
            .args([root, scratch, share])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("can't start `unshare` (package util-linux)")?;
        let mut machine = Self {
            outer,
            init: 0,
            cgroup,
        };
        machine.await_boot()?;
        Ok(machine)
    }

    fn await_boot(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.outer.try_wait()? {
                bail!("the machine did not boot ({status}); what it said is above");
            }
            if self.init == 0 {
                self.init = child_of(self.outer.id()).unwrap_or(0);
            } else if self
                .run("systemctl is-system-running --wait")
                .is_ok_and(|found| found.trim() == "running")
            {
                return Ok(());
            }
            ensure!(
                start.elapsed() < Duration::from_secs(PATIENCE),
                "the machine was not up after {PATIENCE} s"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a script in the machine, as root, and returns what it printed; an error unless it succeeds.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = output(
            Command::new("nsenter")
                .args(["-t", &self.init.to_string()])
                .args(["-m", "-p", "-u", "-i", "-C", "-n", "--"])
                .args(["timeout", &PATIENCE.to_string(), "bash", "-ec", script])
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        ensure!(
            status.success(),
            "`{script}` in the machine ({status}): {stdout}{}",
            String::from_utf8_lossy(&stderr)
        );
        Ok(stdout)
    }

    /// Runs a script again and again, until it succeeds.
    pub(super) fn until(&self, seconds: u64, script: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            match self.run(script) {
                Err(_) if start.elapsed() < Duration::from_secs(seconds) => {
                    thread::sleep(Duration::from_millis(200));
                }
                result => return result.with_context(|| format!("not within {seconds} s")),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `--kill-child` ends process 1, and with it all others; both fail only if that has happened.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        // The kernel takes a moment to empty the cgroups; one that is left does no harm.
        for _ in 0..20 {
            if remove_cgroups(&self.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Why this machine can't boot one inside, if it can't.
pub(super) fn why_not() -> Option<String> {
    let programs = ["unshare", "nsenter", "apt-get", "dpkg-deb"];
    let missing = programs.iter().find(|name| find(name).is_none());
    privileges::why_not()
        .or_else(|| missing.map(|program| format!("no {program} on PATH")))
        .or_else(|| cgroup2().err().map(|error| format!("{error:#}")))
        .or_else(|| can_isolate().err().map(|error| format!("{error:#}")))
}

/// Whether there may be namespaces, and file systems in them, as [`BOOT`] makes them.
fn can_isolate() -> Result<()> {
    capture(
        Command::new("unshare")
            .args([
                "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--net",
            ])
            .args(["sh", "-c", "mount -t tmpfs tmpfs /tmp"]),
    )
    .map(drop)
    .context("no namespaces")
}

/// Where the cgroups of version 2 are.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("can't read /proc/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(place)
    });
    mount
        .map(PathBuf::from)
        .context("no cgroups of version 2 are mounted")
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn remove_cgroups(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_cgroups(&path)?;
        }
    }
    fs::remove_dir(dir)
}
