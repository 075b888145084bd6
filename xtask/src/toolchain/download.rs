//! Debian packages by name: fetched with apt and unpacked, never installed.
//!
//! apt runs with a state of its own under `target/xtask/apt`, so it needs no root and leaves the
//! system's lists, caches and packages alone. Sources and keys are the system's (`/etc/apt`), so
//! what is fetched is what the machine trusts, with apt's usual checks of signatures and hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{capture, describe, find, output};
use crate::stamp;

/// Packages that are on every Debian machine with a C compiler. They belong to the system's own
/// loader and compiler, so a second copy must not be mixed in.
const SYSTEM: &[&str] = &[
    "binutils",
    "dpkg",
    "gcc",
    "libc-dev",
    "libc6",
    "libc6-dev",
    "libgcc-s1",
    "libstdc++6",
];

/// A private apt.
pub(crate) struct Apt {
    dir: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Whether this machine has apt at all.
    pub(crate) fn is_available() -> bool {
        ["apt-get", "apt-cache", "dpkg-deb"]
            .iter()
            .all(|program| find(program).is_some())
    }

    /// Sets the private state up in `dir` and fetches the lists of packages.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, "")
    }

    /// [`Self::open`] with more lines of configuration.
    pub(crate) fn open_with(dir: &Path, more: &str) -> Result<Self> {
        for sub in ["lists/partial", "archives/partial"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path)
                .with_context(|| format!("can't create {}", path.display()))?;
        }
        let apt = Self {
            dir: dir.to_path_buf(),
            config: dir.join("apt.conf"),
        };
        // An empty status makes the answers independent of what is installed here.
        fs::write(dir.join("status"), "")
            .and_then(|()| fs::write(&apt.config, configuration(dir) + more))
            .with_context(|| format!("can't write in {}", dir.display()))?;
        let mut update = apt.command("apt-get");
        update.args(["update", "-qq"]);
        let result = output(&mut update)?;
        if !result.status.success() {
            // One broken source among several is common, and may not be one that is needed.
            eprintln!(
                "warning: `{}` reported: {}",
                describe(&update),
                String::from_utf8_lossy(&result.stderr).trim()
            );
        }
        Ok(apt)
    }

    /// Fetches `wanted` and all that they depend on, the system's own packages left out, and
    /// unpacks them in `root`. Returns what was unpacked, as `name version`.
    pub(crate) fn unpack(&self, wanted: &[&str], root: &Path) -> Result<Vec<String>> {
        self.unpack_without(wanted, &[], root)
    }

    /// [`Self::unpack`], leaving out these packages and what only they depend on.
    pub(crate) fn unpack_without(
        &self,
        wanted: &[&str],
        without: &[&str],
        root: &Path,
    ) -> Result<Vec<String>> {
        let left_out = [SYSTEM, without].concat();
        let packages = closure(wanted, &left_out, |names| self.show(names))?;
        let exact: Vec<_> = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        let exact: Vec<_> = exact.iter().map(String::as_str).collect();
        self.unpack_only(&exact, root)?;
        Ok(packages
            .iter()
            .map(|package| format!("{} {}", package.name, package.version))
            .collect())
    }

    /// Fetches `wanted`, as `name` or `name=version`, and nothing that they depend on, and unpacks them.
    pub(crate) fn unpack_only(&self, wanted: &[&str], root: &Path) -> Result<()> {
        let debs = self.dir.join("debs");
        stamp::empty(&debs)?;
        capture(
            self.command("apt-get")
                .args(["download", "-qq"])
                .args(wanted)
                .current_dir(&debs),
        )
        .context("can't fetch Debian packages")?;
        let entries =
            fs::read_dir(&debs).with_context(|| format!("can't read {}", debs.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("can't read {}", debs.display()))?
                .path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                capture(Command::new("dpkg-deb").arg("-x").arg(&path).arg(root))?;
            }
        }
        fs::remove_dir_all(&debs).with_context(|| format!("can't remove {}", debs.display()))
    }

    /// Where the packages come from, a line of tabs for each list of them: the fields are those of
    /// `apt-get indextargets`, given as a format.
    pub(super) fn index_targets(&self, format: &str) -> Result<String> {
        capture(
            self.command("apt-get")
                .args(["indextargets", "--format", format])
                .arg("Created-By: Packages"),
        )
    }

    /// The names of all packages that begin so.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = capture(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Those of the packages that there are, given as `name` or `name:architecture`, each with its version.
    pub(crate) fn versions(&self, names: &BTreeSet<String>) -> Result<Vec<(String, String)>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let packages = self.show(names)?.into_iter();
        Ok(packages
            .map(|package| (package.name, package.version))
            .collect())
    }

    fn show(&self, names: &BTreeSet<String>) -> Result<Vec<Package>> {
        // It fails when one of the names is unknown, and still prints the others.
        let shown = output(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", "--"])
                .args(names),
        )?;
        Ok(parse_stanzas(&String::from_utf8_lossy(&shown.stdout)))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&self.config)
            .env("LC_ALL", "C.UTF-8")
            .current_dir(&self.dir);
        command
    }
}

