//! Paths as the managers make them, each with what it means.

use schedscope::identity::unit::UnitType;
use schedscope::identity::{Runtime, Unit, hierarchy, rules};

/// Stands for a container's id in the table.
const ID: &str = "3f2a9c1d5b7e8f60112233445566778899aabbccddeeff001234567890abcdef";

/// Another one.
const INNER: &str = "aa00bb11cc22dd33ee44ff5566778899aabbccddeeff00112233445566778899";

/// A pod's uid, and as systemd has it.
const UID: &str = "7f3e1c5a-9b2d-4e8f-a1b0-c2d3e4f50617";
const UID_: &str = "7f3e1c5a_9b2d_4e8f_a1b0_c2d3e4f50617";

/// A static pod's.
const HASH: &str = "c5d3b5b3f0d4a6e7a1b2c3d4e5f60718";

#[derive(Clone, Copy)]
enum Is {
    Root,
    Cgroup(&'static str),
    Service(&'static str),
    Scope(&'static str),
    Slice(&'static str),
    Other(&'static str),
    /// A service of a user's own manager.
    User(&'static str, &'static str),
    Container(Runtime),
    /// One of a user's own.
    UserContainer(Runtime),
    /// A container of LXC's, by its name.
    Lxc(&'static str),
    /// A pod, and who runs the container of it.
    Pod(Option<Runtime>),
    StaticPod(Option<Runtime>),
}
use Is::{
    Cgroup, Container, Lxc, Other, Pod, Root, Scope, Service, Slice, StaticPod, User, UserContainer,
};
use Runtime::{Containerd, CriO, Docker, Podman, Unknown};

/// In the paths `ID`, `INNER`, `UID` and `HASH` are what the constants say, and `UID_` has underscores.
const TABLE: &[(&str, Is)] = &[
    // systemd: the system.
    ("/", Root),
    ("/init.scope", Scope("init.scope")),
    ("/system.slice", Slice("system.slice")),
    ("/system.slice/nginx.service", Service("nginx.service")),
    (
        "/system.slice/system-getty.slice/getty@tty1.service",
        Service("getty@tty1.service"),
    ),
    (
        "/system.slice/system-postgresql.slice/postgresql@15-main.service",
        Service("postgresql@15-main.service"),
    ),
    ("/system.slice/docker.service", Service("docker.service")),
    (
        "/system.slice/containerd.service",
        Service("containerd.service"),
    ),
    ("/system.slice/dbus.socket", Other("dbus.socket")),
    (
        "/system.slice/var-lib-docker.mount",
        Other("var-lib-docker.mount"),
    ),
    (
        "/system.slice/dev-disk-by\\x2duuid-1234.swap",
        Other("dev-disk-by\\x2duuid-1234.swap"),
    ),
    ("/system.slice/_cpu.service", Service("cpu.service")),
    // What a service makes in its own cgroup is its own.
    (
        "/system.slice/nginx.service/workers",
        Service("nginx.service"),
    ),
    (
        "/system.slice/systemd-udevd.service/udev",
        Service("systemd-udevd.service"),
    ),
    (
        "/system.slice/evil.service/nginx.service",
        Service("evil.service"),
    ),
    // systemd: users.
    (
        "/user.slice/user-0.slice/session-1.scope",
        Scope("session-1.scope"),
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service",
        Service("user@1000.service"),
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        User("user@1000.service", "init.scope"),
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
        User("user@1000.service", "vte-spawn-1.scope"),
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service",
        User("user@1000.service", "pipewire.service"),
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        User("user@1000.service", "app.slice"),
    ),
    // systemd: machines.
    (
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
        Scope("machine-qemu\\x2d1\\x2dvm.scope"),
    ),
    (
        "/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service",
        Service("systemd-nspawn@web.service"),
    ),
    // Out of a cgroup namespace, and below a manager of another one.
    (
        "/../../system.slice/nginx.service",
        Service("nginx.service"),
    ),
    (
        "/outer/system.slice/nginx.service",
        Service("nginx.service"),
    ),
    // Docker: cgroupfs, systemd, rootless, another parent, with a manager of its own within, in itself.
    ("/docker/ID", Container(Docker)),
    ("/system.slice/docker-ID.scope", Container(Docker)),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
        UserContainer(Docker),
    ),
    ("/build.slice/docker-ID.scope", Container(Docker)),
    ("/build/ID", Container(Unknown)),
    (
        "/system.slice/docker-ID.scope/system.slice/sshd.service",
        Container(Docker),
    ),
    (
        "/system.slice/docker-ID.scope/init.scope",
        Container(Docker),
    ),
    ("/docker/ID/docker/INNER", Container(Docker)),
    ("/system.slice:docker:ID", Container(Docker)),
    (
        "/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/ID",
        Container(Unknown),
    ),
    (
        "/ecstasks.slice/ecstasks-0f1e2d3c4b5a69788796a5b4c3d2e1f0.slice/docker-ID.scope",
        Container(Docker),
    ),
    // containerd without Kubernetes: nerdctl and ctr.
    ("/default/ID", Container(Containerd)),
    ("/system.slice/nerdctl-ID.scope", Container(Containerd)),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-ID.scope",
        UserContainer(Containerd),
    ),
    // Podman: systemd, cgroupfs, rootless, in a pod of its own, in the unit of its service, monitors.
    ("/machine.slice/libpod-ID.scope", Container(Podman)),
    (
        "/machine.slice/libpod-ID.scope/container",
        Container(Podman),
    ),
    ("/libpod_parent/libpod-ID", Container(Podman)),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
        UserContainer(Podman),
    ),
    (
        "/machine.slice/machine-libpod_pod_INNER.slice/libpod-ID.scope",
        Container(Podman),
    ),
    (
        "/system.slice/web.service/libpod-payload-ID",
        Container(Podman),
    ),
    ("/system.slice/web.service/runtime", Service("web.service")),
    (
        "/machine.slice/libpod-conmon-ID.scope",
        Scope("libpod-conmon-ID.scope"),
    ),
    // LXC, LXD, Incus.
    ("/lxc/web", Lxc("web")),
    ("/lxc.payload/web/system.slice/a.service", Lxc("web")),
    ("/lxc.payload.web/init.scope", Lxc("web")),
    ("/lxc.monitor.web", Cgroup("/lxc.monitor.web")),
    // Kubernetes, systemd driver: the three classes; containerd, CRI-O, cri-dockerd; static pods.
    ("/kubepods.slice", Slice("kubepods.slice")),
    (
        "/kubepods.slice/kubepods-burstable.slice",
        Slice("kubepods-burstable.slice"),
    ),
    ("/kubepods.slice/kubepods-podUID_.slice", Pod(None)),
    (
        "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
        Pod(Some(Containerd)),
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
        Pod(Some(Containerd)),
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope",
        Pod(Some(CriO)),
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope/container",
        Pod(Some(CriO)),
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/crio-conmon-ID.scope",
        Pod(None),
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope",
        Pod(Some(Docker)),
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
        StaticPod(Some(Containerd)),
    ),
    // Kubernetes, cgroupfs driver.
    ("/kubepods/podUID/ID", Pod(Some(Unknown))),
    ("/kubepods/burstable/podUID/ID", Pod(Some(Unknown))),
    ("/kubepods/besteffort/podUID/ID", Pod(Some(Unknown))),
    ("/kubepods/besteffort/podUID", Pod(None)),
    ("/kubepods/burstable/podHASH/ID", StaticPod(Some(Unknown))),
    ("/kubepods/burstable/podUID/crio-ID", Pod(Some(CriO))),
    // Kubernetes, drivers mixed up: what runc makes of a path of the other kind.
    (
        "/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
        Pod(Some(Containerd)),
    ),
    (
        "/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
        Pod(Some(Containerd)),
    ),
    ("/kubepods-burstable-podUID_.slice:crio:ID", Pod(Some(CriO))),
    // Kubernetes in containers: kind, with either driver; docker in a pod; out of a namespace.
    (
        "/system.slice/docker-INNER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
        Pod(Some(Containerd)),
    ),
    (
        "/docker/INNER/kubelet/kubepods/besteffort/podUID/ID",
        Pod(Some(Unknown)),
    ),
    (
        "/kubepods/burstable/podUID/ID/docker/INNER",
        Pod(Some(Unknown)),
    ),
    (
        "/../../../kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
        Pod(Some(Containerd)),
    ),
    // Nobody's.
    ("/batch", Cgroup("/batch")),
    ("/batch/a b/c", Cgroup("/batch/a b/c")),
    ("/agent/HASH", Cgroup("/agent/c5d3b5b3f0d4")),
    // Almost somebody's.
    ("/system.slice/docker-123.scope", Scope("docker-123.scope")),
    (
        "/kubepods/burstable/podcast/x",
        Cgroup("/kubepods/burstable/podcast/x"),
    ),
    ("/podUID", Cgroup("/podUID")),
    ("/.service", Cgroup("/.service")),
    ("/docker", Cgroup("/docker")),
    ("/lxc", Cgroup("/lxc")),
];

fn filled(text: &str) -> String {
    text.replace("UID_", UID_)
        .replace("UID", UID)
        .replace("INNER", INNER)
        .replace("HASH", HASH)
        .replace("ID", ID)
}

fn systemd(kind: UnitType, name: &str, manager: Option<&str>) -> Unit {
    Unit::Systemd {
        kind,
        name: filled(name),
        manager: manager.map(str::to_owned),
    }
}

fn container(runtime: Runtime) -> (Runtime, String) {
    (runtime, ID.to_owned())
}

impl Is {
    fn unit(self, path: &str) -> Unit {
        match self {
            Root => Unit::Root,
            Cgroup(_) => Unit::Cgroup {
                path: path.to_owned(),
            },
            Service(name) => systemd(UnitType::Service, name, None),
            Scope(name) => systemd(UnitType::Scope, name, None),
            Slice(name) => systemd(UnitType::Slice, name, None),
            Other(name) => systemd(UnitType::Other, name, None),
            User(manager, name) => {
                let kind = match name.rsplit_once('.') {
                    Some((_, "service")) => UnitType::Service,
                    Some((_, "scope")) => UnitType::Scope,
                    _ => UnitType::Slice,
                };
                systemd(kind, name, Some(manager))
            }
            Container(runtime) => Unit::Container {
                runtime,
                id: ID.to_owned(),
            },
            UserContainer(_) => Unit::OfUser {
                manager: "user@1000.service".to_owned(),
                unit: Box::new(self.inner().unit(path)),
            },
            Lxc(name) => Unit::Container {
                runtime: Runtime::Lxc,
                id: name.to_owned(),
            },
            Pod(runtime) => Unit::Pod {
                uid: UID.to_owned(),
                container: runtime.map(container),
            },
            StaticPod(runtime) => Unit::Pod {
                uid: HASH.to_owned(),
                container: runtime.map(container),
            },
        }
    }

    /// What it would be outside of a user's cgroups.
    fn inner(self) -> Self {
        match self {
            UserContainer(runtime) => Container(runtime),
            other => other,
        }
    }

    /// What it is called while nobody knows names.
    fn label(self) -> String {
        match self {
            Root => "/".to_owned(),
            Cgroup(name) => filled(name),
            Service(name) | Scope(name) | Slice(name) | Other(name) => {
                name.replace("ID", &ID[..12])
            }
            User(manager, name) => format!("{manager}/{name}"),
            Container(runtime) => format!("{}:{}", runtime.name(), &ID[..12]),
            UserContainer(_) => format!("user@1000.service/{}", self.inner().label()),
            Lxc(name) => format!("lxc:{name}"),
            Pod(_) => format!("pod:{UID}"),
            StaticPod(_) => format!("pod:{HASH}"),
        }
    }
}

#[test]
fn every_path_is_understood() {
    for (path, is) in TABLE {
        let path = filled(path);
        let unit = rules::unit_of_path(&path);
        assert_eq!(unit, is.unit(&path), "{path}");
        assert_eq!(unit.label(None), is.label(), "{path}");
    }
}

/// The same path means the same whichever version of cgroups tells it.
#[test]
fn every_path_is_understood_in_every_hierarchy() {
    for (path, is) in TABLE {
        let path = filled(path);
        for text in [
            format!("0::{path}\n"),
            format!("12:cpu,cpuacct:{path}\n3:memory:{path}\n1:name=systemd:{path}\n"),
            format!("9:pids:/\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::{path}\n"),
            format!("4:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/\n"),
        ] {
            assert_eq!(hierarchy::unit_of(&text), is.unit(&path), "{text}");
        }
    }
}

#[test]
fn no_text_makes_it_panic() {
    let pieces = [
        "kubepods",
        "-pod",
        UID,
        UID_,
        HASH,
        ID,
        ".slice",
        ".scope",
        ":",
        "/",
        "docker-",
        "é",
        "\u{202e}",
        "..",
        "\0",
        "user@1.service",
        "_",
        " (deleted)",
        "\n",
        "0::/",
    ];
    // All texts of three pieces.
    let pieces_squared = || {
        pieces
            .iter()
            .flat_map(|a| pieces.map(|b| format!("{a}{b}")))
    };
    for (start, end) in pieces_squared().flat_map(|start| pieces.map(|end| (start.clone(), end))) {
        let text = format!("0::/{start}{end}/x");
        let label = hierarchy::unit_of(&text).label(None);
        assert!(!label.is_empty() && label.chars().count() <= 200, "{text}");
        assert!(
            !label.contains(['\0', '\n', '\u{202e}']),
            "{text:?}: {label:?}"
        );
    }
}
