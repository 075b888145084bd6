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

#[cfg(test)]
mod tests {
    use std::env;
    use std::path::PathBuf;
    use std::process;

    use super::*;

    /// A directory that is removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("xtask-stamp-{}-{name}", process::id()));
            empty(&dir).expect("the temporary directory can be written");
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_same_recipe_works_once() {
        let scratch = Scratch::new("once");
        let dir = scratch.0.join("made");
        let mut times = 0;
        for recipe in ["one", "one", "two", "two", "one"] {
            let made = ensure(&dir, recipe, |dir| {
                times += 1;
                fs::write(dir.join("product"), recipe).context("product")
            });
            made.expect("making succeeds");
            assert_eq!(
                fs::read_to_string(dir.join("product")).expect("made"),
                recipe
            );
        }
        assert_eq!(times, 3);
    }

    #[test]
    fn a_failure_leaves_what_was_there_and_is_tried_again() {
        let scratch = Scratch::new("failure");
        let dir = scratch.0.join("made");
        ensure(&dir, "old", |dir| {
            fs::write(dir.join("product"), "old").context("")
        })
        .expect("made");
        let failing = ensure(&dir, "new", |dir| {
            fs::write(dir.join("product"), "half").context("product")?;
            anyhow::bail!("interrupted")
        });
        assert_eq!(
            failing.expect_err("it was interrupted").to_string(),
            "interrupted"
        );
        assert!(is_current(&dir, "old") && !is_current(&dir, "new"));
        assert_eq!(
            fs::read_to_string(dir.join("product")).expect("kept"),
            "old"
        );
        let made = ensure(&dir, "new", |dir| {
            assert_eq!(
                fs::read_dir(dir).expect("it is there").count(),
                0,
                "starts empty"
            );
            Ok(())
        });
        assert!(made.expect("made"));
    }
}
