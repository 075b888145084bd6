//! `cargo xtask vm`: other kernels, and machines with many CPUs.
//!
//! Debian's kernels are booted one after the other under qemu, which emulates in software and so needs nothing
//! of the machine. A guest has an initramfs with busybox, the binary, and tests of the privileged suites; it
//! runs these and switches off. The tests are the ones that `cargo xtask test` runs on this machine's own
//! kernel, so they hold the figures against the kernel's books and against programs with a known truth.

mod checks;
mod cross;
mod initramfs;
mod kernels;
mod machine;
mod programs;
mod qemu;
mod report;

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::checks::{CHECKS, Check};
use self::initramfs::Archive;
use self::kernels::{Arch, Image, KERNELS, Kernel};
use self::machine::{Machine, Ran};
use self::programs::{Profile, Programs};
use self::qemu::Qemu;
use self::report::Row;
use crate::stamp;
use crate::test::libtest::Outcome;
use crate::test::suite::is_meant;
use crate::workspace::Workspace;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// CPUs of a guest where none are asked for.
const CPUS: u32 = 2;
/// Longest time for a check in a guest with few CPUs, in seconds.
const CHECK_SECONDS: u64 = 120;
/// Most checks that are done again.
const MAX_AGAIN: usize = 3;

/// Which kernels, and what is done there.
#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Args {
    /// Kernels by series, such as 6.1; without, the whole matrix (`--list` has it).
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Do only these checks.
    #[arg(long = "check", value_name = "NAME")]
    checks: Vec<String>,
    /// CPUs of each guest.
    #[arg(long, default_value_t = CPUS, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Try the binary that the tests are built with, not an optimized one.
    #[arg(long)]
    debug: bool,
    /// The short form: the oldest and the newest kernel, a few checks.
    #[arg(long)]
    short: bool,
    /// Print the kernels and the checks, and do nothing.
    #[arg(long)]
    list: bool,
    /// Fetch the kernels and the emulator, and boot nothing.
    #[arg(long)]
    fetch: bool,
}

