//! Access to the daemon's settings.

use profiler_ebpf::config::Config;

/// Overwritten by the loader; see [`profiler_ebpf::config`].
#[unsafe(no_mangle)]
static CONFIG: Config = Config::UNSET;

/// The value of one field of [`CONFIG`], which the compiler must not believe to be what it sees here.
macro_rules! config {
    ($field:ident) => {{
        let field = &raw const (*crate::config::get()).$field;
        // SAFETY: The pointer is to a field of a static, which is valid and aligned.
        unsafe { core::ptr::read_volatile(field) }
    }};
}
pub(crate) use config;

/// Where the settings are.
#[inline(always)]
pub(crate) fn get() -> &'static Config {
    &CONFIG
}
