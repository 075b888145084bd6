//! The kernel's type information (BTF), through libbpf.
//!
//! Finds where a field is by the names of the struct and of the members that lead to it. Everything here
//! reads memory that libbpf owns and has checked for consistency when it parsed it.

use std::{
    ffi::{CStr, CString},
    io,
    path::Path,
    ptr::NonNull,
};

use libbpf_sys as libbpf;

/// Where the running kernel keeps its own.
pub(crate) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// How deep a chain of type names or of nameless structs may be. The kernel's are below ten; this is
/// against a file with a loop in it.
const MAX_DEPTH: u32 = 32;

/// Parsed type information.
#[derive(Debug)]
pub(crate) struct Btf {
    raw: NonNull<libbpf::btf>,
}

/// A kind of type, of those that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number, `bool` included.
    Int,
    /// A pointer.
    Ptr,
    /// An array.
    Array,
    /// A struct.
    Struct,
    /// A union.
    Union,
    /// An enum.
    Enum,
    /// A name for another type, or one with `const` and the like.
    Alias,
    /// A function.
    Func,
    /// The parameters and the result of a function.
    FuncProto,
    /// Anything else.
    Other,
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Offset from the start of the outermost struct, in bytes; for a bit field, of the byte that its
    /// lowest bit is in.
    pub(crate) offset: u32,
    /// Its size in bytes; 0 for a bit field.
    pub(crate) size: u32,
    /// For a bit field: the place of its lowest bit in its byte, and how many bits it has.
    pub(crate) bits: Option<(u32, u32)>,
}

/// One type.
#[derive(Clone, Copy)]
struct Type<'a> {
    raw: &'a libbpf::btf_type,
}

impl Type<'_> {
    fn kind_number(self) -> u32 {
        (self.raw.info >> 24) & 0x1f
    }

    fn kind(self) -> Kind {
        match self.kind_number() {
            libbpf::BTF_KIND_INT => Kind::Int,
            libbpf::BTF_KIND_PTR => Kind::Ptr,
            libbpf::BTF_KIND_ARRAY => Kind::Array,
            libbpf::BTF_KIND_STRUCT => Kind::Struct,
            libbpf::BTF_KIND_UNION => Kind::Union,
            libbpf::BTF_KIND_ENUM | libbpf::BTF_KIND_ENUM64 => Kind::Enum,
            libbpf::BTF_KIND_TYPEDEF
            | libbpf::BTF_KIND_VOLATILE
            | libbpf::BTF_KIND_CONST
            | libbpf::BTF_KIND_RESTRICT
            | libbpf::BTF_KIND_TYPE_TAG => Kind::Alias,
            libbpf::BTF_KIND_FUNC => Kind::Func,
            libbpf::BTF_KIND_FUNC_PROTO => Kind::FuncProto,
            _ => Kind::Other,
        }
    }

    /// How many members or parameters follow.
    fn count(self) -> usize {
        (self.raw.info & 0xffff) as usize
    }

    /// Whether members' offsets carry the sizes of bit fields.
    fn has_bit_sizes(self) -> bool {
        self.raw.info >> 31 != 0
    }

    /// The type that a pointer, name or function refers to.
    fn target(self) -> u32 {
        // SAFETY: Both variants of the union are a `u32`.
        unsafe { self.raw.__bindgen_anon_1.type_ }
    }
}

