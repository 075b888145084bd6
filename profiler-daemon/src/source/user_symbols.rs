//! Names of the functions in users' programs, from the symbol tables of the files that their processes have
//! mapped.

use std::{collections::HashMap, fmt, path::Path};

use blazesym::{
    Pid,
    symbolize::{
        Input, Symbolized, Symbolizer,
        source::{Process, Source},
    },
};
use procfs::process::MMapPath;

use super::pids;

/// How many frames are kept; then all are forgotten, and so are the files that they were looked up in.
const MAX_FRAMES: usize = 65_536;

/// What is known of a code address of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The address.
    pub address: u64,
    /// The function that it lies in, demangled, and how many bytes behind the function's beginning.
    pub function: Option<(String, u64)>,
    /// The file that is mapped there, without its directories, and the place in it.
    pub module: Option<(String, u64)>,
}

impl fmt::Display for Frame {
    /// `function+offset`, `module+offset` if the function is not known, or else the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.function, &self.module) {
            (Some((name, offset)), _) | (None, Some((name, offset))) => {
                write!(f, "{name}+{offset:#x}")
            }
            (None, None) => write!(f, "{:#x}", self.address),
        }
    }
}

/// Names functions of processes that live.
///
/// It reads a process's `maps`, and through `map_files` the very files that are mapped, in whatever mount
/// namespace: that takes `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, and `CAP_SYS_PTRACE` for processes of
/// other users. Where it may not, or the process has ended, frames stay bare addresses.
#[derive(Debug)]
pub struct UserSymbols {
    symbolizer: Symbolizer,
    /// By process and place.
    known: HashMap<(u32, Place), Frame>,
}

/// A code address as it stands in a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    address: u64,
    /// How many bytes before it the instruction is that is meant: the innermost address is where the thread
    /// is, the others are those that calls return to. The call is right before, and may be the last thing
    /// in its function.
    before: u64,
}

impl Place {
    /// Those of a stack.
    fn all(stack: &[u64]) -> impl Iterator<Item = Self> {
        stack.iter().enumerate().map(|(depth, &address)| Self {
            address,
            before: u64::from(depth != 0),
        })
    }

    /// Where to look.
    fn at(self) -> u64 {
        self.address.saturating_sub(self.before)
    }
}

impl Default for UserSymbols {
    fn default() -> Self {
        Self::new()
    }
}

impl UserSymbols {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            symbolizer: Symbolizer::new(),
            known: HashMap::new(),
        }
    }

    /// The frames of a stack of this process, the innermost first, as [`super::Kernel::user_stack`] gives it.
    ///
    /// What has been found out of a process is kept, for when it has ended. So ask while it lives, and
    /// [`Self::forget`] it when it runs another program.
    pub fn frames(&mut self, tgid: u32, stack: &[u64]) -> Vec<Frame> {
        if self.known.len().saturating_add(stack.len()) > MAX_FRAMES {
            *self = Self::new();
        }
        let missing: Vec<Place> = Place::all(stack)
            .filter(|&place| !self.known.contains_key(&(tgid, place)))
            .collect();
        if !missing.is_empty() {
            for (place, frame) in self.look_up(tgid, &missing) {
                self.known.insert((tgid, place), frame);
            }
        }
        let frame = |place: Place| {
            let known = self.known.get(&(tgid, place)).cloned();
            known.unwrap_or(Frame {
                address: place.address,
                function: None,
                module: None,
            })
        };
        Place::all(stack).map(frame).collect()
    }

    /// Forgets what was found out of a process, which runs another program now.
    pub fn forget(&mut self, tgid: u32) {
        self.known.retain(|&(known, _), _| known != tgid);
    }

    /// Looks for them; those that nothing is found of are left out.
    fn look_up(&self, tgid: u32, places: &[Place]) -> Vec<(Place, Frame)> {
        let Some(tgid) = pids::here(tgid) else {
            return Vec::new();
        };
        let mappings = Mappings::read(tgid);
        let source = Source::Process(Process {
            // The process itself may write that file.
            perf_map: false,
            debug_syms: false,
            ..Process::new(Pid::from(tgid))
        });
        let at: Vec<u64> = places.iter().map(|place| place.at()).collect();
        let functions = self
            .symbolizer
            .symbolize(&source, Input::AbsAddr(&at))
            .unwrap_or_default();
        let mut functions = functions.into_iter();
        let look = |&place: &Place| {
            let function = match functions.next() {
                Some(Symbolized::Sym(symbol)) => {
                    let offset = symbol.offset as u64 + place.before;
                    Some((symbol.name.into_owned(), offset))
                }
                Some(Symbolized::Unknown(_)) | None => None,
            };
            let module = mappings
                .module(place.at())
                .map(|(name, offset)| (name.to_owned(), offset + place.before));
            let frame = Frame {
                address: place.address,
                function,
                module,
            };
            let is_known = frame.function.is_some() || frame.module.is_some();
            is_known.then_some((place, frame))
        };
        places.iter().filter_map(look).collect()
    }
}

