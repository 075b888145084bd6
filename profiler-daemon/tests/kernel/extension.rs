//! A scheduler of `sched_ext`, loaded for as long as a test wants it.
//!
//! It is the least that there is: a name, and no program. The kernel's core of `sched_ext` then does all by itself: it
//! puts ordinary threads into one queue that all CPUs take from (`Documentation/scheduler/sched-ext.rst` in its
//! source). That is another scheduler than the kernel's own, and needs no compiler for BPF in the guest.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use libbpf_sys as libbpf;

/// Where the kernel tells of it.
const STATE: &str = "/sys/kernel/sched_ext";
/// CPUs that are kept free of whatever is not bound to them.
const ISOLATED: &str = "/sys/devices/system/cpu/isolated";
/// What a map of `struct sched_ext_ops` holds.
const VALUE: &CStr = c"bpf_struct_ops_sched_ext_ops";
const OPERATIONS: &CStr = c"sched_ext_ops";
const NAME: &[u8] = b"plainest";

/// A scheduler that is at work; unloaded when dropped.
pub(crate) struct Extension {
    map: OwnedFd,
}

impl Extension {
    /// Loads it; the reason if the kernel has no `sched_ext`.
    pub(crate) fn load() -> Result<Self, String> {
        if !Path::new(STATE).exists() {
            return Err("the kernel is built without CONFIG_SCHED_CLASS_EXT".to_owned());
        }
        let isolated = fs::read_to_string(ISOLATED).unwrap_or_default();
        if !isolated.trim().is_empty() {
            return Err(
                "sched_ext has no schedulers where CPUs are isolated (isolcpus=)".to_owned(),
            );
        }
        let types = Types::of_kernel();
        let id = types.id(VALUE);
        let own = Types::own();
        let options = libbpf::bpf_map_create_opts {
            btf_fd: own.loaded(),
            sz: size_of::<libbpf::bpf_map_create_opts>() as u64,
            btf_vmlinux_value_type_id: id,
            ..Default::default()
        };
        let size = types.size(id);
        let data = types.offset(id, c"data");
        let name = types.offset(types.id(OPERATIONS), c"name");
        #[expect(unsafe_code, reason = "aya has no maps of struct_ops")]
        // SAFETY: The name is a C string, and the options are of the size that they tell.
        let fd = unsafe {
            libbpf::bpf_map_create(
                libbpf::BPF_MAP_TYPE_STRUCT_OPS,
                c"plainest".as_ptr(),
                4,
                size,
                1,
                &raw const options,
            )
        };
        assert!(fd >= 0, "a map: {}", io::Error::last_os_error());
        #[expect(unsafe_code, reason = "libbpf returns a number")]
        // SAFETY: It was just opened, and nobody else has it.
        let map = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut value = vec![0_u8; size as usize];
        value[data + name..][..NAME.len()].copy_from_slice(NAME);
        #[expect(unsafe_code, reason = "aya has no maps of struct_ops")]
        // SAFETY: Key and value are of the sizes that the map was made with.
        let result = unsafe {
            libbpf::bpf_map_update_elem(
                map.as_raw_fd(),
                (&raw const KEY).cast(),
                value.as_ptr().cast(),
                0,
            )
        };
        assert_eq!(result, 0, "a scheduler: {}", io::Error::last_os_error());
        Self::check();
        Ok(Self { map })
    }

    /// It is at work: the kernel says so, and takes it away from whom it does not serve.
    #[track_caller]
    pub(crate) fn check() {
        assert_eq!(Self::state(), "enabled");
        assert_eq!(read("root/ops").as_bytes(), NAME);
    }

    /// What the kernel says of schedulers like this one.
    pub(crate) fn state() -> String {
        read("state")
    }
}

fn read(file: &str) -> String {
    let text = fs::read_to_string(Path::new(STATE).join(file)).unwrap_or_default();
    text.trim().to_owned()
}

/// The only one of such a map.
static KEY: u32 = 0;