/// The private apt's configuration. It comes after the system's, and takes back the hooks there
/// that would write outside of `dir`, and lists that nobody reads.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Dir::State \"{dir}\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::State::status \"{dir}/status\";\n\
         Dir::Cache \"{dir}\";\n\
         Dir::Cache::archives \"{dir}/archives\";\n\
         Dir::Log \"{dir}\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear Acquire::IndexTargets::deb::DEP-11;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons-small;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons-large;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;\n"
    )
}

/// A package as the archive describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    /// What it needs: of each group of alternatives, one.
    depends: Vec<Vec<String>>,
}

/// Reads the stanzas that `apt-cache show` prints; of several for one name, the first is kept.
fn parse_stanzas(text: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else {
            continue;
        };
        if packages.iter().any(|package| package.name == name) {
            continue;
        }
        let depends = ["Pre-Depends", "Depends"]
            .into_iter()
            .filter_map(field)
            .flat_map(parse_depends);
        packages.push(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            depends: depends.collect(),
        });
    }
    packages
}

/// Reads `a (>= 1), b | c:any` as `[[a], [b, c]]`. Versions need no look: one archive fits itself.
fn parse_depends(field: &str) -> Vec<Vec<String>> {
    field
        .split(',')
        .map(|group| {
            group
                .split('|')
                .filter_map(|alternative| alternative.split_whitespace().next())
                .map(|name| name.split(':').next().unwrap_or(name).to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|group| !group.is_empty())
        .collect()
}

/// All packages that `wanted` need, themselves included, without those in `system`.
///
/// Of alternatives, the first that is there already is taken, else the first that `show` knows.
fn closure(
    wanted: &[&str],
    system: &[&str],
    mut show: impl FnMut(&BTreeSet<String>) -> Result<Vec<Package>>,
) -> Result<Vec<Package>> {
    let mut chosen: BTreeMap<String, Package> = BTreeMap::new();
    let mut unknown: BTreeSet<String> = BTreeSet::new();
    let mut pending: Vec<(Vec<String>, String)> = wanted
        .iter()
        .map(|name| (vec![(*name).to_owned()], "xtask".to_owned()))
        .collect();
    loop {
        pending.retain(|(alternatives, _)| {
            !alternatives
                .iter()
                .any(|name| chosen.contains_key(name) || system.contains(&name.as_str()))
        });
        if pending.is_empty() {
            return Ok(chosen.into_values().collect());
        }
        let mut wave = BTreeSet::new();
        for (alternatives, wanted_by) in &pending {
            let Some(name) = alternatives.iter().find(|name| !unknown.contains(*name)) else {
                bail!(
                    "the package sources in /etc/apt have no package {} (wanted by {wanted_by})",
                    alternatives.join(" or ")
                );
            };
            wave.insert(name.clone());
        }
        let packages = show(&wave)?;
        unknown.extend(
            wave.into_iter()
                .filter(|name| !packages.iter().any(|package| package.name == *name)),
        );
        for package in packages {
            pending.extend(
                package
                    .depends
                    .iter()
                    .map(|group| (group.clone(), package.name.clone())),
            );
            chosen.insert(package.name.clone(), package);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Package: a\nVersion: 1:2.0-1~deb12u1\nArchitecture: amd64\n\
         Pre-Depends: pre\nDepends: b (>= 1.0), c:any | d (<< 3), libc6 (>= 2.34)\n\
         Description: says Depends: nothing\n more\n\n\
         Package: b\nVersion: 1.5\nDescription: none\n\n\
         Package: a\nVersion: 0.9\n\n";

    fn archive(
        packages: &'static [(&str, &str)],
    ) -> impl FnMut(&BTreeSet<String>) -> Result<Vec<Package>> {
        |names| {
            let known = packages.iter().filter(|(name, _)| names.contains(*name));
            Ok(known
                .map(|(name, depends)| Package {
                    name: (*name).to_owned(),
                    version: "1".to_owned(),
                    depends: parse_depends(depends),
                })
                .collect())
        }
    }

    fn names(packages: &[Package]) -> Vec<&str> {
        packages
            .iter()
            .map(|package| package.name.as_str())
            .collect()
    }

    #[test]
    fn stanzas_give_the_first_version_and_all_dependencies() {
        let packages = parse_stanzas(STANZAS);
        assert_eq!(names(&packages), ["a", "b"]);
        let a = packages.first().expect("there are two");
        assert_eq!(a.version, "1:2.0-1~deb12u1");
        assert_eq!(
            a.depends,
            [vec!["pre"], vec!["b"], vec!["c", "d"], vec!["libc6"]]
        );
    }

    #[test]
    fn empty_answers_are_no_packages() {
        assert_eq!(parse_stanzas(""), []);
        assert_eq!(parse_stanzas("N: Unable to locate package x\n"), []);
        assert_eq!(parse_depends(""), Vec::<Vec<String>>::new());
    }

    #[test]
    fn the_closure_stops_at_the_system_and_ends_in_circles() {
        let show = archive(&[
            ("a", "b, libc6"),
            ("b", "c"),
            ("c", "a, libc6"),
            ("unwanted", ""),
        ]);
        let packages = closure(&["a"], &["libc6"], show).expect("everything is there");
        assert_eq!(names(&packages), ["a", "b", "c"]);
    }

    #[test]
    fn of_alternatives_the_first_that_exists_is_taken() {
        let show = archive(&[("a", "gone | b | c"), ("b", ""), ("c", "")]);
        let packages = closure(&["a"], &[], show).expect("everything is there");
        assert_eq!(names(&packages), ["a", "b"]);
    }

    #[test]
    fn an_alternative_of_the_system_is_enough() {
        let show = archive(&[("a", "b | libc6-dev"), ("b", "")]);
        let packages = closure(&["a"], &["libc6-dev"], show).expect("everything is there");
        assert_eq!(names(&packages), ["a"]);
    }

    #[test]
    fn a_package_that_is_nowhere_is_named_with_who_wants_it() {
        let show = archive(&[("a", "gone (>= 2) | lost")]);
        let error = closure(&["a"], &[], show)
            .expect_err("two are missing")
            .to_string();
        assert!(
            error.contains("no package gone or lost (wanted by a)"),
            "{error}"
        );
    }

    #[test]
    fn the_configuration_points_apt_into_its_own_directory() {
        let text = configuration(Path::new("/x/apt"));
        for key in [
            "Dir::State ",
            "Dir::State::lists ",
            "Dir::State::status ",
            "Dir::Cache ",
            "Dir::Log ",
        ] {
            let line = text.lines().find(|line| line.starts_with(key)).expect(key);
            assert!(line.contains("\"/x/apt"), "{line}");
        }
        assert!(text.contains("#clear APT::Update::Post-Invoke;\n"));
    }
}
