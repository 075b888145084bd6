//! Access to the daemon's settings for what tells why threads wait, and reads by address.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use profiler_ebpf::why::WhyConfig;

/// Overwritten by the loader; see [`profiler_ebpf::why`].
#[unsafe(no_mangle)]
static WHY_CONFIG: WhyConfig = WhyConfig::UNSET;

/// The value of one field of [`WHY_CONFIG`]; as `config!`.
macro_rules! why {
    ($field:ident) => {{
        let field = &raw const (*crate::why::get()).$field;
        // SAFETY: The pointer is to a field of a static, which is valid and aligned.
        unsafe { core::ptr::read_volatile(field) }
    }};
}
pub(crate) use why;

/// Where the settings are.
#[inline(always)]
pub(crate) fn get() -> &'static WhyConfig {
    &WHY_CONFIG
}

/// Reads a field by address, where the pointer to the struct has no type for the verifier, or another one
/// on older kernels. `None` if there is nothing to read.
#[inline(always)]
pub(crate) fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: The helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
