//! Writes the settings into the probes' instructions, before they are loaded.
//!
//! See [`profiler_ebpf::settings`] for why they stand there.

use object::{Object as _, ObjectSection as _, SectionKind};
use profiler_ebpf::{
    config::{ABSENT, Config},
    settings::{self, COUNT},
    why::WhyConfig,
};
use zerocopy::IntoBytes as _;

/// Bytes of an instruction; one that sets a register to 64 bits is two.
const INSTRUCTION: usize = 8;

/// Codes of instructions (Documentation/bpf/standardization/instruction-set.rst): a register is set to 64 bits,
/// to a number that is extended to 64 bits, to 32 bits; and the class of all loads.
const SET_WIDE: u8 = 0x18;
const SET: u8 = 0xb7;
const SET_32: u8 = 0xb4;
const CLASS: u8 = 0x07;
const LOAD: u8 = 0x01;

/// Why the settings can't be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    /// The object is damaged.
    #[error("the compiled probes can't be read: {0}")]
    Object(#[from] object::Error),
    /// No kernel has such a long struct.
    #[error(
        "a field lies {offset} bytes into its struct; an instruction reaches {}",
        i16::MAX
    )]
    Offset {
        /// Where it would be.
        offset: usize,
    },
}

/// The probes, with these numbers in place of their placeholders.
///
/// An offset that is [`ABSENT`] stays a placeholder: what would use it is out of reach by another setting, and
/// where it is not the kernel refuses the program.
pub(super) fn write(
    probes: &[u8],
    config: &Config,
    why: &WhyConfig,
) -> Result<Vec<u8>, SettingsError> {
    let mut numbers = [0; COUNT];
    let words = config.as_bytes().chunks_exact(settings::BYTES);
    let words = words.chain(why.as_bytes().chunks_exact(settings::BYTES));
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u32::from_ne_bytes(word.try_into().unwrap_or_default());
    }
    let mut written = probes.to_vec();
    let object = object::File::parse(probes)?;
    for section in object
        .sections()
        .filter(|its| its.kind() == SectionKind::Text)
    {
        let Some((start, length)) = section.file_range() else {
            continue;
        };
        let range = usize::try_from(start)
            .ok()
            .zip(usize::try_from(length).ok());
        let code = range.and_then(|(start, length)| written.get_mut(start..)?.get_mut(..length));
        if let Some(code) = code {
            write_section(code, &numbers)?;
        }
    }
    Ok(written)
}

