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
const OFFSETS: u16 = 0x6000;

/// Distance of two placeholders of offsets: fields that are read in parts have less than that.
const STRIDE: u16 = 64;

/// Where the placeholders of values begin.
const VALUES: i32 = 0x5c0a_0000;

const _: () = assert!(OFFSETS as usize + COUNT * STRIDE as usize <= i16::MAX as usize);
const _: () = assert!(COUNT <= u8::MAX as usize);

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
    OFFSETS as usize + number * STRIDE as usize
}

/// Stands for a value.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are fewer than 256, as is asserted above"
)]
pub const fn value(number: usize) -> i32 {
    VALUES + (number as u8) as i32
}

/// Which setting the offset of a load stands for, and what is to be added to it.
#[must_use]
pub const fn of_offset(placeholder: i16) -> Option<(usize, usize)> {
    let place = placeholder.cast_unsigned().wrapping_sub(OFFSETS);
    let (number, rest) = (place / STRIDE, place % STRIDE);
    if (number as usize) < COUNT {
        Some((number as usize, rest as usize))
    } else {
        None
    }
}

/// Which setting the number that a register is set to stands for.
#[must_use]
pub const fn of_value(placeholder: i32) -> Option<usize> {
    let number = placeholder.wrapping_sub(VALUES).cast_unsigned() as usize;
    if number < COUNT { Some(number) } else { None }
}