/// Where a process has files mapped.
struct Mappings(Vec<Mapping>);

/// One of them.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    name: String,
}

impl Mappings {
    /// Reads them; none if the process is gone.
    fn read(tgid: u32) -> Self {
        let maps = i32::try_from(tgid)
            .ok()
            .and_then(|pid| procfs::process::Process::new(pid).ok())
            .and_then(|process| process.maps().ok());
        let mappings = maps.into_iter().flatten().filter_map(|map| {
            let name = match map.pathname {
                MMapPath::Path(path) => short(&path),
                MMapPath::Vdso => "[vdso]".to_owned(),
                _ => return None,
            };
            Some(Mapping {
                start: map.address.0,
                end: map.address.1,
                offset: map.offset,
                name,
            })
        });
        Self(mappings.collect())
    }

    /// The file at this address, and the place in it.
    fn module(&self, address: u64) -> Option<(&str, u64)> {
        let mapping = self
            .0
            .iter()
            .find(|mapping| (mapping.start..mapping.end).contains(&address))?;
        let offset = (address - mapping.start).wrapping_add(mapping.offset);
        Some((&mapping.name, offset))
    }
}

/// A file's name without its directories.
fn short(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Frame, MAX_FRAMES, Place, UserSymbols};

    #[test]
    fn a_frame_shows_the_best_that_is_known() {
        let frame = |function: Option<&str>, module: Option<&str>| Frame {
            address: 0x7fff_1234,
            function: function.map(|name| (name.to_owned(), 0x12)),
            module: module.map(|name| (name.to_owned(), 0x5678)),
        };
        let cases = [
            (frame(Some("read"), Some("libc.so.6")), "read+0x12"),
            (frame(None, Some("libc.so.6")), "libc.so.6+0x5678"),
            (frame(None, None), "0x7fff1234"),
        ];
        for (frame, expected) in cases {
            assert_eq!(frame.to_string(), expected);
        }
    }

    #[test]
    fn own_functions_have_names_and_others_addresses() {
        let mut symbols = UserSymbols::new();
        let own = a_function_with_a_name as *const () as u64;
        // The second one returns to just behind the call, the third is in no file.
        let stack = [own + 1, own + 1, 8];
        let frames = symbols.frames(std::process::id(), &stack);
        let name = "user_symbols::tests::a_function_with_a_name";
        for frame in &frames[..2] {
            let (function, offset) = frame.function.as_ref().expect("it is in the symbol table");
            assert!(function.contains(name), "{frame:?}");
            assert_eq!(*offset, 1, "{frame:?}");
            let (module, _) = frame.module.as_ref().expect("it is in a file");
            assert!(module.starts_with("schedscope-"), "{frame:?}");
        }
        assert_eq!(frames[2].to_string(), "0x8");
        // It is kept, until it is forgotten.
        assert_eq!(symbols.known.len(), 2);
        symbols.forget(std::process::id());
        assert!(symbols.known.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut symbols = UserSymbols::new();
        let nothing = |address| Frame {
            address,
            function: None,
            module: None,
        };
        for address in 0..MAX_FRAMES as u64 {
            let place = Place { address, before: 0 };
            symbols.known.insert((1, place), nothing(address));
        }
        let own = a_function_with_a_name as *const () as u64;
        let frames = symbols.frames(std::process::id(), &[own]);
        assert!(frames[0].function.is_some(), "{frames:?}");
        assert_eq!(symbols.known.len(), 1);
    }

    #[inline(never)]
    fn a_function_with_a_name() -> u32 {
        std::hint::black_box(7)
    }

    #[test]
    fn a_process_that_is_gone_leaves_addresses() {
        let mut symbols = UserSymbols::new();
        // No process has this id: it is above any that the kernel gives.
        let frames = symbols.frames(1 << 30, &[0x1000, 0x2000]);
        let text: Vec<_> = frames.iter().map(Frame::to_string).collect();
        assert_eq!(text, ["0x1000", "0x2000"]);
        assert!(symbols.known.is_empty(), "it may be asked for again");
    }
}
