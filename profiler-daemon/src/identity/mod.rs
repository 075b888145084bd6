//! Whom a process belongs to: a systemd unit, a container, or a Kubernetes pod and container.
//!
//! In the order of the flow:
//!
//! * [`hierarchy`]: the text of a `/proc/PID/cgroup` to the paths in it, of any version and of both.
//! * [`rules`]: a path to a [`Unit`], by a table of how managers name cgroups. Both are pure.
//! * [`names`]: ids of containers and pods to names, from what kubelet and the runtimes keep on disk.
//! * [`selection`]: which processes are meant by the name of a unit, a control group or a container.
//! * [`registry`]: what is known of the processes of this host, kept current, keyed by cgroup.
//! * [`places`]: numbers for units, by which the core books.
//! * [`keeper`]: the thread that has the registry, since files may take long to read.

pub mod hierarchy;
pub mod keeper;
pub mod names;
pub mod places;
pub mod registry;
pub mod rules;
pub mod selection;
pub mod unit;

pub use keeper::{Keeper, KeeperGone};
pub use registry::{Known, Registry};
pub use selection::Selection;
pub use unit::{Runtime, Unit};
