//! Which processes belong to a unit, a control group or a container, as somebody names it.

use wildmatch::WildMatch;

use super::hierarchy::paths;
use super::unit::Unit;

/// How processes are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// Those of units whose label fits, see [`Unit::label`].
    Unit(WildMatch),
    /// Those in this control group or below, whatever hierarchy it is in: its path with a leading slash.
    Cgroup(String),
    /// Those of containers with this name, or an id that begins so.
    Container(String),
}

impl Selection {
    /// By the name of a unit; `*` and `?` stand for anything and for one character.
    #[must_use]
    pub fn unit(glob: &str) -> Self {
        Self::Unit(WildMatch::new(glob))
    }

    /// By the path of a control group from the root of its hierarchy.
    #[must_use]
    pub fn cgroup(path: &str) -> Self {
        Self::Cgroup(format!("/{}", path.trim_matches('/')))
    }

    /// Whether a process belongs to it whose `/proc/PID/cgroup` has this text, which means this unit with
    /// this label.
    #[must_use]
    pub fn takes(&self, text: &str, unit: &Unit, label: &str) -> bool {
        match self {
            Self::Unit(glob) => unit_names(label).any(|name| glob.matches(name)),
            Self::Cgroup(wanted) => paths(text).any(|path| is_within(path.path, wanted)),
            Self::Container(wanted) => {
                let Some(id) = unit.container_id() else {
                    return false;
                };
                !wanted.is_empty()
                    && (id.starts_with(wanted.as_str()) || container_name(label) == wanted)
            }
        }
    }
}

/// What a unit can be called: its label, or that without `.service`, without the part of a pod's
/// container, or without the runtime of a container.
fn unit_names(label: &str) -> impl Iterator<Item = &str> {
    let is_pod = label.matches('/').count() == 2 && !label.starts_with('/');
    let pod = label.rsplit_once('/').filter(|_| is_pod);
    [
        Some(label),
        label.strip_suffix(".service"),
        pod.map(|(pod, _)| pod),
        label.split_once(':').map(|(_, name)| name),
    ]
    .into_iter()
    .flatten()
}

/// The name of a container, from `docker:NAME` or `NAMESPACE/POD/NAME`.
/// The name of a container, or its id, from the label of its unit.
#[must_use]
pub fn container_name(label: &str) -> &str {
    let after_slash = label.rsplit('/').next().unwrap_or(label);
    match after_slash.split_once(':') {
        Some((_, name)) => name,
        None => after_slash,
    }
}

fn is_within(path: &str, group: &str) -> bool {
    group == "/"
        || path
            .strip_prefix(group)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::Selection;
    use crate::identity::hierarchy::unit_of;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn check(selection: &Selection, text: &str, label: Option<&str>, takes: bool) {
        let unit = unit_of(text);
        let label = label.map_or_else(|| unit.label(None), str::to_owned);
        assert_eq!(selection.takes(text, &unit, &label), takes, "{text:?}");
    }

    #[test]
    fn units_by_their_labels() {
        let nginx = "0::/system.slice/nginx.service\n";
        check(&Selection::unit("nginx.service"), nginx, None, true);
        check(&Selection::unit("nginx"), nginx, None, true);
        check(&Selection::unit("ng*"), nginx, None, true);
        check(&Selection::unit("system.slice"), nginx, None, false);
        let docker = format!("0::/system.slice/docker-{ID}.scope\n");
        check(&Selection::unit("shop"), &docker, Some("docker:shop"), true);
        let pod = Some("prod/shop-1/web");
        check(&Selection::unit("prod/shop-*"), &docker, pod, true);
        check(&Selection::unit("prod/shop-1"), &docker, pod, true);
        check(&Selection::unit("shop-1"), &docker, pod, false);
    }

    #[test]
    fn control_groups_by_their_paths_in_any_hierarchy() {
        let text = "4:cpu,cpuacct:/batch/night\n1:name=systemd:/system.slice/cron.service\n";
        for path in ["/batch", "batch/", "batch/night", "/"] {
            check(&Selection::cgroup(path), text, None, true);
        }
        check(&Selection::cgroup("/system.slice"), text, None, true);
        for path in ["/bat", "/batch/night/x"] {
            check(&Selection::cgroup(path), text, None, false);
        }
    }

    #[test]
    fn containers_by_name_or_the_beginning_of_the_id() {
        let text = format!("0::/system.slice/docker-{ID}.scope\n");
        let named = Some("docker:shop");
        for wanted in ["0123456789ab", ID, "shop"] {
            let wanted = Selection::Container(wanted.to_owned());
            check(&wanted, &text, named, true);
        }
        for wanted in ["", "sho", "123456"] {
            let wanted = Selection::Container(wanted.to_owned());
            check(&wanted, &text, named, false);
        }
        let web = Selection::Container("web".to_owned());
        check(&web, &text, Some("prod/shop-1/web"), true);
        check(&web, "0::/system.slice/web.service\n", None, false);
    }
}
