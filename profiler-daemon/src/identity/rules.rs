//! How managers name cgroups: a path to a unit, by a table.
//!
//! A path is read from the root down. Containers and pods count more than the systemd units around and
//! within them. In a pod the first container counts, and of containers within containers the outermost;
//! a pod counts wherever it is (a Kubernetes node may itself be a container).

use super::unit::{Runtime, Unit, UnitType};

/// A piece of a part of a path.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// These very characters.
    Is(&'static str),
    /// Any characters, or none.
    Any,
    /// Any characters, at least one: the name of a container.
    Name,
    /// The id of a container: 64 hexadecimal digits.
    Id,
    /// The uid of a pod: a UUID, with underscores for dashes where systemd needs it so, or for a static
    /// pod 32 hexadecimal digits.
    Uid,
}
use Piece::{Any, Id, Is, Name, Uid};

/// What a part of a path means.
#[derive(Clone, Copy, Debug)]
enum Means {
    /// A pod, by the uid found.
    Pod,
    /// A container, by the id or the name found.
    Container(Runtime),
}
use Means::{Container, Pod};

/// What a part of a path has to look like to mean something, and the one above it, if that matters.
struct Rule {
    above: Option<&'static [Piece]>,
    part: &'static [Piece],
    means: Means,
}

const fn rule(part: &'static [Piece], means: Means) -> Rule {
    Rule {
        above: None,
        part,
        means,
    }
}

const fn below(above: &'static [Piece], part: &'static [Piece], means: Means) -> Rule {
    Rule {
        above: Some(above),
        part,
        means,
    }
}

/// The first rule that fits counts.
const RULES: &[Rule] = &[
    // kubelet with the systemd driver: kubepods-burstable-podUID.slice, kubepods-podUID.slice for the
    // guaranteed class, with the prefix of a `--cgroup-root` or of kind before it.
    // (pkg/kubelet/cm/cgroup_manager_linux.go, pod_container_manager_linux.go)
    rule(
        &[Any, Is("kubepods"), Any, Is("-pod"), Uid, Is(".slice")],
        Pod,
    ),
    // kubelet with the cgroupfs driver: kubepods/burstable/podUID, kubepods/podUID.
    below(&[Any, Is("kubepods")], &[Is("pod"), Uid], Pod),
    below(&[Is("burstable")], &[Is("pod"), Uid], Pod),
    below(&[Is("besteffort")], &[Is("pod"), Uid], Pod),
    // Scopes that runtimes make through systemd.
    rule(
        &[Is("docker-"), Id, Is(".scope")],
        Container(Runtime::Docker),
    ),
    rule(
        &[Is("cri-containerd-"), Id, Is(".scope")],
        Container(Runtime::Containerd),
    ),
    rule(
        &[Is("nerdctl-"), Id, Is(".scope")],
        Container(Runtime::Containerd),
    ),
    rule(
        &[Is("containerd-"), Id, Is(".scope")],
        Container(Runtime::Containerd),
    ),
    rule(&[Is("crio-"), Id, Is(".scope")], Container(Runtime::CriO)),
    rule(
        &[Is("libpod-"), Id, Is(".scope")],
        Container(Runtime::Podman),
    ),
    // What a runtime makes that was configured for systemd below one that was not (split off the slice
    // before it).
    rule(&[Is("docker:"), Id], Container(Runtime::Docker)),
    rule(&[Is("cri-containerd:"), Id], Container(Runtime::Containerd)),
    rule(&[Is("crio:"), Id], Container(Runtime::CriO)),
    // CRI-O and Podman without systemd; Podman's containers that share the unit of their service
    // (`--cgroups=split`).
    rule(&[Is("crio-"), Id], Container(Runtime::CriO)),
    rule(&[Is("libpod-"), Id], Container(Runtime::Podman)),
    rule(&[Is("libpod-payload-"), Id], Container(Runtime::Podman)),
    // Plain ids by what is above them: Docker's default parent, containerd's namespace for nerdctl and ctr.
    below(&[Is("docker")], &[Id], Container(Runtime::Docker)),
    below(&[Is("default")], &[Id], Container(Runtime::Containerd)),
    below(&[Is("libpod_parent")], &[Id], Container(Runtime::Podman)),
    // Docker with another parent, tasks of ECS, and CRI runtimes with the cgroupfs driver.
    rule(&[Id], Container(Runtime::Unknown)),
    // LXC since 4.0 with either form of parent, and before.
    rule(&[Is("lxc.payload."), Name], Container(Runtime::Lxc)),
    below(&[Is("lxc.payload")], &[Name], Container(Runtime::Lxc)),
    below(&[Is("lxc")], &[Name], Container(Runtime::Lxc)),
];

