//! A guest: booted, watched, and what it said taken apart.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernels::{Arch, Image};
use super::qemu::Qemu;
use crate::process::output;

/// Longest time from the start to the first process.
const BOOT: Duration = Duration::from_secs(150);
/// Boots, if the first does not get so far.
const ATTEMPTS: u32 = 2;
/// With so many CPUs one is isolated.
const SPARE_CPUS: u32 = 4;

/// What is booted.
pub(super) struct Machine<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) image: &'a Image,
    pub(super) initramfs: &'a Path,
    pub(super) cpus: u32,
    /// For so long it may say nothing, once it is up.
    pub(super) patience: Duration,
    /// Gets what the guest says.
    pub(super) console: &'a Path,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// The kernel's own name of its version; `None` if the first process was never reached.
    pub(super) release: Option<String>,
    /// By the guest's clock, from its start to its first process.
    pub(super) up_seconds: f64,
    /// Boots that did not get so far.
    pub(super) failed_boots: u32,
    pub(super) took: Duration,
    /// In their order; those that are missing were not begun.
    pub(super) checks: Vec<Section>,
    /// It said that it was done.
    pub(super) is_done: bool,
    /// The end of what it said, for people.
    pub(super) tail: String,
}

/// What one check printed, and how it ended.
#[derive(Debug, PartialEq)]
pub(super) struct Section {
    pub(super) output: String,
    /// Exit code; `None` if the guest ended before.
    pub(super) code: Option<i32>,
    /// By the guest's clock.
    pub(super) seconds: f64,
}

/// An emulator, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Boots, and waits for the end.
    pub(super) fn run(&self) -> Result<Ran> {
        let start = Instant::now();
        let mut failed_boots = 0;
        loop {
            // What the kernel says while it boots takes time, and is of interest only if it does not.
            self.boot(failed_boots > 0)?;
            let text = self.said()?;
            let mut ran = parse(&text);
            ran.failed_boots = failed_boots;
            ran.took = start.elapsed();
            if ran.release.is_some() {
                return Ok(ran);
            }
            failed_boots += 1;
            if failed_boots == ATTEMPTS {
                ran.failed_boots = failed_boots;
                return Ok(ran);
            }
            eprintln!(
                "{} did not reach its first process; once more",
                self.image.kernel.name
            );
        }
    }

    fn boot(&self, is_verbose: bool) -> Result<()> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("can't write {}", path.display()))
        };
        create(self.console)?;
        let messages = create(&self.console.with_extension("qemu"))?;
        let mut command = self.command(is_verbose);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages)
            .spawn()
            .with_context(|| format!("can't start {}", self.qemu.program.display()))?;
        let mut process = Process(child);
        let start = Instant::now();
        let mut is_up = false;
        let (mut said, mut changed) = (0, start);
        while process.0.try_wait()?.is_none() {
            thread::sleep(Duration::from_millis(100));
            let text = self.said()?;
            if text.len() != said {
                (said, changed) = (text.len(), Instant::now());
                is_up = is_up || text.contains("\n@@vm up ");
            }
            let is_stuck = if is_up {
                changed.elapsed() > self.patience
            } else {
                start.elapsed() > BOOT
            };
            if is_stuck {
                break;
            }
        }
        Ok(())
    }

    fn said(&self) -> Result<String> {
        let bytes = fs::read(self.console)
            .with_context(|| format!("can't read {}", self.console.display()))?;
        let messages = fs::read(self.console.with_extension("qemu")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        Ok(format!("{}\n{text}", String::from_utf8_lossy(&messages)))
    }

    fn command(&self, is_verbose: bool) -> Command {
        let mut command = Command::new(&self.qemu.program);
        let (machine, cpu, console) = match self.image.kernel.arch {
            // No HPET: reading an emulated one is slow, and kernels prefer it where the TSC seems odd. cx16: Debian
            // 12's qemu now and then has newer kernels crash on it.
            Arch::Amd64 => ("pc,hpet=off", "max,cx16=off", "ttyS0"),
            Arch::Arm64 => ("virt", "cortex-a72", "ttyAMA0"),
        };
        let memory = if self.cpus > 8 { "3G" } else { "1G" };
        let mut line = format!(
            "console={console} panic=-1 oops=panic mitigations=off nokaslr no_timer_check tsc=reliable \
             random.trust_cpu=on audit=0 apparmor=0 rdinit=/init"
        );
        if self.image.kernel.arch == Arch::Amd64
            && let Some(khz) = tsc_khz()
        {
            // Writing to a string can't fail.
            let _ = write!(line, " tsc_early_khz={khz}");
        }
        if self.cpus >= SPARE_CPUS {
            // The last one is left alone by whatever is not bound to it, and has no ticks.
            let last = self.cpus - 1;
            let _ = write!(line, " isolcpus={last} nohz_full={last}");
        }
        line.push_str(if is_verbose {
            " ignore_loglevel"
        } else {
            " quiet"
        });
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            // One thread for all CPUs: with several, a wakeup of another CPU takes milliseconds.
            .args(["-accel", "tcg,thread=single"])
            .args(["-machine", machine, "-cpu", cpu, "-m", memory])
            .args(["-smp", &self.cpus.to_string()])
            .arg("-kernel")
            .arg(&self.image.file)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &line])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()));
        command
    }
}

