//! Names of the kernel's functions, from /proc/kallsyms.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::fd::AsFd,
    path::Path,
};

/// Where the kernel lists them.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Why the names can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// The file can't be read.
    #[error("the kernel's symbols can't be read from {KALLSYMS} ({source}); mount /proc")]
    Read {
        /// What went wrong.
        #[from]
        source: io::Error,
    },
    /// The kernel keeps the addresses back, or lists no functions.
    #[error(
        "{KALLSYMS} gives no addresses of kernel functions; give schedscope CAP_SYSLOG, or set \
         kernel.kptr_restrict to 1, on a kernel built with CONFIG_KALLSYMS=y"
    )]
    Hidden,
}

/// Kernel functions by address: some 5 MiB. Names that occur several times are kept as often, since finding that
/// out takes longer than all the rest, and `attach` waits for it.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Where functions begin, in ascending order.
    starts: Vec<u64>,
    /// For each: where its name is in `names`.
    places: Vec<(u32, u16)>,
    names: String,
}

/// No function of the kernel is that long: an address so far behind the last one that is known belongs to
/// something else.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;

/// Opens the list, unless standard input is that.
///
/// Whether a reader gets addresses is decided when the file is opened, and for whoever opens it. So a
/// service manager can hand it over (`StandardInput=file:/proc/kallsyms`), and the service needs no
/// `CAP_SYSLOG`.
fn open() -> io::Result<File> {
    // From inside a file system of the service's own, the link shows the name without the way to it.
    let given = std::fs::read_link("/proc/self/fd/0");
    if given.is_ok_and(|file| file.file_name() == Path::new(KALLSYMS).file_name()) {
        return Ok(io::stdin().as_fd().try_clone_to_owned()?.into());
    }
    File::open(KALLSYMS)
}

impl Symbols {
    /// Reads those of the running kernel: some 100,000 in some 10 MiB of text.
    pub fn read() -> Result<Self, SymbolsError> {
        let symbols = Self::parse(BufReader::new(open()?))?;
        if symbols.starts.is_empty() {
            return Err(SymbolsError::Hidden);
        }
        Ok(symbols)
    }

    /// Reads a list in the form of /proc/kallsyms: address, type, name, and for a module's symbol the
    /// module's name in brackets. Only code is kept. Lines of another form are skipped.
    pub fn parse(mut list: impl BufRead) -> io::Result<Self> {
        let mut found: Vec<(u64, (u32, u16))> = Vec::new();
        let mut names = String::new();
        let mut line = String::new();
        while list.read_line(&mut line)? != 0 {
            if let Some((address, name)) = code(&line) {
                let start = u32::try_from(names.len());
                let length = u16::try_from(name.len());
                if let (Ok(start), Ok(length)) = (start, length) {
                    names.push_str(name);
                    found.push((address, (start, length)));
                }
            }
            line.clear();
        }
        found.sort_by_key(|&(address, _)| address);
        // Of several names for one address the first in the list is the one that the kernel itself shows.
        found.dedup_by_key(|&mut (address, _)| address);
        let (starts, places) = found.into_iter().unzip();
        Ok(Self {
            starts,
            places,
            names,
        })
    }

    /// The function that an address lies in.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        let place = self.starts.partition_point(|&start| start <= address);
        let place = place.checked_sub(1)?;
        if address - self.starts.get(place)? >= MAX_FUNCTION_BYTES {
            return None;
        }
        let &(start, length) = self.places.get(place)?;
        let start = start as usize;
        self.names.get(start..start + usize::from(length))
    }

    /// How many functions are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

/// Address and name, if the line is about code whose address is shown.
fn code(line: &str) -> Option<(u64, &str)> {
    let mut parts = line.split_ascii_whitespace();
    let address = u64::from_str_radix(parts.next()?, 16).ok()?;
    // `t` and `T` are code, `w` and `W` weak symbols, which on Linux are code too.
    let is_code = matches!(parts.next()?, "t" | "T" | "w" | "W");
    let name = parts.next()?;
    (is_code && address != 0).then_some((address, name))
}

#[cfg(test)]
mod tests {
    use super::Symbols;

    const LIST: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000200 t pipe_read
ffffffff81000100 t pipe_write
ffffffff81000180 D some_data
ffffffffc0000000 t pipe_read\t[module]
0000000000000000 A hidden
nonsense
";

    #[test]
    fn an_address_belongs_to_the_function_that_begins_before_it() {
        let symbols = Symbols::parse(LIST.as_bytes()).expect("a string can be read");
        assert_eq!(symbols.len(), 4);
        let cases = [
            (0, None),
            (0xffff_ffff_80ff_ffff, None),
            (0xffff_ffff_8100_0000, Some("_text")),
            (0xffff_ffff_8100_00ff, Some("_text")),
            (0xffff_ffff_8100_0100, Some("pipe_write")),
            (0xffff_ffff_8100_01ff, Some("pipe_write")),
            (0xffff_ffff_8100_0200, Some("pipe_read")),
            // Too far behind the last one before it.
            (0xffff_ffff_8110_0200, None),
            (0xffff_ffff_c000_0001, Some("pipe_read")),
            (u64::MAX, None),
        ];
        for (address, expected) in cases {
            assert_eq!(symbols.name(address), expected, "{address:#x}");
        }
    }

    #[test]
    fn hidden_addresses_give_nothing() {
        let list = "0000000000000000 T _text\n0000000000000000 t pipe_read\n";
        let symbols = Symbols::parse(list.as_bytes()).expect("a string can be read");
        assert!(symbols.is_empty());
    }
}