impl Btf {
    /// Reads a file that holds nothing but type information.
    pub(crate) fn parse(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())?;
        silence();
        // SAFETY: The path is a C string; the result is checked.
        let raw = unsafe { libbpf::btf__parse_raw(path.as_ptr()) };
        // libbpf leaves the error in `errno`.
        NonNull::new(raw)
            .map(|raw| Self { raw })
            .ok_or_else(io::Error::last_os_error)
    }

    /// The id of the type of this name and kind.
    pub(crate) fn find(&self, name: &str, kind: Kind) -> Option<u32> {
        let number = match kind {
            Kind::Struct => libbpf::BTF_KIND_STRUCT,
            Kind::Union => libbpf::BTF_KIND_UNION,
            Kind::Alias => libbpf::BTF_KIND_TYPEDEF,
            Kind::Func => libbpf::BTF_KIND_FUNC,
            Kind::Int => libbpf::BTF_KIND_INT,
            Kind::Enum => libbpf::BTF_KIND_ENUM,
            Kind::Ptr | Kind::Array | Kind::FuncProto | Kind::Other => return None,
        };
        let name = CString::new(name).ok()?;
        // SAFETY: The object is valid and the name a C string.
        let id =
            unsafe { libbpf::btf__find_by_name_kind(self.raw.as_ptr(), name.as_ptr(), number) };
        u32::try_from(id).ok()
    }

    /// Finds `structure.path`, where the path names members from the outside in, separated by dots.
    /// Members of nameless structs and unions are found as C finds them.
    pub(crate) fn field(&self, structure: &str, path: &str) -> Option<Field> {
        let mut id = self.find(structure, Kind::Struct)?;
        let mut bit_offset = 0;
        let mut bit_size = 0;
        for name in path.split('.') {
            let member = self.member(id, name, MAX_DEPTH)?;
            bit_offset += member.bit_offset;
            bit_size = member.bit_size;
            id = member.type_id;
        }
        if bit_size != 0 {
            let bits = Some((bit_offset % 8, bit_size));
            return Some(Field {
                offset: bit_offset / 8,
                size: 0,
                bits,
            });
        }
        Some(Field {
            offset: bit_offset / 8,
            size: self.size(id)?,
            bits: None,
        })
    }

    /// Size of a type in bytes.
    pub(crate) fn size(&self, id: u32) -> Option<u32> {
        // SAFETY: The object is valid; an unknown id gives an error.
        let size = unsafe { libbpf::btf__resolve_size(self.raw.as_ptr(), id) };
        u32::try_from(size).ok()
    }

    /// The types of the parameters of the function that a `typedef` of a pointer to a function names,
    /// as the kernel has for each tracepoint (`btf_trace_...`); the first one, its private data, left out.
    pub(crate) fn tracepoint_parameters(&self, tracepoint: &str) -> Option<Vec<Parameter>> {
        let id = self.find(&format!("btf_trace_{tracepoint}"), Kind::Alias)?;
        let pointer = self.resolve(id)?;
        let function = self.resolve(self.get(pointer)?.target())?;
        let function = self.get(function)?;
        if function.kind() != Kind::FuncProto {
            return None;
        }
        let first = std::ptr::from_ref(function.raw)
            .wrapping_add(1)
            .cast::<libbpf::btf_param>();
        // SAFETY: A function's parameters follow it in memory; libbpf has checked that they are all there.
        let parameters = unsafe { std::slice::from_raw_parts(first, function.count()) };
        Some(
            parameters
                .iter()
                .skip(1)
                .map(|parameter| self.parameter(parameter.type_))
                .collect(),
        )
    }

    fn parameter(&self, type_id: u32) -> Parameter {
        let described = || {
            let id = self.resolve(type_id)?;
            let found = self.get(id)?;
            Some(match found.kind() {
                Kind::Ptr => {
                    let target = self.get(self.resolve(found.target())?)?;
                    Parameter::PointerTo(self.name(target.raw.name_off).to_owned())
                }
                _ => Parameter::Value(self.name(found.raw.name_off).to_owned()),
            })
        };
        described().unwrap_or(Parameter::Value(String::new()))
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        // SAFETY: The object is valid; an unknown id gives a null pointer.
        let raw = unsafe { libbpf::btf__type_by_id(self.raw.as_ptr(), id) };
        // SAFETY: What libbpf returns lives and doesn't change as long as the object.
        let raw = unsafe { raw.as_ref() }?;
        Some(Type { raw })
    }

    /// Follows names, `const` and the like to the type itself.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            if found.kind() != Kind::Alias {
                return Some(id);
            }
            id = found.target();
        }
        None
    }

    fn name(&self, offset: u32) -> &str {
        // SAFETY: The object is valid; an offset out of bounds gives a null pointer.
        let name = unsafe { libbpf::btf__name_by_offset(self.raw.as_ptr(), offset) };
        if name.is_null() {
            return "";
        }
        // SAFETY: libbpf returns a C string that lives and doesn't change as long as the object.
        let name = unsafe { CStr::from_ptr(name) };
        name.to_str().unwrap_or("")
    }

    fn member(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        let outer = self.get(self.resolve(id)?)?;
        if !matches!(outer.kind(), Kind::Struct | Kind::Union) || depth == 0 {
            return None;
        }
        let first = std::ptr::from_ref(outer.raw)
            .wrapping_add(1)
            .cast::<libbpf::btf_member>();
        // SAFETY: A struct's members follow it in memory; libbpf has checked that they are all there.
        let members = unsafe { std::slice::from_raw_parts(first, outer.count()) };
        for member in members {
            let (bit_offset, bit_size) = if outer.has_bit_sizes() {
                (member.offset & 0x00ff_ffff, member.offset >> 24)
            } else {
                (member.offset, 0)
            };
            let own_name = self.name(member.name_off);
            if own_name.is_empty() {
                if let Some(inner) = self.member(member.type_, name, depth - 1) {
                    return Some(Member {
                        bit_offset: bit_offset + inner.bit_offset,
                        ..inner
                    });
                }
            } else if own_name == name {
                return Some(Member {
                    type_id: member.type_,
                    bit_offset,
                    bit_size,
                });
            }
        }
        None
    }
}