/// The rate of this machine's time stamp counter, which is the guest's, too, as the kernel here measured it.
///
/// A guest that is told need not measure it, which a busy machine can spoil.
fn tsc_khz() -> Option<u32> {
    let log = output(&mut Command::new("dmesg")).ok()?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    read_tsc(&log)
}

fn read_tsc(log: &str) -> Option<u32> {
    let mhz = log.lines().find_map(|line| {
        let (_, rest) = line.split_once("tsc: Detected ")?;
        rest.split(' ').next()
    })?;
    let (whole, part) = mhz.split_once('.')?;
    format!("{whole}{part:0<3}").parse().ok()
}

/// Takes apart what a guest said.
fn parse(text: &str) -> Ran {
    let mut ran = Ran::default();
    let mut section: Option<String> = None;
    for line in text.lines() {
        let mut words = line.strip_prefix("@@vm ").unwrap_or_default().split(' ');
        let seconds = |words: &mut std::str::Split<'_, char>| {
            let number = words.next().and_then(|word| word.parse::<f64>().ok());
            number.unwrap_or_default()
        };
        match words.next() {
            Some("up") => {
                ran.up_seconds = seconds(&mut words);
                ran.release = words.next().map(str::to_owned);
            }
            Some("begin") => section = Some(String::new()),
            Some("end") => {
                let code = words.nth(1).and_then(|code| code.parse().ok());
                let (from, to) = (seconds(&mut words), seconds(&mut words));
                ran.checks.push(Section {
                    output: section.take().unwrap_or_default(),
                    code,
                    seconds: to - from,
                });
            }
            Some("done") => ran.is_done = true,
            _ => {
                if let Some(output) = &mut section {
                    output.push_str(line);
                    output.push('\n');
                }
            }
        }
    }
    if let Some(output) = section {
        ran.checks.push(Section {
            output,
            code: None,
            seconds: 0.0,
        });
    }
    let lines: Vec<&str> = text.lines().collect();
    ran.tail = lines[lines.len().saturating_sub(25)..].join("\n");
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_said_is_taken_apart() {
        let text = "noise\n@@vm up 4.60 6.1.0\n@@vm begin 0\na\nb\n@@vm end 0 101 4.7 6.2\n\
             @@vm begin 1\n@@vm end 1 0 6.2 6.3\n@@vm done\nreboot: Power down\n";
        let ran = parse(text);
        assert_eq!(ran.release.as_deref(), Some("6.1.0"));
        assert!(ran.is_done);
        assert_eq!(ran.checks.len(), 2);
        assert_eq!(ran.checks[0].output, "a\nb\n");
        assert_eq!(
            (ran.checks[0].code, ran.checks[1].code),
            (Some(101), Some(0))
        );
        assert!((ran.checks[0].seconds - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_guest_that_crashes_leaves_a_check_without_an_end() {
        let ran = parse("@@vm up 1 6.1\n@@vm begin 0\nBUG: oops\n");
        assert!(!ran.is_done && ran.release.is_some());
        assert_eq!(ran.checks.len(), 1);
        assert_eq!(ran.checks[0].code, None);
        assert!(ran.tail.contains("BUG: oops"));
        assert!(parse("no kernel\n").release.is_none());
    }

    #[test]
    fn the_rate_of_the_counter_is_read_from_the_log() {
        assert_eq!(
            read_tsc("[ 0.0] tsc: Detected 2445.402 MHz processor\n"),
            Some(2_445_402)
        );
        assert_eq!(read_tsc("x\n"), None);
    }
}
