//! Marks that say which recipe made a directory, so that it is made once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const NAME: &str = ".recipe";

/// Whether `dir` was made, to its end, by this recipe.
pub(crate) fn is_current(dir: &Path, recipe: &str) -> bool {
    fs::read_to_string(dir.join(NAME)).is_ok_and(|made_by| made_by == recipe)
}

/// Makes `dir` by `make`, unless this recipe has made it before; says whether there was work to do.
///
/// The work is done in a directory beside it, which takes its place at the end: an interrupted
/// set-up leaves nothing that could be taken for a complete one.
pub(crate) fn ensure(
    dir: &Path,
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<bool> {
    if is_current(dir, recipe) {
        return Ok(false);
    }
    let partial = dir.with_extension("partial");
    empty(&partial)?;
    make(&partial)?;
    fs::write(partial.join(NAME), recipe)
        .with_context(|| format!("can't write the stamp in {}", partial.display()))?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("can't remove {}", dir.display()))?;
    }
    fs::rename(&partial, dir)
        .with_context(|| format!("can't rename {} to {}", partial.display(), dir.display()))?;
    Ok(true)
}

/// Makes `dir` an empty directory.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("can't remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))
}
