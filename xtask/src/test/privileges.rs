//! Whether this process can load probes.

use std::fs;
use std::path::Path;

/// `CAP_SYS_ADMIN`, which once included the other two.
const CAP_SYS_ADMIN: u32 = 21;
/// `CAP_PERFMON`, for programs that read kernel memory.
const CAP_PERFMON: u32 = 38;
/// `CAP_BPF`.
const CAP_BPF: u32 = 39;

/// Why the privileged tests can't be run; `None` if they can.
pub(crate) fn why_not() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(reason) = lacks(&status) {
        return Some(reason);
    }
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if is_in_user_namespace(&uid_map) {
        return Some("root of a user namespace only".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").is_file() {
        return Some("the kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return Some("the kernel is locked down (confidentiality)".to_owned());
    }
    None
}

/// Whether a `/proc/PID/uid_map` is not the one of the initial namespace, the only one where
/// capabilities let a process load probes.
fn is_in_user_namespace(uid_map: &str) -> bool {
    !uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What a `/proc/PID/status` says is missing.
fn lacks(status: &str) -> Option<String> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    // Real, effective, saved, file system.
    if field("Uid").and_then(|ids| ids.split_whitespace().nth(1)) != Some("0") {
        return Some("not root".to_owned());
    }
    let capabilities = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let has = |bit: u32| capabilities.is_some_and(|mask| mask >> bit & 1 == 1);
    let can_load = has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON));
    if !can_load {
        return Some("root without CAP_BPF and CAP_PERFMON".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{is_in_user_namespace, lacks};

    #[test]
    fn root_with_all_capabilities_lacks_nothing() {
        assert_eq!(lacks("Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"), None);
    }

    #[test]
    fn root_in_a_container_lacks_capabilities() {
        let reason = lacks("Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n");
        assert_eq!(
            reason.as_deref(),
            Some("root without CAP_BPF and CAP_PERFMON")
        );
    }

    #[test]
    fn root_of_a_user_namespace_is_told_apart() {
        assert!(!is_in_user_namespace("         0          0 4294967295\n"));
        assert!(is_in_user_namespace("         0       1000          1\n"));
    }

    #[test]
    fn the_effective_user_counts() {
        let reason = lacks("Uid:\t0\t1000\t0\t0\nCapEff:\t000001ffffffffff\n");
        assert_eq!(reason.as_deref(), Some("not root"));
    }
}