impl Drop for Btf {
    fn drop(&mut self) {
        // SAFETY: The object is valid, and whatever borrows from it is gone.
        unsafe { libbpf::btf__free(self.raw.as_ptr()) };
    }
}

/// A parameter of a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// A pointer to the type of this name.
    PointerTo(String),
    /// A value of the type of this name.
    Value(String),
}

struct Member {
    type_id: u32,
    bit_offset: u32,
    bit_size: u32,
}

/// Keeps libbpf from writing to standard error; what it returns says enough.
fn silence() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: No printing function is a valid one.
        let _old = unsafe { libbpf::libbpf_set_print(None) };
    });
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::{Btf, Field, Kind, NonNull, Parameter, libbpf};

    /// Type information that a test makes up. Each call adds one type and returns its id.
    struct Draft(*mut libbpf::btf);

    impl Draft {
        fn new() -> Self {
            // SAFETY: It has no preconditions.
            Self(unsafe { libbpf::btf__new_empty() })
        }

        fn int(&self, name: &str, bytes: u32) -> i32 {
            let name = CString::new(name).unwrap();
            // SAFETY: The object is valid and the name a C string.
            unsafe { libbpf::btf__add_int(self.0, name.as_ptr(), bytes.into(), 0) }
        }

        fn pointer(&self, target: i32) -> i32 {
            // SAFETY: The object is valid.
            unsafe { libbpf::btf__add_ptr(self.0, target) }
        }

        fn volatile(&self, target: i32) -> i32 {
            // SAFETY: The object is valid.
            unsafe { libbpf::btf__add_volatile(self.0, target) }
        }

        fn typedef(&self, name: &str, target: i32) -> i32 {
            let name = CString::new(name).unwrap();
            // SAFETY: The object is valid and the name a C string.
            unsafe { libbpf::btf__add_typedef(self.0, name.as_ptr(), target) }
        }

        fn array(&self, element: i32, count: u32) -> i32 {
            // SAFETY: The object is valid.
            unsafe { libbpf::btf__add_array(self.0, element, element, count) }
        }

        /// Members are name, type, offset in bits and width in bits (0: not a bit field).
        fn composite(
            &self,
            is_union: bool,
            name: &str,
            bytes: u32,
            members: &[(&str, i32, u32, u32)],
        ) -> i32 {
            let name = CString::new(name).unwrap();
            let add = if is_union {
                libbpf::btf__add_union
            } else {
                libbpf::btf__add_struct
            };
            // SAFETY: The object is valid and the name a C string.
            let id = unsafe { add(self.0, name.as_ptr(), bytes) };
            for &(name, type_id, offset, width) in members {
                let name = CString::new(name).unwrap();
                // SAFETY: The object is valid, the name a C string, and the struct the last type.
                let result = unsafe {
                    libbpf::btf__add_field(self.0, name.as_ptr(), type_id, offset, width)
                };
                assert_eq!(result, 0, "{name:?} fits");
            }
            id
        }

        fn function(&self, parameters: &[i32]) -> i32 {
            // SAFETY: The object is valid.
            let id = unsafe { libbpf::btf__add_func_proto(self.0, 0) };
            for &parameter in parameters {
                // SAFETY: The object is valid, and the function the last type.
                let result =
                    unsafe { libbpf::btf__add_func_param(self.0, c"".as_ptr(), parameter) };
                assert_eq!(result, 0, "a parameter can be added");
            }
            id
        }

        fn done(self) -> Btf {
            Btf {
                raw: NonNull::new(self.0).unwrap(),
            }
        }
    }

    fn whole(offset: u32, size: u32) -> Field {
        Field {
            offset,
            size,
            bits: None,
        }
    }

    /// A struct with a nested one, nameless ones, an array, and bit fields.
    fn sample() -> Btf {
        let draft = Draft::new();
        let long = draft.int("unsigned long", 8);
        let int = draft.int("unsigned int", 4);
        let char = draft.int("char", 1);
        let comm = draft.array(char, 16);
        let state = draft.volatile(int);
        let inner = draft.composite(
            false,
            "sched_info",
            16,
            &[("pcount", long, 0, 0), ("run_delay", long, 64, 0)],
        );
        let alias = draft.typedef("sched_info_t", inner);
        let deepest = draft.composite(false, "", 8, &[("deep", int, 32, 0)]);
        let nameless = draft.composite(true, "", 8, &[("one", long, 0, 0), ("", deepest, 0, 0)]);
        draft.composite(
            false,
            "task_struct",
            96,
            &[
                ("state", state, 0, 0),
                ("info", alias, 64, 0),
                ("", nameless, 192, 0),
                ("comm", comm, 256, 0),
                ("first", int, 384, 1),
                ("in_iowait", int, 395, 1),
                ("wide", int, 396, 3),
                ("parent", draft.pointer(0), 448, 0),
            ],
        );
        draft.done()
    }

    #[test]
    fn fields_are_found_where_they_are() {
        let btf = sample();
        let find = |path| btf.field("task_struct", path).unwrap();
        assert_eq!(find("state"), whole(0, 4), "through `volatile`");
        assert_eq!(
            find("info.run_delay"),
            whole(16, 8),
            "through a name for a struct"
        );
        assert_eq!(find("one"), whole(24, 8), "in a nameless union");
        assert_eq!(find("deep"), whole(28, 4), "in a nameless struct in it");
        assert_eq!(find("comm"), whole(32, 16), "an array has its whole size");
        assert_eq!(find("parent"), whole(56, 8));
    }

    #[test]
    fn bit_fields_have_the_byte_and_bit_that_they_are_in() {
        let btf = sample();
        let find = |path| btf.field("task_struct", path).unwrap();
        assert_eq!(
            find("first"),
            Field {
                offset: 48,
                size: 0,
                bits: Some((0, 1))
            }
        );
        assert_eq!(
            find("in_iowait"),
            Field {
                offset: 49,
                size: 0,
                bits: Some((3, 1))
            }
        );
        assert_eq!(
            find("wide"),
            Field {
                offset: 49,
                size: 0,
                bits: Some((4, 3))
            }
        );
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let btf = sample();
        for path in ["nothing", "state.nothing", "info.nothing", "comm.x", ""] {
            assert_eq!(btf.field("task_struct", path), None, "{path}");
        }
        assert_eq!(btf.field("rq", "clock"), None);
        assert_eq!(btf.find("task_struct", Kind::Union), None, "it is a struct");
        assert_eq!(btf.tracepoint_parameters("sched_switch"), None);
    }

    #[test]
    fn a_tracepoint_has_its_parameters_without_the_private_one() {
        let draft = Draft::new();
        let int = draft.int("unsigned int", 4);
        let truth = draft.int("_Bool", 1);
        let boolean = draft.typedef("bool", truth);
        let task = draft.composite(false, "task_struct", 4, &[("state", int, 0, 0)]);
        let pointer = draft.pointer(task);
        let private = draft.pointer(0);
        let function = draft.function(&[private, boolean, pointer, int]);
        draft.typedef("btf_trace_sched_switch", draft.pointer(function));
        let expected = [
            Parameter::Value("_Bool".to_owned()),
            Parameter::PointerTo("task_struct".to_owned()),
            Parameter::Value("unsigned int".to_owned()),
        ];
        assert_eq!(
            draft
                .done()
                .tracepoint_parameters("sched_switch")
                .as_deref(),
            Some(&expected[..])
        );
    }

    #[test]
    fn a_file_that_is_no_type_information_is_an_error() {
        let error = Btf::parse(std::path::Path::new("/proc/self/exe")).unwrap_err();
        assert_ne!(error.raw_os_error(), Some(0), "{error}");
        let error = Btf::parse(std::path::Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
