//! Scripts that start an unpacked program with the shared libraries that were unpacked with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes the script `bin/name`, which starts `program` with `libraries` on the loader's path.
///
/// Both are relative to `bin`, and the script finds them from its own place, so that the checkout
/// can be moved.
pub(crate) fn write(bin: &Path, name: &str, program: &str, libraries: &str) -> Result<()> {
    let script = format!(
        "#!/bin/sh\n\
         here=${{0%/*}}\n\
         LD_LIBRARY_PATH=$here/{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\n\
         export LD_LIBRARY_PATH\n\
         exec \"$here/{program}\" \"$@\"\n"
    );
    write_script(bin, name, &script)
}

/// Writes a script that can be run.
pub(crate) fn write_script(dir: &Path, name: &str, script: &str) -> Result<()> {
    let path = dir.join(name);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, script))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("can't write {}", path.display()))
}

/// The directory of shared libraries in an unpacked root, relative to it: `usr/lib/TRIPLET`.
pub(crate) fn multiarch_libraries(root: &Path) -> Result<String> {
    let usr_lib = root.join("usr/lib");
    let entries = fs::read_dir(&usr_lib)
        .with_context(|| format!("the unpacked packages have no {}", usr_lib.display()))?;
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && name.ends_with("-linux-gnu")
        {
            return Ok(format!("usr/lib/{name}"));
        }
    }
    anyhow::bail!(
        "the unpacked packages have no {}/*-linux-gnu",
        usr_lib.display()
    )
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{self, Command};

    use super::*;
    use crate::process::capture;

    #[test]
    fn a_script_starts_its_program_wherever_it_is_moved() {
        let dir = env::temp_dir().join(format!("xtask wrapper {}", process::id()));
        let (first, second) = (dir.join("first"), dir.join("second"));
        fs::create_dir_all(first.join("root")).expect("the temporary directory can be written");
        write(
            &first.join("bin"),
            "show",
            "../root/program",
            "../root/libs",
        )
        .expect("written");
        let program = first.join("root/program");
        fs::write(&program, "#!/bin/sh\necho \"$LD_LIBRARY_PATH\" \"$@\"\n").expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("written");
        fs::rename(&first, &second).expect("moved");
        let script = second.join("bin/show");
        let shown = capture(
            Command::new(&script)
                .args(["a b", "c"])
                .env("LD_LIBRARY_PATH", "/x"),
        );
        let expected = format!("{}/bin/../root/libs:/x a b c\n", second.display());
        assert_eq!(shown.expect("it runs"), expected);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
