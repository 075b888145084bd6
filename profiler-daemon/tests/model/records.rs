//! What the model's records are made of.

use profiler_ebpf::Rename;
use schedscope::core::decode::Event;

use super::Random;

pub(crate) fn number(cpu: usize) -> u32 {
    u32::try_from(cpu).expect("few CPUs")
}

pub(crate) fn low_bits(number: u64) -> u16 {
    u16::try_from(number & 0xffff).expect("16 bits")
}

pub(crate) fn renamed(ts_ns: u64, tid: u32, comm: [u8; 16]) -> Event {
    Event::Rename(Rename {
        ts_ns,
        comm,
        tid,
        ..Rename::default()
    })
}

/// One of a few names.
pub(crate) fn comm(random: &mut Random) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[0] = b'a' + u8::try_from(random.below(4)).expect("small");
    comm[1] = b'0' + u8::try_from(random.below(10)).expect("small");
    comm
}
