//! The variables of a build, for shells and editors.

use anyhow::Result;

use crate::build::Tools;
use crate::workspace::Workspace;

/// `cargo xtask env`: prints `export` lines for a POSIX shell.
///
/// In the checkout, plain cargo gets most of them from `.cargo/config.toml` already.
pub(crate) fn print(workspace: &Workspace) -> Result<()> {
    let tools = Tools::prepare(workspace)?;
    for (name, value) in tools.elf.variables()? {
        println!("export {name}={}", quote(&value.to_string_lossy()));
    }
    Ok(())
}

/// A word that a POSIX shell reads back as `value`.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_quoted_value_survives_the_shell() {
        assert_eq!(quote("/a b/$c"), "'/a b/$c'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
