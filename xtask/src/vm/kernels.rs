//! The kernels of the matrix: Debian's, fetched by series and kept.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{capture, output};
use crate::stamp;
use crate::toolchain::download::Apt;
use crate::toolchain::suites::{self, Suite};
use crate::workspace::Workspace;

/// A machine's architecture, by Debian's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// How a kernel is configured, by the end of its package's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    /// For virtual machines: a third of the size, nothing missing that is tried.
    Cloud,
    /// With `CONFIG_PREEMPT_RT`.
    Rt,
}

/// A row of the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// What it is asked for by.
    pub(super) name: &'static str,
    /// The first numbers of its version; `None` is the newest that the suite has.
    series: Option<&'static str>,
    pub(super) arch: Arch,
    flavour: Flavour,
    suite: Suite,
    /// It is in the short form.
    pub(super) is_short: bool,
}

const fn row(
    name: &'static str,
    series: Option<&'static str>,
    arch: Arch,
    suite: Suite,
    is_short: bool,
) -> Kernel {
    Kernel {
        name,
        series,
        arch,
        flavour: Flavour::Cloud,
        suite,
        is_short,
    }
}

/// A row for x86-64 with `CONFIG_PREEMPT_RT`.
const fn rt(name: &'static str, series: Option<&'static str>, suite: Suite) -> Kernel {
    Kernel {
        flavour: Flavour::Rt,
        ..row(name, series, Arch::Amd64, suite, false)
    }
}

/// All, the oldest first.
#[rustfmt::skip]
pub(super) const KERNELS: &[Kernel] = &[
    row("5.10", Some("5.10"), Arch::Amd64, Suite::Security("bullseye-security"), true),
    row("6.1", Some("6.1"), Arch::Amd64, Suite::Security("bookworm-security"), false),
    row("6.12", Some("6.12"), Arch::Amd64, Suite::Security("trixie-security"), false),
    row("6.18", Some("6.18"), Arch::Amd64, Suite::Main("trixie-backports"), false),
    row("6.19", Some("6.19"), Arch::Amd64, Suite::Main("trixie-backports"), false),
    row("7.2", Some("7.2"), Arch::Amd64, Suite::Main("trixie-backports"), false),
    row("newest", None, Arch::Amd64, Suite::Main("trixie-backports"), true),
    rt("6.1-rt", Some("6.1"), Suite::Security("bookworm-security")),
    rt("6.12-rt", Some("6.12"), Suite::Security("trixie-security")),
    rt("newest-rt", None, Suite::Main("trixie-backports")),
    row("6.1-arm64", Some("6.1"), Arch::Arm64, Suite::Security("bookworm-security"), false),
    row("newest-arm64", None, Arch::Arm64, Suite::Main("trixie-backports"), false),
];

/// A kernel that is there.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) kernel: Kernel,
    /// Its compressed image.
    pub(super) file: PathBuf,
    /// Package and version.
    pub(super) package: String,
}

