//! Loses, repeats, shifts and spoils the records of a machine.

use profiler_ebpf::{Gap, KIND_OFFSET, Kind, TS_OFFSET};
use schedscope::core::decode::Event;

use super::{Random, Written};

/// Records that one CPU lost in a row.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) cpu: usize,
    /// When each was lost; the first is where the loss begins.
    pub(crate) lost_ns: Vec<u64>,
    /// When the gap record is there that tells of them.
    pub(crate) told_ns: u64,
}

fn time_of(written: &Written) -> u64 {
    let bytes = &written.raw.0[TS_OFFSET..TS_OFFSET + 8];
    u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
}

fn set_time(written: &mut Written, ts_ns: u64) {
    written.raw.0[TS_OFFSET..TS_OFFSET + 8].copy_from_slice(&ts_ns.to_ne_bytes());
}

fn is_fork(written: &Written) -> bool {
    written.raw.0[KIND_OFFSET] == Kind::Fork as u8
}

/// Loses records as a full ring does: in rows, each told of by a gap record as soon as one finds room.
/// Forks use the reserve, so they are lost only where `loses_forks`.
pub(crate) fn overflow(
    streams: &mut [Vec<Written>],
    random: &mut Random,
    per_mille: u64,
    loses_forks: bool,
) -> Vec<Loss> {
    let mut losses = Vec::new();
    let cpus = streams.len() - 1;
    for (cpu, stream) in streams.iter_mut().take(cpus).enumerate() {
        let mut kept: Vec<Written> = Vec::new();
        let mut lost: Vec<u64> = Vec::new();
        let mut left = 0;
        for written in stream.iter() {
            if left == 0 && random.below(1000) < per_mille {
                left = 1 + random.below(12);
            }
            if left > 0 && (loses_forks || !is_fork(written)) {
                left -= 1;
                lost.push(time_of(written));
                continue;
            }
            tell(cpu, &mut lost, written.visible_ns, &mut kept, &mut losses);
            kept.push(*written);
        }
        // The last row may never be told of but by the daemon's own look at the ring.
        if !lost.is_empty() {
            losses.push(Loss {
                cpu,
                lost_ns: lost,
                told_ns: u64::MAX,
            });
        }
        *stream = kept;
    }
    losses
}

fn tell(
    cpu: usize,
    lost: &mut Vec<u64>,
    told_ns: u64,
    kept: &mut Vec<Written>,
    losses: &mut Vec<Loss>,
) {
    let (Some(&ts_ns), Some(&until_ns)) = (lost.iter().min(), lost.iter().max()) else {
        return;
    };
    let gap = Gap {
        ts_ns,
        until_ns,
        lost: lost.len() as u64,
        ..Gap::default()
    };
    kept.push(Written {
        raw: Event::Gap(gap).encode(),
        visible_ns: told_ns,
    });
    losses.push(Loss {
        cpu,
        lost_ns: std::mem::take(lost),
        told_ns,
    });
}

/// Loses records without a trace.
pub(crate) fn drop_silently(streams: &mut [Vec<Written>], random: &mut Random, per_mille: u64) {
    for stream in streams {
        stream.retain(|_| random.below(1000) >= per_mille);
    }
}

/// Writes records twice.
pub(crate) fn repeat(streams: &mut [Vec<Written>], random: &mut Random, per_mille: u64) {
    for stream in streams {
        let mut repeated = Vec::with_capacity(stream.len());
        for &written in stream.iter() {
            repeated.push(written);
            if random.below(1000) < per_mille {
                repeated.push(written);
            }
        }
        *stream = repeated;
    }
}

/// Has each CPU's clock go wrong by up to `error_ns`, and by a little more now and then.
pub(crate) fn skew(streams: &mut [Vec<Written>], random: &mut Random, error_ns: u64) {
    for stream in streams {
        let ahead_ns = random.below(error_ns / 2);
        for written in stream {
            let ts_ns = time_of(written);
            set_time(written, ts_ns + ahead_ns + random.below(error_ns / 2));
        }
    }
}

/// Ends streams early.
pub(crate) fn cut(streams: &mut [Vec<Written>], random: &mut Random) {
    for stream in streams {
        if random.one_in(2) {
            stream.truncate(random.place(stream.len() + 1));
        }
    }
}

/// Turns bits over.
pub(crate) fn spoil(streams: &mut [Vec<Written>], random: &mut Random, per_mille: u64) {
    for written in streams.iter_mut().flatten() {
        if random.below(1000) < per_mille {
            let place = random.place(written.raw.0.len());
            written.raw.0[place] ^= 1 << random.below(8);
        }
    }
}

/// Makes every record visible at once, each stream by time.
pub(crate) fn show_all_in_order(streams: &mut [Vec<Written>]) {
    for stream in streams {
        stream.sort_by_key(time_of);
        for written in stream {
            written.visible_ns = 0;
        }
    }
}
