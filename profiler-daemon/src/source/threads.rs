//! All threads that there are, from the task iterator.

use std::io::{self, Read};

use aya::{Ebpf, programs::Iter};
use profiler_ebpf::{THREAD_RECORD_BYTES, ThreadRecord, config::programs};
use zerocopy::FromBytes;

use super::{error::chain, load};

/// How much is asked for at once: a thousand threads.
const READ_BYTES: usize = 1024 * THREAD_RECORD_BYTES;

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
    #[error("the kernel's task iterator broke off after {found} threads")]
    Read {
        /// How many had been read.
        found: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Reads them. It takes about a microsecond a thread, during which they go on running.
pub(crate) fn read(ebpf: &mut Ebpf) -> Result<Vec<ThreadRecord>, ThreadsError> {
    let failed = |reason| ThreadsError::Start { reason };
    let program: &mut Iter =
        load::find(ebpf, programs::THREADS).map_err(|error| failed(chain(&error)))?;
    let link = program.attach().map_err(|error| failed(chain(&error)))?;
    let link = program
        .take_link(link)
        .map_err(|error| failed(chain(&error)))?;
    let mut file = link.into_file().map_err(|error| failed(chain(&error)))?;
    let mut threads = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let count = match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(threads),
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
                    found: threads.len(),
                    source,
                });
            }
        };
        filled += count;
        // A read may end in the middle of a record.
        let (records, rest) = buffer[..filled].as_chunks::<THREAD_RECORD_BYTES>();
        threads.extend(
            records
                .iter()
                .filter_map(|bytes| ThreadRecord::read_from_bytes(bytes).ok()),
        );
        let whole = filled - rest.len();
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
