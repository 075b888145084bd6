//! Other suites of Debian's archive than the machine's own.
//!
//! They come from the mirrors that the machine uses for its own suite, and are checked with the keys of
//! Debian's archive that it has: a Debian knows those of the releases before and after it, too.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::download::Apt;
use crate::workspace::Workspace;

/// Keys of all releases, from Debian's package of them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite, by the part of the archive that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suite {
    /// Releases, backports and what is being made.
    Main(&'static str),
    /// Security updates, which have mirrors of their own.
    Security(&'static str),
}

impl Suite {
    /// The archive's own label of that part.
    fn label(self) -> &'static str {
        match self {
            Self::Main(_) => "Debian",
            Self::Security(_) => "Debian-Security",
        }
    }

    /// Its name in the archive.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Main(name) | Self::Security(name) => name,
        }
    }
}

/// An apt that knows these suites and no others, for these architectures, with a state of its own.
pub(crate) fn open(
    workspace: &Workspace,
    state: &str,
    suites: &[Suite],
    architectures: &[&str],
) -> Result<Apt> {
    let own = Apt::open(&workspace.tools().join("apt"))?;
    let targets = own.index_targets("$(LABEL)\t$(ORIGIN)\t$(REPO_URI)\t$(SIGNED_BY)")?;
    let lines = suites
        .iter()
        .map(|suite| source_line(*suite, &targets, Path::new(KEYRING).is_file()))
        .collect::<Result<Vec<_>>>()?;
    let dir = workspace.tools().join(state);
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let list = dir.join("sources.list");
    fs::write(&list, lines.concat()).with_context(|| format!("can't write {}", list.display()))?;
    let architectures = architectures.join("\"; \"");
    Apt::open_with(
        &dir,
        &format!(
            "Dir::Etc::sourcelist \"{}\";\n\
             Dir::Etc::sourceparts \"{}\";\n\
             #clear APT::Architectures;\n\
             APT::Architectures {{ \"{architectures}\"; }};\n",
            list.display(),
            dir.join("none").display()
        ),
    )
}

/// The line of `sources.list` for a suite, from what apt says of the machine's own sources.
fn source_line(suite: Suite, targets: &str, has_keyring: bool) -> Result<String> {
    for target in targets.lines() {
        let mut fields = target.split('\t');
        let (Some(label), Some(origin), Some(uri)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if label != suite.label() || origin != "Debian" {
            continue;
        }
        // Unset, apt leaves the field as it was asked for; a key or a fingerprint instead of a file may
        // be that of one release only.
        let own = fields.next().filter(|keys| keys.starts_with('/'));
        let keyring = own.or(has_keyring.then_some(KEYRING));
        let options = keyring.map_or_else(String::new, |file| format!("[signed-by={file}] "));
        return Ok(format!("deb {options}{uri} {} main\n", suite.name()));
    }
    bail!(
        "the package sources in /etc/apt have no archive labelled {}, of which {} is a suite",
        suite.label(),
        suite.name()
    )
}

#[cfg(test)]
mod tests {
    use super::{Suite, source_line};

    const TARGETS: &str = "Other\tOther\thttp://other/\t$(SIGNED_BY)\n\
         Debian\tDebian\thttp://mirror/debian/\t$(SIGNED_BY)\n\
         Debian-Security\tDebian\thttp://mirror/security/\t/keys.gpg\n";

    #[test]
    fn suites_come_from_the_machines_own_mirrors_with_its_keys() {
        let line = |suite, has_keyring| source_line(suite, TARGETS, has_keyring).expect("there");
        assert_eq!(
            line(Suite::Main("sid"), true),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian/ sid main\n"
        );
        assert_eq!(
            line(Suite::Main("sid"), false),
            "deb http://mirror/debian/ sid main\n"
        );
        assert_eq!(
            line(Suite::Security("bullseye-security"), true),
            "deb [signed-by=/keys.gpg] http://mirror/security/ bullseye-security main\n"
        );
    }

    #[test]
    fn a_machine_without_that_archive_is_told() {
        let error = source_line(
            Suite::Security("x-security"),
            "Ubuntu\tUbuntu\thttp://u/\t\n",
            true,
        );
        let error = error.expect_err("it is not there").to_string();
        assert!(
            error.contains("Debian-Security") && error.contains("x-security"),
            "{error}"
        );
    }
}