fn write_section(code: &mut [u8], numbers: &[u32; COUNT]) -> Result<(), SettingsError> {
    let (instructions, _) = code.as_chunks_mut::<INSTRUCTION>();
    let mut instructions = instructions.iter_mut();
    while let Some(instruction) = instructions.next() {
        let [code, _registers, off0, off1, imm @ ..] = *instruction;
        match code {
            // Its second half is a number alone.
            SET_WIDE => drop(instructions.next()),
            SET | SET_32 => {
                if let Some(number) = settings::of_value(i32::from_le_bytes(imm)) {
                    instruction[0] = SET_32;
                    instruction[4..].copy_from_slice(&numbers[number].to_le_bytes());
                }
            }
            _ if code & CLASS == LOAD => {
                let placeholder = i16::from_le_bytes([off0, off1]);
                if let Some((number, rest)) = settings::of_offset(placeholder)
                    && numbers[number] != ABSENT
                {
                    let offset = numbers[number] as usize + rest;
                    let short =
                        i16::try_from(offset).map_err(|_| SettingsError::Offset { offset })?;
                    instruction[2..4].copy_from_slice(&short.to_le_bytes());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{INSTRUCTION, SettingsError, write, write_section};
    use crate::source::load::PROBES;
    use object::{Object as _, ObjectSection as _, SectionKind};
    use profiler_ebpf::{
        config::{ABSENT, Config},
        settings::{self, COUNT},
        why::WhyConfig,
    };
    use std::collections::BTreeSet;

    /// An instruction of this code, with this offset and this number.
    fn instruction(code: u8, offset: i16, number: i32) -> [u8; INSTRUCTION] {
        let mut bytes = [code, 0x21, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_le_bytes());
        bytes[4..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    fn placeholder(number: usize, rest: i16) -> i16 {
        i16::try_from(settings::offset(number)).expect("it fits") + rest
    }

    #[test]
    fn numbers_come_where_their_placeholders_are_and_nowhere_else() {
        let mut numbers = [0; COUNT];
        numbers[3] = 1_000;
        numbers[5] = 0x8000_0001;
        numbers[7] = ABSENT;
        let before = [
            instruction(0x79, placeholder(3, 8), 0),
            instruction(0xb7, 0, settings::value(5)),
            instruction(0xb4, 0, settings::value(3)),
            instruction(0x61, placeholder(7, 0), 0),
            instruction(0x79, 24, 0),
            // A store, an addition, and both halves of a number of 64 bits.
            instruction(0x7b, placeholder(3, 0), 0),
            instruction(0x07, 0, settings::value(3)),
            instruction(0x18, 0, settings::value(3)),
            instruction(0xb7, 0, settings::value(3)),
        ];
        let mut code = before.concat();
        write_section(&mut code, &numbers).expect("all of it fits");
        let (after, _) = code.as_chunks::<INSTRUCTION>();
        assert_eq!(after[0], instruction(0x79, 1_008, 0));
        assert_eq!(
            after[1],
            instruction(0xb4, 0, 0x8000_0001_u32.cast_signed())
        );
        assert_eq!(after[2], instruction(0xb4, 0, 1_000));
        assert_eq!(after[3..], before[3..]);
    }

    #[test]
    fn a_field_out_of_reach_is_refused() {
        let mut numbers = [0; COUNT];
        numbers[3] = 40_000;
        let mut code = instruction(0x79, placeholder(3, 0), 0);
        let error = write_section(&mut code, &numbers).expect_err("it does not fit");
        assert!(matches!(error, SettingsError::Offset { offset: 40_000 }));
    }

    /// The compiler may take an address and its offset apart, which nobody would notice before the kernel does.
    #[test]
    fn the_compiled_probes_have_placeholders_only_where_they_are_written_over() {
        let (mut loads, mut values) = (BTreeSet::new(), BTreeSet::new());
        let object = object::File::parse(PROBES).expect("it is an object");
        for section in object
            .sections()
            .filter(|its| its.kind() == SectionKind::Text)
        {
            let code = section.data().expect("it has its code in it");
            let (instructions, _) = code.as_chunks::<INSTRUCTION>();
            let mut instructions = instructions.iter();
            while let Some(&[code, _, off0, off1, imm @ ..]) = instructions.next() {
                let (offset, number) = (i16::from_le_bytes([off0, off1]), i32::from_le_bytes(imm));
                let is_load = code & 0x07 == 1;
                let is_jump = matches!(code & 0x07, 5 | 6);
                if let (false, Some((setting, _))) = (is_jump, settings::of_offset(offset)) {
                    assert!(
                        is_load,
                        "setting {setting} in an instruction of code {code:#x}"
                    );
                    loads.insert(setting);
                }
                if let Some(setting) = settings::of_value(number) {
                    assert!(
                        code == 0xb7 || code == 0xb4,
                        "setting {setting} in code {code:#x}"
                    );
                    values.insert(setting);
                }
                let split = i16::try_from(number).ok().and_then(settings::of_offset);
                assert!(
                    is_jump || split.is_none(),
                    "{split:?} in an instruction of code {code:#x}"
                );
                if code == 0x18 {
                    instructions.next();
                }
            }
        }
        assert!(loads.len() > 15, "loads of only {loads:?}");
        assert!(values.len() > 30, "values of only {values:?}");
        let written = write(PROBES, &Config::UNSET, &WhyConfig::UNSET).expect("it can be written");
        assert_eq!(written.len(), PROBES.len());
    }
}
