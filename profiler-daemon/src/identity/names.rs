//! Names of containers and pods, from the files that kubelet and the runtimes keep on the node.
//!
//! Nothing is asked for over a socket. Two directories of kubelet's tell the names of all pods and
//! containers of a node by the names of their entries alone; where they are missing, or know nothing of
//! a container, the state that its runtime keeps of it is read. What can't be read is not known: the
//! state of runtimes is for root and for `CAP_DAC_READ_SEARCH` only.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::unit::Unit;

/// Entries of a directory that are looked at. A node has some hundred pods at most.
const MAX_ENTRIES: usize = 1 << 14;

/// The largest file that is read, in bytes. A container's own is some 10 KiB long, Podman's list of all
/// some hundred bytes for each.
const MAX_FILE: u64 = 4 << 20;

/// kubelet's directories are listed again no sooner than this.
const LIST_EVERY: Duration = Duration::from_secs(5);

/// What a container or pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// In Kubernetes.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The container's name in its pod; none for the pod itself and the sandbox that holds it open.
        container: Option<String>,
    },
    /// In its runtime.
    Container {
        /// Its name.
        name: String,
    },
}

/// The form of a runtime's file.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// The configuration of an OCI bundle, whose annotations have the names.
    Bundle,
    /// Docker's own.
    Docker,
    /// The list of containers of the storage library that Podman and CRI-O share.
    Storage,
}

/// Where runtimes keep what, `{id}` being the container's. The first that tells a name counts.
const STATE: &[(&str, Form)] = &[
    (
        "run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json",
        Form::Bundle,
    ),
    (
        "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json",
        Form::Bundle,
    ),
    (
        "run/containers/storage/overlay-containers/{id}/userdata/config.json",
        Form::Bundle,
    ),
    (
        "var/lib/containers/storage/overlay-containers/{id}/userdata/config.json",
        Form::Bundle,
    ),
    (
        "var/lib/docker/containers/{id}/config.v2.json",
        Form::Docker,
    ),
    (
        "var/lib/containers/storage/overlay-containers/containers.json",
        Form::Storage,
    ),
    (
        "run/containerd/io.containerd.runtime.v2.task/default/{id}/config.json",
        Form::Bundle,
    ),
];

/// Annotations with namespace, pod and container: containerd's (pkg/cri/annotations) and CRI-O's
/// (which are kubelet's own, pkg/kubelet/types/labels.go).
const POD_ANNOTATIONS: &[[&str; 3]] = &[
    [
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.container-name",
    ],
    [
        "io.kubernetes.pod.namespace",
        "io.kubernetes.pod.name",
        "io.kubernetes.container.name",
    ],
];

/// Annotations with the name of a container that belongs to no pod.
const NAME_ANNOTATIONS: &[&str] = &["nerdctl/name"];

/// What dockershim, CRI-O and others call the container that holds a pod's sandbox open.
const SANDBOX: &str = "POD";

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Docker {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config", default)]
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(rename = "Labels", default)]
    labels: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// The files of a node.
#[derive(Debug)]
pub struct Node {
    root: PathBuf,
    /// When kubelet's directories were last listed.
    listed: Option<Instant>,
    /// Namespace and name of pods by uid.
    pods: HashMap<String, (String, String)>,
    /// Names of containers by id.
    containers: HashMap<String, Names>,
}

