//! Recordings: what was given to a core in a run, so that another core can be given the same.
//!
//! Not figures are kept but what they were made from. The same input in the same order makes the same
//! figures, for the target of the run or for any other one, on any machine.
//!
//! In the order of the flow:
//!
//! * [`intake`]: a core whose input goes to a [`tape`], too, which never makes it wait.
//! * [`journal`]: that input as values; `columns` and `varint` make them small.
//! * [`mod@format`]: how a file begins, and each chunk in it; `chunk` packs one, and `file` keeps what is
//!   written readable whatever happens. [`facts`] is what no record carries.
//! * [`writer`]: the thread that writes; `history` is what a flight recorder keeps in memory.
//! * [`reader`]: what is whole of a file; [`replay`]: a core is given that.
//!
//! `docs/recording.md` specifies the format.

mod chunk;
mod columns;
pub mod facts;
mod file;
pub mod format;
mod history;
pub mod intake;
pub mod journal;
pub mod reader;
pub mod replay;
pub mod tape;
mod varint;
pub mod writer;

pub use facts::{Facts, Header};
pub use intake::Intake;
pub use journal::{Batch, Entry};
pub use reader::{Damage, OpenError, Part, Reader};
pub use replay::{Replay, Trailed, Watched};
pub use tape::Tape;
pub use writer::{Last, Recorder, SavedFile, Settings, Stop, Summary};
