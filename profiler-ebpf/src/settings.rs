//! Settings that stand in the probes' instructions.
//!
//! Where a kernel keeps a field differs from one to the next. An offset that is read from memory costs an address,
//! a load, a copy and an addition before the load that is meant. So the probes are compiled with placeholders, and
//! the daemon writes this kernel's numbers over them in the compiled object before it is loaded: a field of a
//! kernel struct is one instruction then, as in a program that was compiled for this kernel alone.
//!
//! There are two forms, each a range of numbers that nothing else in the probes uses:
//!
//! * [`offset`]: the offset of a load. The rest above it is added to what the setting says.
//! * [`value`]: the number that a register is set to, of 32 bits. The compiler doesn't know it; the verifier does,
//!   and takes out what can't be reached with it.
//!
//! Settings are numbered by their place in [`Config`], followed by those in [`WhyConfig`]. Each is a `u32`.

use core::mem::size_of;

use crate::{config::Config, why::WhyConfig};

/// Bytes of a setting.
pub const BYTES: usize = size_of::<u32>();

/// How many there are.
pub const COUNT: usize = FIRST_WHY + size_of::<WhyConfig>() / BYTES;

/// The number of the first one in [`WhyConfig`].
const FIRST_WHY: usize = size_of::<Config>() / BYTES;

/// Where the placeholders of offsets begin. No struct that the probes read is so long, and the last one fits in
/// the 15 bits that an instruction has for it.
const OFFSETS: usize = 0x6000;

/// Distance of two placeholders of offsets: fields that are read in parts have less than that.
const STRIDE: usize = 64;

/// Where the placeholders of values begin.
const VALUES: u32 = 0x5c0a_0000;

const _: () = assert!(OFFSETS + COUNT * STRIDE <= i16::MAX as usize);

/// The number of a setting, by its place in [`Config`] in bytes.
#[must_use]
pub const fn in_config(place: usize) -> usize {
    place / BYTES
}

/// The same for [`WhyConfig`].
#[must_use]
pub const fn in_why(place: usize) -> usize {
    FIRST_WHY + place / BYTES
}

/// Stands for an offset.
#[must_use]
pub const fn offset(number: usize) -> usize {
    OFFSETS + number * STRIDE
}

/// Stands for a value.
#[must_use]
pub const fn value(number: usize) -> i64 {
    VALUES as i64 + number as i64
}

/// Which setting the offset of a load stands for, and what is to be added to it.
#[must_use]
pub const fn of_offset(placeholder: i16) -> Option<(usize, usize)> {
    if placeholder < OFFSETS as i16 {
        return None;
    }
    let place = placeholder as usize - OFFSETS;
    if place / STRIDE < COUNT {
        Some((place / STRIDE, place % STRIDE))
    } else {
        None
    }
}

/// Which setting the number that a register is set to stands for.
#[must_use]
pub const fn of_value(placeholder: i32) -> Option<usize> {
    let number = placeholder.cast_unsigned().wrapping_sub(VALUES) as usize;
    if number < COUNT { Some(number) } else { None }
}
