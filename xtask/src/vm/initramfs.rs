//! Archives that a kernel unpacks as its first file system.
//!
//! The format is the "newc" one of Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's
//! source, written without compression: the kernel reads it in a fraction of a second even under emulation.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under way.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// A directory with those above it.
    pub(super) fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return;
        }
        self.parent(path);
        self.entry(path, DIRECTORY, &[], (0, 0));
    }

    /// A file with this content and mode (such as `0o755`).
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.parent(path);
        self.entry(path, FILE | mode, content, (0, 0));
    }

    /// A file of this machine, at the given path.
    pub(super) fn copy(&mut self, from: &Path, path: &str) -> Result<()> {
        let read = || format!("can't read {}", from.display());
        let content = fs::read(from).with_context(read)?;
        let mode = fs::metadata(from).with_context(read)?.permissions().mode();
        self.file(path, mode & 0o777, &content);
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.parent(path);
        self.entry(path, LINK, target.as_bytes(), (0, 0));
    }

    /// A character device, by its numbers.
    pub(super) fn device(&mut self, path: &str, numbers: (u32, u32)) {
        self.parent(path);
        self.entry(path, CHARACTER_DEVICE, &[], numbers);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((parent, _)) = path.trim_matches('/').rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        let name = path.trim_start_matches('/');
        self.inode += 1;
        // Neither is near 4 GB.
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            size(content.len()),
            0,
            0,
            device.0,
            device.1,
            size(name.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_has_parents_before_children_and_aligned_entries() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o755, b"hello");
        archive.link("a/l", "b");
        archive.file("a/b/d", 0o644, b"");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).expect("all of it is text here");
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert!(starts.iter().all(|start| start % 4 == 0), "{starts:?}");
        let names: Vec<&str> = starts
            .iter()
            .map(|start| text[start + 110..].split('\0').next().expect("a name"))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/l", "a/b/d", "TRAILER!!!"]);
        // Mode, size of the content and of the name, as cpio(5) has them.
        let file = &text[starts[2]..];
        assert_eq!(&file[14..22], "000081ED");
        assert_eq!((&file[54..62], &file[94..102]), ("00000005", "00000006"));
        assert!(file[110..].starts_with("a/b/c\0hello\0"));
    }
}
