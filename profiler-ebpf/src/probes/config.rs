//! Access to the daemon's settings; see [`profiler_ebpf::settings`].

/// The value of a setting by its number, which the compiler must not know.
macro_rules! setting {
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
pub(crate) use setting;

/// The value of a field of [`profiler_ebpf::config::Config`].
macro_rules! config {
    ($field:ident) => {
        crate::config::setting!(profiler_ebpf::settings::in_config(core::mem::offset_of!(
            profiler_ebpf::config::Config,
            $field
        )))
    };
}
pub(crate) use config;

/// The offset of a kernel field that a load is to have, by its name in [`profiler_ebpf::config::Config`].
macro_rules! at {
    ($field:ident) => {
        const {
            profiler_ebpf::settings::offset(profiler_ebpf::settings::in_config(
                core::mem::offset_of!(profiler_ebpf::config::Config, $field),
            ))
        }
    };
}
pub(crate) use at;