/// Boots each kernel and does the checks; success means that none failed.
pub(crate) fn vm(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.list {
        print!("{}", report::list(KERNELS, CHECKS));
        return Ok(ExitCode::SUCCESS);
    }
    let kernels = choose(KERNELS, &args.kernels, |kernel| kernel.name)?;
    let kernels = kernels
        .into_iter()
        .filter(|kernel| !args.short || kernel.is_short)
        .collect::<Vec<_>>();
    let checks = choose(CHECKS, &args.checks, |check| check.name)?;
    let checks = checks
        .into_iter()
        .filter(|check| !args.short || check.is_short)
        .collect::<Vec<_>>();
    if let Some(why) = why_not() {
        bail!("{why}");
    }
    if args.fetch {
        return fetch(workspace, &kernels);
    }
    let profile = if args.debug {
        Profile::Tests
    } else {
        Profile::Release
    };
    let mut rows = Vec::new();
    for arch in [Arch::Amd64, Arch::Arm64] {
        let of_arch: Vec<Kernel> = kernels
            .iter()
            .copied()
            .filter(|kernel| kernel.arch == arch)
            .collect();
        if of_arch.is_empty() {
            continue;
        }
        match Programs::build(workspace, arch, &checks, profile) {
            Ok(programs) => {
                let run = Run {
                    workspace,
                    checks: &checks,
                    cpus: args.cpus,
                    programs: &programs,
                };
                rows.extend(run.all(&of_arch, |row| print!("{}", row.lines())));
            }
            // The tables of the others are still of use.
            Err(error) => {
                let refuse = |kernel| Row::refused(kernel, format!("{error:#}"));
                rows.extend(of_arch.iter().map(refuse));
            }
        }
    }
    print!("{}", report::table(&rows, &checks));
    Ok(if rows.iter().all(Row::is_good) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Fetches all that the guests of these kernels are made of, but for what is built.
fn fetch(workspace: &Workspace, kernels: &[Kernel]) -> Result<ExitCode> {
    let _lock = workspace.lock()?;
    let mut is_whole = true;
    for (kernel, image) in kernels::prepare(workspace, kernels) {
        let image = image.and_then(|image| {
            qemu::prepare(workspace, kernel.arch)?;
            Ok(image)
        });
        match image {
            Ok(image) => println!("{:<14}{}", kernel.name, image.package),
            Err(error) => {
                println!("{:<14}not there: {error:#}", kernel.name);
                is_whole = false;
            }
        }
    }
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Those of the table that are named; all, if none is.
fn choose<T: Copy>(
    table: &[T],
    wanted: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>> {
    for wanted in wanted {
        ensure!(
            table.iter().any(|row| name(row) == wanted),
            "there is no '{wanted}'; there are: {}",
            table.iter().map(&name).collect::<Vec<_>>().join(", ")
        );
    }
    let is_wanted = |row: &&T| wanted.is_empty() || wanted.iter().any(|name_| name_ == name(row));
    Ok(table.iter().filter(is_wanted).copied().collect())
}

/// Why this machine can't do it, if it can't.
fn why_not() -> Option<String> {
    (std::env::consts::ARCH != "x86_64").then(|| {
        "the guests' programs are this machine's, and only x86-64 ones are provided for".to_owned()
    })
}

/// The short form, as a suite of `cargo xtask test`: what came of it, and all that is known of it. Of the checks
/// those whose names contain one of the filters, or all.
///
/// A kernel that can't be had is not run; one that can and does not boot has failed.
pub(crate) fn suite(workspace: &Workspace, filters: &[String]) -> Result<(Outcome, String)> {
    let kernels = short(KERNELS, |kernel| kernel.is_short);
    let checks = short(CHECKS, |check| {
        check.is_short && is_meant(check.name, filters)
    });
    if checks.is_empty() {
        return Ok(<(Outcome, String)>::default());
    }
    if let Some(reason) = why_not() {
        let rows = kernels
            .iter()
            .map(|kernel| Row::refused(kernel, reason.clone()));
        return Ok(report::judged(&rows.collect::<Vec<_>>(), &checks));
    }
    let programs = Programs::build(workspace, Arch::Amd64, &checks, Profile::Tests)?;
    let run = Run {
        workspace,
        checks: &checks,
        cpus: CPUS,
        programs: &programs,
    };
    Ok(report::judged(&run.all(&kernels, |_| {}), &checks))
}

fn short<T: Copy>(table: &[T], is_short: impl Fn(&T) -> bool) -> Vec<T> {
    table.iter().copied().filter(|row| is_short(row)).collect()
}

/// Checks in guests of one kind.
#[derive(Clone, Copy)]
struct Run<'a> {
    workspace: &'a Workspace,
    checks: &'a [Check],
    cpus: u32,
    programs: &'a Programs,
}

impl Run<'_> {
    /// Fetches the kernels and boots one after the other; `told` is told of each.
    fn all(self, kernels: &[Kernel], told: impl Fn(&Row)) -> Vec<Row> {
        let images = match self.workspace.lock() {
            Ok(_lock) => kernels::prepare(self.workspace, kernels),
            Err(error) => {
                let refuse = |kernel| Row::refused(kernel, format!("{error:#}"));
                return kernels.iter().map(refuse).collect();
            }
        };
        let rows = images.into_iter().map(|(kernel, image)| {
            let row = match image {
                Err(error) => Row::refused(&kernel, format!("{error:#}")),
                Ok(image) => {
                    eprintln!(
                        "booting {} ({}) with {} CPUs",
                        kernel.name, image.package, self.cpus
                    );
                    self.one(&image)
                }
            };
            told(&row);
            row
        });
        rows.collect()
    }

    /// Boots one kernel; if only a few checks fail, these once more, because whatever else this machine does can
    /// upset what is held against real time.
    fn one(self, image: &Image) -> Row {
        let lock = self.workspace.lock();
        let qemu = lock.and_then(|_lock| qemu::prepare(self.workspace, image.kernel.arch));
        let qemu = match qemu {
            Ok(qemu) => qemu,
            Err(error) => return Row::refused(&image.kernel, format!("{error:#}")),
        };
        let attempt = |checks: &[Check]| {
            let run = Run { checks, ..self };
            Row::new(image, checks, run.boot(&qemu, image))
        };
        let mut row = attempt(self.checks);
        let failed = row.failed();
        if (1..=MAX_AGAIN).contains(&failed.len()) {
            eprint!("{}", row.lines());
            row.amend(attempt(&failed));
        }
        row
    }

    fn boot(self, qemu: &Qemu, image: &Image) -> Result<Ran> {
        let dir = self.workspace.tools().join("vm").join(image.kernel.name);
        stamp::empty(&dir)?;
        // Emulated CPUs share one of this machine's.
        let seconds = CHECK_SECONDS * u64::from(self.cpus.div_ceil(4));
        let initramfs = dir.join("initramfs");
        let archive = pack(qemu, self.programs, self.checks, seconds)?;
        fs::write(&initramfs, archive)
            .with_context(|| format!("can't write {}", initramfs.display()))?;
        let ran = Machine {
            qemu,
            image,
            initramfs: &initramfs,
            cpus: self.cpus,
            // Its clock may be slower than this one.
            patience: Duration::from_secs(2 * seconds),
            console: &dir.join("console"),
        }
        .run()?;
        fs::remove_file(&initramfs)
            .with_context(|| format!("can't remove {}", initramfs.display()))?;
        Ok(ran)
    }
}

/// The guest's whole file system.
fn pack(qemu: &Qemu, programs: &Programs, checks: &[Check], seconds: u64) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["proc", "sys", "dev", "tmp", "run", "root", "vm"] {
        archive.directory(directory);
    }
    archive.device("dev/console", (5, 1));
    archive.device("dev/null", (1, 3));
    archive.copy(&qemu.busybox, "bin/busybox")?;
    archive.link("bin/sh", "busybox");
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    archive.file("vm/now", 0o644, format!("{}\n", now.as_secs()).as_bytes());
    archive.file("vm/environment", 0o644, programs.environment().as_bytes());
    let mut list = String::new();
    for check in checks {
        let program = programs.of(check.suite)?;
        // Writing to a string can't fail.
        let _ = writeln!(list, "{seconds} {program} {}", check.test);
    }
    archive.file("vm/checks", 0o644, list.as_bytes());
    programs.add_to(&mut archive)?;
    Ok(archive.finish())
}
