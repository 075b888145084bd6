//! Man pages and shells' completions, from the command line's definition: what packages bring beside
//! the binary.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::cli::Cli;
use crate::completion::VARIABLE;
use crate::exit::Exit;

/// What people type.
const NAME: &str = "schedscope";

/// The shells that are completed for, as packages commonly do, and where each looks for it.
const SHELLS: [(&dyn EnvCompleter, &str); 3] = [
    (&Bash, "schedscope.bash"),
    (&Zsh, "_schedscope"),
    (&Fish, "schedscope.fish"),
];

/// Writes them to this directory, under the names that the systems look for: `schedscope.1`,
/// `schedscope-attach.1` and so on, `schedscope.bash`, `_schedscope` (zsh), `schedscope.fish`.
pub fn write(directory: &Path) -> anyhow::Result<u8> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .and_then(|()| {
            SHELLS.iter().try_for_each(|(shell, file)| {
                // It asks the binary, wherever in the search path that is.
                let mut script = Vec::new();
                shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
                fs::write(directory.join(file), script)
            })
        })
        .with_context(|| format!("can't write to {}", directory.display()))?;
    Ok(Exit::Done as u8)
}

/// The command line as it is completed: without what the help hides, since a subcommand can't be taken away
/// again.
#[must_use]
pub fn completed() -> Command {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(shown.cloned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{VARIABLE, write};

    #[test]
    fn commands_have_pages_and_completions_unless_they_are_hidden() {
        let directory = std::env::temp_dir().join(format!("generated-{}", std::process::id()));
        write(&directory).expect("the temporary directory can be written");
        let read = |name: &str| {
            fs::read_to_string(directory.join(name)).unwrap_or_else(|error| {
                panic!("{name}: {error}");
            })
        };
        for name in ["schedscope.bash", "_schedscope", "schedscope.fish"] {
            assert!(read(name).contains(VARIABLE), "{name}: {}", read(name));
        }
        assert!(read("_schedscope").starts_with("#compdef schedscope"));
        for (name, word) in [
            ("schedscope.1", "Exit codes"),
            ("schedscope-attach.1", "Examples"),
            ("schedscope-run.1", "SIGHUP"),
        ] {
            assert!(read(name).contains(word), "{word} in {name}");
        }
        assert!(!directory.join("schedscope-exec-gate.1").exists());
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
