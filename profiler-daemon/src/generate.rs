//! Man pages and shells' completions, from the command line's definition: what packages bring beside
//! the binary.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::cli::Cli;
use crate::exit::Exit;

/// The shells that are completed for, as packages commonly do.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes them to this directory, under the names that the systems look for: `schedscope.1`,
/// `schedscope-attach.1` and so on, `schedscope.bash`, `_schedscope` (zsh), `schedscope.fish`.
pub fn write(directory: &Path) -> anyhow::Result<u8> {
    let command = Cli::command();
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command.clone(), directory))
        .and_then(|()| {
            SHELLS.iter().try_for_each(|&shell| {
                generate_to(shell, &mut command.clone(), "schedscope", directory).map(drop)
            })
        })
        .with_context(|| format!("can't write to {}", directory.display()))?;
    Ok(Exit::Done as u8)
}
