//! Access to the daemon's settings; see [`profiler_ebpf::settings`].

/// The number of a setting, by the function that numbers its table, the table, and its field.
macro_rules! number {
    ($numbers:ident, $table:path, $field:ident) => {
        profiler_ebpf::settings::$numbers(core::mem::offset_of!($table, $field))
    };
}
pub(crate) use number;

/// The value of the setting with this number, which the compiler must not know.
macro_rules! value {
    ($number:expr) => {{
        let value: u64;
        // SAFETY: It sets one register and does nothing else.
        unsafe {
            core::arch::asm!(
                "{} = {}",
                out(reg) value,
                const profiler_ebpf::settings::value($number),
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        // SAFETY: Settings have 32 bits, and the loader writes them as such.
        unsafe { core::hint::assert_unchecked(value >> 32 == 0) };
        value as u32
    }};
}
pub(crate) use value;

/// The offset that a load is to have, by the setting's number.
macro_rules! offset {
    ($number:expr) => {
        const { profiler_ebpf::settings::offset($number) }
    };
}
pub(crate) use offset;

/// The value of a field of [`profiler_ebpf::config::Config`].
macro_rules! config {
    ($field:ident) => {
        crate::config::value!(crate::config::number!(
            in_config,
            profiler_ebpf::config::Config,
            $field
        ))
    };
}
pub(crate) use config;

/// The offset of a kernel field that a load is to have, by its name in [`profiler_ebpf::config::Config`].
macro_rules! at {
    ($field:ident) => {
        crate::config::offset!(crate::config::number!(
            in_config,
            profiler_ebpf::config::Config,
            $field
        ))
    };
}
pub(crate) use at;
