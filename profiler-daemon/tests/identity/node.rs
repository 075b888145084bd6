//! Names from the files that kubelet and the runtimes keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schedscope::identity::hierarchy::unit_of;
use schedscope::identity::names::{Names, Node};
use schedscope::identity::{Runtime, Unit};

const ID: &str = "3f2a9c1d5b7e8f60112233445566778899aabbccddeeff001234567890abcdef";
const UID: &str = "7f3e1c5a-9b2d-4e8f-a1b0-c2d3e4f50617";

/// The root of a host, removed when dropped.
pub(crate) struct Root(pub(crate) PathBuf);

impl Root {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("identity-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory can be written");
        Self(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        let parent = path.parent().expect("a file in a directory");
        fs::create_dir_all(parent).expect("the target directory can be written");
        fs::write(path, text).expect("the target directory can be written");
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // An empty directory that stays behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_pod() -> Unit {
    Unit::Pod {
        uid: UID.to_owned(),
        container: Some((Runtime::Containerd, ID.to_owned())),
    }
}

fn container() -> Unit {
    Unit::Container {
        runtime: Runtime::Docker,
        id: ID.to_owned(),
    }
}

fn pod(container: Option<&str>) -> Names {
    Names::Pod {
        namespace: "shop".to_owned(),
        pod: "cart-7d9f-x2x".to_owned(),
        container: container.map(str::to_owned),
    }
}

#[track_caller]
fn check(name: &str, files: &[(&str, &str)], unit: &Unit, expected: Option<&Names>) {
    let root = Root::new(name);
    for (path, text) in files {
        root.write(&path.replace("ID", ID), &text.replace("ID", ID));
    }
    let names = Node::new(&root.0).names(unit, Instant::now());
    assert_eq!(names.as_ref(), expected);
}

#[test]
fn kubelet_tells_the_container() {
    let log = "var/log/containers/cart-7d9f-x2x_shop_app-main-ID.log";
    check("log", &[(log, "")], &in_pod(), Some(&pod(Some("app-main"))));
}

#[test]
fn kubelet_tells_the_pod() {
    let log = format!("var/log/pods/shop_cart-7d9f-x2x_{UID}/app/0.log");
    check("pods", &[(&log, "")], &in_pod(), Some(&pod(None)));
    check("no-pods", &[], &in_pod(), None);
}

#[test]
fn runtimes_tell_the_container_of_a_pod() {
    let containerd = r#"{"ociVersion":"1.1.0","annotations":{
        "io.kubernetes.cri.container-name":"app","io.kubernetes.cri.container-type":"container",
        "io.kubernetes.cri.sandbox-name":"cart-7d9f-x2x","io.kubernetes.cri.sandbox-namespace":"shop"}}"#;
    let bundle = "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
    check(
        "containerd",
        &[(bundle, containerd)],
        &in_pod(),
        Some(&pod(Some("app"))),
    );
    let bundle = "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
    check(
        "k3s",
        &[(bundle, containerd)],
        &in_pod(),
        Some(&pod(Some("app"))),
    );
    let crio = r#"{"annotations":{"io.kubernetes.pod.name":"cart-7d9f-x2x",
        "io.kubernetes.pod.namespace":"shop","io.kubernetes.container.name":"app"}}"#;
    let bundle = "run/containers/storage/overlay-containers/ID/userdata/config.json";
    check(
        "crio",
        &[(bundle, crio)],
        &in_pod(),
        Some(&pod(Some("app"))),
    );
    // The sandbox is nobody's container.
    let sandbox = crio.replace("\"app\"", "\"POD\"");
    check(
        "sandbox",
        &[(bundle, &sandbox)],
        &in_pod(),
        Some(&pod(None)),
    );
    let docker = r#"{"Name":"/k8s_app_cart","Config":{"Labels":{"io.kubernetes.pod.name":"cart-7d9f-x2x",
        "io.kubernetes.pod.namespace":"shop","io.kubernetes.container.name":"app"}}}"#;
    let file = "var/lib/docker/containers/ID/config.v2.json";
    check(
        "cri-dockerd",
        &[(file, docker)],
        &in_pod(),
        Some(&pod(Some("app"))),
    );
}

