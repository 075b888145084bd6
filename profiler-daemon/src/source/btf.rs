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
        // SAFETY: The object is valid; an unknown id gives an error.
        let size = unsafe { libbpf::btf__resolve_size(self.raw.as_ptr(), id) };
        Some(Field {
            offset: bit_offset / 8,
            size: u32::try_from(size).ok()?,
            bits: None,
        })
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
            if own_name == name {
                return Some(Member {
                    type_id: member.type_,
                    bit_offset,
                    bit_size,
                });
            }
            if own_name.is_empty()
                && let Some(inner) = self.member(member.type_, name, depth - 1)
            {
                return Some(Member {
                    bit_offset: bit_offset + inner.bit_offset,
                    ..inner
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
