//! What processes belong to, and what that is called.

use super::names::Names;
use crate::core::is_unsafe;

/// Longest name of a unit, in characters. The file system allows a cgroup 255 bytes at each level.
pub const MAX_LABEL_CHARS: usize = 200;

/// Characters of a container's id that are shown, as its own tools do.
const SHORT_ID: usize = 12;

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker Engine (moby), also below `cri-dockerd`.
    Docker,
    /// containerd, by its CRI plugin, nerdctl or ctr.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman (libpod).
    Podman,
    /// LXC, LXD and Incus.
    Lxc,
    /// Somebody whom the path does not tell.
    Unknown,
}

impl Runtime {
    /// The name in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Unknown => "container",
        }
    }
}

/// A systemd unit by its type (systemd.unit(5)); only those that processes can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnitType {
    /// `.service`
    Service,
    /// `.scope`
    Scope,
    /// `.slice`
    Slice,
    /// `.mount`, `.socket` and `.swap`, whose helpers run in them.
    Other,
}

/// What a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// No cgroup but the root: kernel threads, and all processes of a host without a manager.
    Root,
    /// A cgroup that follows nobody's rules, by its path.
    Cgroup {
        /// Path in its hierarchy.
        path: String,
    },
    /// A unit of systemd.
    Systemd {
        /// What it is.
        kind: UnitType,
        /// Its name, as `systemctl` shows it.
        name: String,
        /// The service manager of a user that it belongs to (`user@UID.service`), if it is not the system's.
        manager: Option<String>,
    },
    /// A container that belongs to no pod.
    Container {
        /// Who runs it.
        runtime: Runtime,
        /// Its id; for [`Runtime::Lxc`] its name.
        id: String,
    },
    /// A Kubernetes pod, or a container of it.
    Pod {
        /// The pod's uid, with dashes; of a static pod the hash of its manifest.
        uid: String,
        /// The container: who runs it, and its id.
        container: Option<(Runtime, String)>,
    },
    /// A container or a pod as a user's own cgroups say (rootless ones). Whoever has a service manager may call
    /// cgroups below it as he likes, so no name of the host's containers is taken for it.
    OfUser {
        /// The service manager of the user (`user@UID.service`).
        manager: String,
        /// The container or pod.
        unit: Box<Self>,
    },
}

impl Unit {
    /// How much this says: of two hierarchies the one that says more is right.
    #[must_use]
    pub fn says(&self) -> u8 {
        match self {
            Self::Root => 0,
            Self::Cgroup { .. } => 1,
            Self::Systemd {
                kind: UnitType::Slice,
                ..
            } => 2,
            Self::Systemd { .. } => 3,
            Self::Container { .. } => 4,
            Self::Pod {
                container: None, ..
            } => 5,
            Self::Pod { .. } => 6,
            Self::OfUser { unit, .. } => unit.says(),
        }
    }

    /// The id of the container, if it is one.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        match self {
            Self::Container { id, .. }
            | Self::Pod {
                container: Some((_, id)),
                ..
            } => Some(id),
            Self::OfUser { unit, .. } => unit.container_id(),
            _ => None,
        }
    }

    /// Whether it has names that only the runtime or kubelet know.
    #[must_use]
    pub fn has_names(&self) -> bool {
        match self {
            Self::Container { runtime, .. } => *runtime != Runtime::Lxc,
            Self::Pod { .. } => true,
            _ => false,
        }
    }

    /// What it is called in reports and labels, with the names that are known of it:
    ///
    /// * `nginx.service`; of a user's own manager `user@1000.service/app.service`
    /// * `docker:NAME`, or the first 12 digits of the id in place of the name
    /// * `NAMESPACE/POD/CONTAINER`, or `NAMESPACE/POD` for what is of no named container of it, or
    ///   `pod:UID` if only that is known
    /// * of a user's own containers `user@1000.service/podman:ID`
    /// * `/PATH` of any other cgroup, ids in it cut to 12 digits; `/` for none
    ///
    /// Safe to show, and at most [`MAX_LABEL_CHARS`] long.
    #[must_use]
    pub fn label(&self, names: Option<&Names>) -> String {
        let label = match (self, names) {
            (Self::Root, _) => "/".to_owned(),
            (Self::Cgroup { path }, _) => {
                let parts = path.split('/').map(short_part);
                parts.collect::<Vec<_>>().join("/")
            }
            (Self::Systemd { name, manager, .. }, _) => match manager {
                Some(manager) => format!("{manager}/{}", short_part(name)),
                None => short_part(name),
            },
            // Docker and Podman may run pods of their own; what Kubernetes says counts in any case.
            (
                Self::Container { .. } | Self::Pod { .. },
                Some(Names::Pod {
                    namespace,
                    pod,
                    container,
                }),
            ) => match container {
                Some(container) => format!("{namespace}/{pod}/{container}"),
                None => format!("{namespace}/{pod}"),
            },
            (Self::Container { runtime, .. }, Some(Names::Container { name })) => {
                format!("{}:{name}", runtime.name())
            }
            (Self::Container { runtime, id }, None) => {
                let id = match runtime {
                    Runtime::Lxc => id,
                    _ => id.get(..SHORT_ID).unwrap_or(id),
                };
                format!("{}:{id}", runtime.name())
            }
            (Self::Pod { uid, .. }, _) => format!("pod:{uid}"),
            (Self::OfUser { manager, unit }, _) => format!("{manager}/{}", unit.label(None)),
        };
        clean(&label)
    }
}