impl Node {
    /// The node whose files are below this directory: `/` but in tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            listed: None,
            pods: HashMap::new(),
            containers: HashMap::new(),
        }
    }

    /// What a unit is called, as far as somebody on this node says so.
    pub fn names(&mut self, unit: &Unit, now: Instant) -> Option<Names> {
        if !unit.has_names() {
            return None;
        }
        self.list(now);
        let id = unit.container_id();
        let by_id = id.and_then(|id| self.containers.get(id).cloned());
        // What kubelet has of a pod does not need to be read from a file.
        let by_state = || id.and_then(|id| self.state(id));
        match (unit, by_id) {
            (_, Some(names)) => Some(names),
            (Unit::Pod { uid, .. }, None) => by_state()
                .filter(|names| matches!(names, Names::Pod { .. }))
                .or_else(|| {
                    let (namespace, pod) = self.pods.get(uid)?.clone();
                    Some(Names::Pod {
                        namespace,
                        pod,
                        container: None,
                    })
                }),
            (_, None) => by_state(),
        }
    }

    /// Lists kubelet's directories, if they have not been listed of late.
    fn list(&mut self, now: Instant) {
        let is_new = |at: Instant| now.saturating_duration_since(at) < LIST_EVERY;
        if self.listed.is_some_and(is_new) {
            return;
        }
        self.listed = Some(now);
        self.pods = entries(&self.root.join("var/log/pods"))
            .filter_map(|name| {
                // NAMESPACE_POD_UID (pkg/kubelet/kuberuntime/helpers.go); none of them has an underscore.
                let mut parts = name.splitn(3, '_');
                let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
                Some((uid.to_owned(), (namespace.to_owned(), pod.to_owned())))
            })
            .collect();
        self.containers = entries(&self.root.join("var/log/containers"))
            .filter_map(|name| {
                // POD_NAMESPACE_CONTAINER-ID.log (pkg/kubelet/kuberuntime/legacy.go).
                let mut parts = name.strip_suffix(".log")?.splitn(3, '_');
                let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
                let (container, id) = rest.rsplit_once('-')?;
                let names = Names::Pod {
                    namespace: namespace.to_owned(),
                    pod: pod.to_owned(),
                    container: Some(container.to_owned()),
                };
                Some((id.to_owned(), names))
            })
            .collect();
    }

    fn state(&self, id: &str) -> Option<Names> {
        // It becomes a part of a path.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        STATE.iter().find_map(|(path, form)| {
            let (directory, below) = path.split_once("{id}").map_or_else(
                || path.rsplit_once('/').unwrap_or(("", path)),
                |(directory, _)| (directory, &path[directory.len()..]),
            );
            let below = below.replace("{id}", id);
            let bytes = read(&self.root.join(directory), Path::new(&below))?;
            names_in_state(*form, &bytes, id)
        })
    }
}

/// What a container with this id is called, by the content of a runtime's file of this form.
#[must_use]
pub fn names_in_state(form: Form, content: &[u8], id: &str) -> Option<Names> {
    match form {
        Form::Bundle => names_in(&serde_json::from_slice::<Bundle>(content).ok()?.annotations),
        Form::Docker => {
            let docker: Docker = serde_json::from_slice(content).ok()?;
            let labels = docker.config.labels.as_ref();
            labels.and_then(names_in).or_else(|| {
                let name = docker.name.trim_start_matches('/').to_owned();
                (!name.is_empty()).then_some(Names::Container { name })
            })
        }
        Form::Storage => {
            let all: Vec<Stored> = serde_json::from_slice(content).ok()?;
            let its = all.into_iter().find(|stored| stored.id == id)?;
            let name = its.names.into_iter().next()?;
            Some(Names::Container { name })
        }
    }
}

/// Names in annotations or labels.
fn names_in(annotations: &HashMap<String, String>) -> Option<Names> {
    let get = |key: &str| annotations.get(key).filter(|value| !value.is_empty());
    let pod = POD_ANNOTATIONS
        .iter()
        .find_map(|[namespace, pod, container]| {
            Some(Names::Pod {
                namespace: get(namespace)?.clone(),
                pod: get(pod)?.clone(),
                container: get(container).filter(|name| *name != SANDBOX).cloned(),
            })
        });
    pod.or_else(|| {
        let name = NAME_ANNOTATIONS.iter().find_map(|key| get(key))?.clone();
        Some(Names::Container { name })
    })
}

/// Names of what is in a directory; none if it can't be read.
fn entries(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .take(MAX_ENTRIES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// A file below a directory, unless it is huge or can't be read. Runtimes may have their directories elsewhere by a
/// link, as root has set it up; what is below belongs to a container, so no link there is followed, and nothing
/// that is no plain file is read.
fn read(directory: &Path, below: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(directory, below, flags, Mode::empty(), resolve).ok()?;
    let file = fs::File::from(file);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()? as u64;
    (read <= MAX_FILE).then_some(bytes)
}