/// The unit of a cgroup, by its path. `..`, as the path has it that leads out of a cgroup namespace, is
/// passed over.
#[must_use]
pub fn unit_of_path(path: &str) -> Unit {
    let mut pod: Option<String> = None;
    let mut container: Option<(Runtime, String)> = None;
    let mut manager: Option<&str> = None;
    let mut above = "";
    for part in parts(path) {
        if pod.is_none() && container.is_none() && is_user_manager(part) {
            manager = manager.or(Some(part));
        }
        match meaning(above, part) {
            Some((Pod, uid)) => {
                pod = Some(uid.replace('_', "-").to_ascii_lowercase());
                container = None;
            }
            Some((Container(runtime), id)) if container.is_none() => {
                container = Some((runtime, id.to_owned()));
            }
            _ => {}
        }
        above = part;
    }
    let unit = match (pod, container) {
        (Some(uid), container) => Unit::Pod { uid, container },
        (None, Some((runtime, id))) => Unit::Container { runtime, id },
        (None, None) => return systemd_unit(path).unwrap_or_else(|| other(path)),
    };
    match manager {
        Some(manager) => Unit::OfUser {
            manager: manager.to_owned(),
            unit: Box::new(unit),
        },
        None => unit,
    }
}

/// Whether it is the unit of a user's own service manager, who may make cgroups of any name below it.
fn is_user_manager(part: &str) -> bool {
    unit_type(part)
        .is_some_and(|(name, kind)| name.starts_with("user@") && kind == UnitType::Service)
}

/// The parts of a path. A slice that a runtime took for a directory (`x.slice:cri-containerd:ID`) is two.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    const MARK: &str = ".slice:";
    let split = |part| match str::find(part, MARK) {
        Some(at) => {
            let (slice, rest) = part.split_at(at + MARK.len() - 1);
            [slice, &rest[1..]]
        }
        None => [part, ""],
    };
    path.split('/')
        .flat_map(split)
        .filter(|part| !matches!(*part, "" | ".." | "."))
}

/// What a part of a path means, and the uid, id or name in it.
fn meaning<'a>(above: &str, part: &'a str) -> Option<(Means, &'a str)> {
    RULES.iter().find_map(|rule| {
        if rule
            .above
            .is_some_and(|pieces| fit(pieces, above).is_none())
        {
            return None;
        }
        Some((rule.means, fit(rule.part, part)?))
    })
}

/// If text is made of these pieces, what stands there for an id, a uid or a name; nothing if none of
/// them is asked for.
fn fit<'a>(pieces: &[Piece], text: &'a str) -> Option<&'a str> {
    let Some((piece, rest)) = pieces.split_first() else {
        return text.is_empty().then_some("");
    };
    let hole = |length: usize| {
        let (found, after) = text.split_at_checked(length)?;
        fit(rest, after).map(|_| found)
    };
    match piece {
        Is(literal) => fit(rest, text.strip_prefix(literal)?),
        Any => {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.find_map(|at| fit(rest, &text[at..]))
        }
        Name => (!text.is_empty()).then(|| hole(text.len())).flatten(),
        Id => hole(64).filter(|id| is_hex(id)),
        Uid => [36, 32]
            .into_iter()
            .find_map(|length| hole(length).filter(|uid| is_uuid(uid) || is_hex(uid))),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => matches!(byte, b'-' | b'_'),
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The suffixes of units that processes can be in.
const UNIT_TYPES: &[(&str, UnitType)] = &[
    (".service", UnitType::Service),
    (".scope", UnitType::Scope),
    (".slice", UnitType::Slice),
    (".mount", UnitType::Other),
    (".socket", UnitType::Other),
    (".swap", UnitType::Other),
];

/// The type of the unit of this name, if it is one. systemd puts a `_` before names that the kernel has
/// a use for itself (`cg_escape`, src/basic/cgroup-util.c).
fn unit_type(part: &str) -> Option<(&str, UnitType)> {
    let name = part.strip_prefix('_').unwrap_or(part);
    UNIT_TYPES.iter().find_map(|(suffix, kind)| {
        let stem = name.strip_suffix(suffix)?;
        (!stem.is_empty()).then_some((name, *kind))
    })
}

/// The unit that systemd made the cgroup for: the first one below the slices, as systemd itself finds it
/// (`cg_path_get_unit`, `cg_path_get_user_unit`). What a service makes within its own cgroup is its own
/// business.
fn systemd_unit(path: &str) -> Option<Unit> {
    // A manager that is itself in a cgroup of somebody else's has that above its own.
    let below = parts(path).skip_while(|part| unit_type(part).is_none());
    let mut units = below.map_while(unit_type);
    let (name, kind) = innermost(&mut units)?;
    if !(name.starts_with("user@") && kind == UnitType::Service) {
        return Some(unit(name, kind, None));
    }
    match innermost(&mut units) {
        Some((of_user, kind)) => Some(unit(of_user, kind, Some(name.to_owned()))),
        None => Some(unit(name, kind, None)),
    }
}

/// The first one that is not a slice, else the last slice.
fn innermost<'a>(
    units: &mut impl Iterator<Item = (&'a str, UnitType)>,
) -> Option<(&'a str, UnitType)> {
    let mut last = None;
    for unit in units {
        last = Some(unit);
        if unit.1 != UnitType::Slice {
            break;
        }
    }
    last
}

fn unit(name: &str, kind: UnitType, manager: Option<String>) -> Unit {
    Unit::Systemd {
        kind,
        name: name.to_owned(),
        manager,
    }
}

fn other(path: &str) -> Unit {
    let parts: Vec<&str> = parts(path).collect();
    if parts.is_empty() {
        return Unit::Root;
    }
    Unit::Cgroup {
        path: format!("/{}", parts.join("/")),
    }
}