#[test]
fn runtimes_tell_the_names_of_containers() {
    let web = || {
        let name = "web".to_owned();
        Some(Names::Container { name })
    };
    let file = "var/lib/docker/containers/ID/config.v2.json";
    check(
        "docker",
        &[(file, r#"{"Name":"/web","Config":{"Labels":null}}"#)],
        &container(),
        web().as_ref(),
    );
    let file = "var/lib/containers/storage/overlay-containers/containers.json";
    let list = r#"[{"id":"00","names":["other"]},{"id":"ID","names":["web"],"image":"x"}]"#;
    check("podman", &[(file, list)], &container(), web().as_ref());
    let file = "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json";
    check(
        "nerdctl",
        &[(file, r#"{"annotations":{"nerdctl/name":"web"}}"#)],
        &container(),
        web().as_ref(),
    );
}

#[test]
fn files_that_make_no_sense_tell_nothing() {
    let file = "var/lib/docker/containers/ID/config.v2.json";
    for text in ["", "{}", "[]", "{\"Name\":7}", "{\"Name\":\"/\"}"] {
        check("nonsense", &[(file, text)], &container(), None);
    }
    let huge = format!("{{\"Name\":\"/web\"}}{}", " ".repeat(5 << 20));
    check("huge", &[(file, &huge)], &container(), None);
    let odd = [
        ("var/log/pods/no-underscores/x", ""),
        ("var/log/containers/x_y_z.log", ""),
        ("var/log/containers/x_y.log", ""),
        ("var/log/containers/README", ""),
    ];
    check("odd", &odd, &in_pod(), None);
}

/// An id comes from a path that others may choose; it is never more than a part of a file's name.
#[test]
fn an_id_that_is_none_reads_no_file() {
    let root = Root::new("traversal");
    root.write(
        "var/lib/docker/secret/config.v2.json",
        r#"{"Name":"/stolen"}"#,
    );
    root.write("var/lib/docker/containers/x", "");
    for id in ["../secret", "", "/etc"] {
        let unit = Unit::Container {
            runtime: Runtime::Docker,
            id: id.to_owned(),
        };
        assert_eq!(
            Node::new(&root.0).names(&unit, Instant::now()),
            None,
            "{id}"
        );
    }
}

/// A user may call cgroups of his own as he likes, after a container of somebody else's, too: he gets no name for it.
#[test]
fn a_user_cannot_take_the_name_of_a_container() {
    let root = Root::new("forged");
    let file = "var/lib/docker/containers/ID/config.v2.json".replace("ID", ID);
    root.write(&file, r#"{"Name":"/web"}"#);
    let unit = |path: &str| unit_of(&format!("0::{path}/docker-{ID}.scope\n"));
    let label = |unit: &Unit| {
        let names = Node::new(&root.0).names(unit, Instant::now());
        unit.label(names.as_ref())
    };
    assert_eq!(label(&unit("/system.slice")), "docker:web");
    let users = "/user.slice/user-1000.slice/user@1000.service";
    for path in [users.to_owned(), format!("{users}/app.slice")] {
        let id = &ID[..12];
        assert_eq!(
            label(&unit(&path)),
            format!("user@1000.service/docker:{id}")
        );
    }
    let pod = format!("{users}/kubepods-pod{UID}.slice");
    let label = label(&unit(&pod));
    assert_eq!(label, format!("user@1000.service/pod:{UID}"));
}

/// What lies in a container's directory may be the container's own doing: no link there leads anywhere, and nothing
/// that never ends is read. Where root has put all of it elsewhere by a link it is found.
#[test]
fn links_and_pipes_of_containers_are_not_read() {
    use std::os::unix::fs::symlink;
    let docker = r#"{"Name":"/web"}"#;
    let at = "var/lib/docker/containers/ID/config.v2.json".replace("ID", ID);
    let names = |root: &Root| Node::new(&root.0).names(&container(), Instant::now());

    let root = Root::new("link");
    root.write("secret.json", docker);
    root.write(&format!("{at}.other"), "");
    symlink(root.0.join("secret.json"), root.0.join(&at)).expect("a link can be made");
    assert_eq!(names(&root), None, "the file is a link");

    let root = Root::new("linked-directory");
    root.write("elsewhere/config.v2.json", docker);
    root.write("var/lib/docker/containers/x", "");
    let directory = root.0.join("var/lib/docker/containers").join(ID);
    symlink(root.0.join("elsewhere"), directory).expect("a link can be made");
    assert_eq!(names(&root), None, "its directory is a link");

    let root = Root::new("pipe");
    root.write(&format!("{at}.other"), "");
    let pipe = std::process::Command::new("mkfifo")
        .arg(root.0.join(&at))
        .status();
    assert!(pipe.is_ok_and(|status| status.success()));
    assert_eq!(names(&root), None, "nobody will ever write");

    let root = Root::new("moved");
    root.write(&at.replace("var/lib/docker", "data"), docker);
    root.write("var/lib/x", "");
    symlink(root.0.join("data"), root.0.join("var/lib/docker")).expect("a link can be made");
    let name = "web".to_owned();
    assert_eq!(names(&root), Some(Names::Container { name }));
}

#[test]
fn directories_are_not_listed_at_every_question() {
    let root = Root::new("rate");
    let mut node = Node::new(&root.0);
    let start = Instant::now();
    assert_eq!(node.names(&in_pod(), start), None);
    root.write(
        &format!("var/log/pods/shop_cart-7d9f-x2x_{UID}/app/0.log"),
        "",
    );
    assert_eq!(node.names(&in_pod(), start + Duration::from_secs(1)), None);
    assert_eq!(
        node.names(&in_pod(), start + Duration::from_secs(6)),
        Some(pod(None))
    );
}
