//! Numbers in as few bytes as they need: seven bits a byte, the lowest first, the top bit says that
//! another byte follows (LEB128).

/// Longest number: 64 bits, seven a byte.
pub(super) const MAX_BYTES: usize = 10;

/// Appends a number.
#[inline]
pub(super) fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Takes a number from the front; `None` if there is none whole.
#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..MAX_BYTES {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A difference as a number that is small when the difference is, whatever its sign.
#[inline]
pub(super) fn zigzag(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

/// The other way round.
#[inline]
pub(super) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::{put, take, unzigzag, zigzag};
    use proptest::prelude::*;

    #[test]
    fn small_differences_are_small_numbers() {
        assert_eq!(zigzag(0), 0);
        assert_eq!(zigzag(u64::MAX), 1, "one less");
        assert_eq!(zigzag(1), 2);
    }

    proptest! {
        #[test]
        fn numbers_come_back(values in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut bytes = Vec::new();
            for &value in &values {
                put(&mut bytes, value);
                prop_assert_eq!(unzigzag(zigzag(value)), value);
            }
            let mut rest = &bytes[..];
            for &value in &values {
                prop_assert_eq!(take(&mut rest), Some(value));
            }
            prop_assert_eq!(take(&mut rest), None);
        }

        #[test]
        fn any_bytes_are_a_number_or_none(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut rest = &bytes[..];
            while take(&mut rest).is_some() {}
        }
    }
}
