//! Access to the daemon's settings for what tells why threads wait, and reads by address.

use aya_ebpf::helpers::bpf_probe_read_kernel;
/// The value of a field of [`profiler_ebpf::why::WhyConfig`]; as `config!`.
macro_rules! why {
    ($field:ident) => {
        crate::config::value!(crate::config::number!(
            in_why,
            profiler_ebpf::why::WhyConfig,
            $field
        ))
    };
}
pub(crate) use why;

/// The offset of a kernel field, by its name in [`profiler_ebpf::why::WhyConfig`]; as `at!`.
macro_rules! why_at {
    ($field:ident) => {
        crate::config::offset!(crate::config::number!(
            in_why,
            profiler_ebpf::why::WhyConfig,
            $field
        ))
    };
}
pub(crate) use why_at;

/// Reads a field by address, where the pointer to the struct has no type for the verifier, or another one
/// on older kernels. `None` if there is nothing to read.
#[inline(always)]
pub(crate) fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: The helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