impl Drop for Extension {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "aya has no maps of struct_ops")]
        // SAFETY: The key is of the size that the map was made with. That unloads it, which closing does not.
        let result =
            unsafe { libbpf::bpf_map_delete_elem(self.map.as_raw_fd(), (&raw const KEY).cast()) };
        if result != 0 {
            eprintln!("not unloaded: {}", io::Error::last_os_error());
        }
    }
}

/// Type information.
struct Types(*mut libbpf::btf);

impl Types {
    /// One of our own, which the kernel wants with such a map, though all that it has is the kernel's.
    fn own() -> Self {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: It has no preconditions.
        let types = Self(unsafe { libbpf::btf__new_empty() });
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid, unless there is no memory; the name is a C string.
        let id = unsafe { libbpf::btf__add_int(types.0, c"int".as_ptr(), 4, 0) };
        assert!(id > 0, "a type: {}", io::Error::last_os_error());
        types
    }

    /// Its descriptor in the kernel.
    fn loaded(&self) -> u32 {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid.
        let result = unsafe { libbpf::btf__load_into_kernel(self.0) };
        assert_eq!(result, 0, "types: {}", io::Error::last_os_error());
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid, and has the descriptor as long as it lives.
        let fd = unsafe { libbpf::btf__fd(self.0) };
        u32::try_from(fd).expect("it was loaded")
    }

    /// The kernel's.
    fn of_kernel() -> Self {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: It has no preconditions.
        let types = unsafe { libbpf::btf__load_vmlinux_btf() };
        assert!(!types.is_null(), "{}", io::Error::last_os_error());
        Self(types)
    }

    #[track_caller]
    fn id(&self, name: &CStr) -> u32 {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid, and the name a C string.
        let id = unsafe {
            libbpf::btf__find_by_name_kind(self.0, name.as_ptr(), libbpf::BTF_KIND_STRUCT)
        };
        u32::try_from(id).unwrap_or_else(|_| panic!("the kernel has no type {name:?}"))
    }

    #[track_caller]
    fn size(&self, id: u32) -> u32 {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid; an unknown id gives an error.
        let size = unsafe { libbpf::btf__resolve_size(self.0, id) };
        u32::try_from(size).expect("a struct has a size")
    }

    /// Where a member of a struct is, in bytes.
    #[track_caller]
    fn offset(&self, id: u32, name: &CStr) -> usize {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid; an unknown id gives a null pointer.
        let structure = unsafe { libbpf::btf__type_by_id(self.0, id) };
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: What libbpf returns lives and doesn't change as long as the object.
        let structure = unsafe { structure.as_ref() };
        let structure = structure.expect("the type was found");
        let first = std::ptr::from_ref(structure).wrapping_add(1);
        let count = (structure.info & 0xffff) as usize;
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: A struct's members follow it in memory; libbpf has checked that they are all there.
        let members =
            unsafe { std::slice::from_raw_parts(first.cast::<libbpf::btf_member>(), count) };
        let member = members.iter().find(|member| {
            #[expect(unsafe_code, reason = "libbpf is a C library")]
            // SAFETY: The object is valid.
            let own = unsafe { libbpf::btf__name_by_offset(self.0, member.name_off) };
            #[expect(unsafe_code, reason = "libbpf is a C library")]
            // SAFETY: libbpf has checked that the members' names are C strings.
            let own = unsafe { CStr::from_ptr(own) };
            own == name
        });
        let member = member.unwrap_or_else(|| panic!("a member {name:?}"));
        // A struct with bit fields has their sizes in the upper eight bits.
        let is_packed = structure.info >> 31 != 0;
        let bits = member.offset & if is_packed { 0x00ff_ffff } else { u32::MAX };
        bits as usize / 8
    }
}

impl Drop for Types {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "libbpf is a C library")]
        // SAFETY: The object is valid, and nobody has it any more.
        unsafe {
            libbpf::btf__free(self.0);
        }
    }
}