/// Fetches what is not there yet; a kernel that can't be had comes with the reason.
pub(super) fn prepare(workspace: &Workspace, kernels: &[Kernel]) -> Vec<(Kernel, Result<Image>)> {
    let dir = workspace.tools().join("kernels");
    let missing: Vec<Kernel> = kernels
        .iter()
        .copied()
        .filter(|kernel| !stamp::is_current(&dir.join(kernel.name), &kernel.recipe()))
        .collect();
    let apt = if missing.is_empty() {
        Ok(None)
    } else {
        open(workspace, &missing).map(Some)
    };
    let fetched = kernels.iter().map(|kernel| {
        let image = match &apt {
            Ok(apt) => kernel.fetch(apt.as_ref(), &dir),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        (*kernel, image)
    });
    fetched.collect()
}

fn open(workspace: &Workspace, kernels: &[Kernel]) -> Result<Apt> {
    ensure!(Apt::is_available(), "this machine has no apt");
    let suites: BTreeSet<Suite> = kernels.iter().map(|kernel| kernel.suite).collect();
    let suites: Vec<Suite> = suites.into_iter().collect();
    let foreign = kernels.iter().any(|kernel| kernel.arch == Arch::Arm64);
    let architectures: &[&str] = if foreign {
        &["amd64", "arm64"]
    } else {
        &["amd64"]
    };
    suites::open(workspace, "apt-kernels", &suites, architectures)
}

impl Kernel {
    /// Where it comes from, in words.
    pub(super) fn origin(&self) -> String {
        let which = self.series.map_or_else(
            || "the newest".to_owned(),
            |series| format!("the last {series}"),
        );
        let configured = match self.flavour {
            Flavour::Cloud => "",
            Flavour::Rt => ", PREEMPT_RT",
        };
        format!(
            "{which} of {}, {}{configured}",
            self.suite.name(),
            self.arch.debian()
        )
    }

    /// The archive changes every week; what was fetched stays what it is.
    fn recipe(&self) -> String {
        let series = self.series.unwrap_or("newest");
        format!("{series} of {}, {}, 2\n", self.suite.name(), self.suffix())
    }

    /// The end of its package's name.
    fn suffix(&self) -> String {
        let flavour = match self.flavour {
            Flavour::Cloud => "cloud",
            Flavour::Rt => "rt",
        };
        format!("-{flavour}-{}", self.arch.debian())
    }

    fn fetch(&self, apt: Option<&Apt>, dir: &Path) -> Result<Image> {
        let dir = dir.join(self.name);
        if let Some(apt) = apt {
            stamp::ensure(&dir, &self.recipe(), |dir| self.unpack(apt, dir))?;
        }
        let read = |name: &str| fs::read_to_string(dir.join(name));
        let package = read("package").with_context(|| format!("no kernel in {}", dir.display()))?;
        Ok(Image {
            kernel: *self,
            file: dir.join("vmlinuz"),
            package: package.trim().to_owned(),
        })
    }

    fn unpack(&self, apt: &Apt, dir: &Path) -> Result<()> {
        let (name, version) = self.choose(apt)?;
        eprintln!("fetching Debian's {name} {version}");
        let root = dir.join("root");
        stamp::empty(&root)?;
        let exact = format!("{name}:{}={version}", self.arch.debian());
        apt.unpack_only(&[&exact], &root)?;
        let image = find_image(&root)?;
        fs::rename(&image, dir.join("vmlinuz"))
            .and_then(|()| fs::write(dir.join("package"), format!("{name} {version}\n")))
            .with_context(|| format!("can't write in {}", dir.display()))?;
        fs::remove_dir_all(&root).with_context(|| format!("can't remove {}", root.display()))
    }

    /// The newest package of the series. Since 6.19 the image is in `linux-binary`, and `linux-image` only
    /// depends on it.
    fn choose(&self, apt: &Apt) -> Result<(String, String)> {
        for prefix in ["linux-binary-", "linux-image-"] {
            let names = apt.names(prefix)?.into_iter();
            let wanted = names
                .filter(|name| is_of(name, prefix, self.series, &self.suffix()))
                .map(|name| format!("{name}:{}", self.arch.debian()));
            let mut newest: Option<(String, String)> = None;
            for (name, version) in apt.versions(&wanted.collect())? {
                let is_newer = match &newest {
                    Some((_, best)) => compare_versions(&version, best)? == Ordering::Greater,
                    None => true,
                };
                if is_newer {
                    newest = Some((name, version));
                }
            }
            if let Some(newest) = newest {
                return Ok(newest);
            }
        }
        bail!(
            "{} has no kernel {}",
            self.suite.name(),
            self.series.unwrap_or("at all")
        )
    }
}

/// Whether a package is an image of this series, whose name ends so, and not one without a signature, of which
/// there is one with it.
fn is_of(name: &str, prefix: &str, series: Option<&str>, suffix: &str) -> bool {
    let Some(release) = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(suffix))
    else {
        return false;
    };
    let is_release = release.starts_with(|first: char| first.is_ascii_digit())
        && release.split('.').count() > 2
        && !release.contains("deb11");
    let is_of_series = series.is_none_or(|series| {
        release
            .strip_prefix(series)
            .is_some_and(|rest| rest.starts_with('.'))
    });
    is_release && is_of_series
}

/// Debian's order of versions.
fn compare_versions(one: &str, other: &str) -> Result<Ordering> {
    for (relation, ordering) in [("gt", Ordering::Greater), ("lt", Ordering::Less)] {
        let compared =
            output(Command::new("dpkg").args(["--compare-versions", one, relation, other]))?;
        if compared.status.success() {
            return Ok(ordering);
        }
    }
    Ok(Ordering::Equal)
}

/// The image of an unpacked package: `boot/vmlinuz-*`, since 7.3 `usr/lib/modules/*/vmlinuz`.
fn find_image(root: &Path) -> Result<PathBuf> {
    let found =
        capture(
            Command::new("find")
                .arg(root)
                .args(["-type", "f", "-name", "vmlinu[xz]*"]),
        )?;
    let image = found.lines().next();
    image
        .map(PathBuf::from)
        .context("the package has no image of a kernel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_what_has_a_similar_name() {
        let is = |name: &str, series| is_of(name, "linux-image-", series, "-cloud-amd64");
        assert!(is("linux-image-6.1.0-56-cloud-amd64", Some("6.1")));
        assert!(is("linux-image-6.12.118+deb13-cloud-amd64", Some("6.12")));
        assert!(is("linux-image-7.3.4+deb13-cloud-amd64", None));
        // Another series, another architecture, no signature, a name that follows the newest, a backport
        // to another release, a release candidate.
        assert!(!is("linux-image-6.12.118+deb13-cloud-amd64", Some("6.1")));
        assert!(!is("linux-image-6.1.0-56-cloud-arm64", Some("6.1")));
        assert!(!is(
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            Some("6.1")
        ));
        assert!(!is("linux-image-6.1-cloud-amd64", Some("6.1")));
        assert!(!is("linux-image-cloud-amd64", None));
        assert!(!is("linux-image-6.1.0-0.deb11.52-cloud-amd64", Some("6.1")));
        assert!(!is("linux-image-7.3-cloud-amd64", None));
        assert!(!is("linux-image-7.3.4+deb13-rt-amd64", None));
        let is_rt = |name: &str| is_of(name, "linux-image-", Some("6.1"), "-rt-amd64");
        assert!(is_rt("linux-image-6.1.0-56-rt-amd64"));
        assert!(!is_rt("linux-image-6.1.0-56-cloud-amd64"));
    }
}
