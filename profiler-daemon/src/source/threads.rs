//! What the task iterators tell: all threads that there are, and waits that have not ended.

use std::io::{self, Read};

use aya::{Ebpf, programs::Iter};
use zerocopy::FromBytes;

use super::{error::chain, load};

/// How much is asked for at once: some hundred records or more.
const READ_BYTES: usize = 64 * 1024;

/// Why the threads can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// The iterator can't be started.
    #[error("can't start the kernel's task iterator: {reason}")]
    Start {
        /// What went wrong, with all its causes.
        reason: String,
    },
    /// The iterator ended early.
    #[error("the kernel's task iterator broke off after {found} records")]
    Read {
        /// How many records had been read.
        found: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Reads all records, `BYTES` long, of the iterator that is this program, while the threads go on running.
pub(crate) fn read<R: FromBytes, const BYTES: usize>(
    ebpf: &mut Ebpf,
    program: &'static str,
) -> Result<Vec<R>, ThreadsError> {
    const { assert!(size_of::<R>() == BYTES) };
    let failed = |reason| ThreadsError::Start { reason };
    let program: &mut Iter = load::find(ebpf, program).map_err(|error| failed(chain(&error)))?;
    let link = program.attach().map_err(|error| failed(chain(&error)))?;
    let link = program
        .take_link(link)
        .map_err(|error| failed(chain(&error)))?;
    let mut file = link.into_file().map_err(|error| failed(chain(&error)))?;
    let mut found = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let count = match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(found),
            Ok(count) => count,
            // The kernel may pause after many threads without output, or for a signal.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                continue;
            }
            Err(source) => {
                return Err(ThreadsError::Read {
                    found: found.len(),
                    source,
                });
            }
        };
        filled += count;
        // A read may end in the middle of a record.
        let (records, rest) = buffer[..filled].as_chunks::<BYTES>();
        found.extend(
            records
                .iter()
                .filter_map(|bytes| R::read_from_bytes(bytes).ok()),
        );
        let whole = filled - rest.len();
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