/// A part of a path, with long hexadecimal numbers in it cut short: nobody tells them apart further on.
fn short_part(part: &str) -> String {
    let mut short = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        // A word such as "feed" is no number; 32 digits are the shortest id that anybody uses.
        if digits >= 32 {
            short.push_str(&rest[..SHORT_ID]);
            rest = &rest[digits..];
        } else {
            let skip = digits.max(first.len_utf8());
            short.push_str(&rest[..skip]);
            rest = &rest[skip..];
        }
    }
    short
}

/// A name made safe to show and not longer than [`MAX_LABEL_CHARS`]. One that is cut ends in a digest of
/// the whole, so that two that only differ further on stay two.
#[must_use]
pub fn clean(name: &str) -> String {
    let safe = |c| {
        if is_unsafe(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    if name.chars().nth(MAX_LABEL_CHARS).is_none() {
        return name.chars().map(safe).collect();
    }
    let tail = format!("~{:08x}", digest(name.as_bytes()));
    let kept = MAX_LABEL_CHARS - tail.len();
    name.chars()
        .take(kept)
        .map(safe)
        .chain(tail.chars())
        .collect()
}

/// FNV-1a: the same in every run, unlike the standard library's hashes.
fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::{MAX_LABEL_CHARS, Runtime, Unit, UnitType, clean};
    use crate::identity::names::Names;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_that_are_known_make_the_label() {
        let container = Unit::Container {
            runtime: Runtime::Podman,
            id: ID.to_owned(),
        };
        assert_eq!(container.label(None), "podman:0123456789ab");
        let name = Names::Container {
            name: "web".to_owned(),
        };
        assert_eq!(container.label(Some(&name)), "podman:web");
        let pod = |container: Option<&str>| Names::Pod {
            namespace: "shop".to_owned(),
            pod: "cart-0".to_owned(),
            container: container.map(str::to_owned),
        };
        let unit = Unit::Pod {
            uid: "12345678-1234-1234-1234-123456789abc".to_owned(),
            container: Some((Runtime::CriO, ID.to_owned())),
        };
        assert_eq!(unit.label(None), "pod:12345678-1234-1234-1234-123456789abc");
        assert_eq!(unit.label(Some(&pod(None))), "shop/cart-0");
        assert_eq!(unit.label(Some(&pod(Some("app")))), "shop/cart-0/app");
        assert_eq!(container.label(Some(&pod(Some("app")))), "shop/cart-0/app");
    }

    #[test]
    fn ids_in_other_names_are_cut() {
        let unit = |path: &str| {
            let path = path.to_owned();
            Unit::Cgroup { path }.label(None)
        };
        assert_eq!(unit(&format!("/a/{ID}/b")), "/a/0123456789ab/b");
        assert_eq!(unit(&format!("/x-{ID}.d")), "/x-0123456789ab.d");
        assert_eq!(unit("/decade/é/cafe"), "/decade/é/cafe");
        let scope = Unit::Systemd {
            kind: UnitType::Scope,
            name: format!("libpod-conmon-{ID}.scope"),
            manager: None,
        };
        assert_eq!(scope.label(None), "libpod-conmon-0123456789ab.scope");
    }

    #[test]
    fn hostile_names_are_cut_and_cleaned() {
        assert_eq!(
            clean("a:b\u{7}c\u{202e}d\u{200b}"),
            "a:b\u{fffd}c\u{fffd}d\u{fffd}"
        );
        let long = |end: &str| clean(&format!("{}{end}", "x".repeat(500)));
        for label in [long("1"), long("2"), clean(&"é".repeat(500))] {
            assert_eq!(label.chars().count(), MAX_LABEL_CHARS, "{label}");
        }
        assert_ne!(long("1"), long("2"), "two long names stay two");
        let exact = "y".repeat(MAX_LABEL_CHARS);
        assert_eq!(clean(&exact), exact);
    }
}
