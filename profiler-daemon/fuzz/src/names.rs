//! Any text where the kernel, kubelet or a runtime names something: files of /proc, paths of cgroups, states of
//! containers. Users can choose much of it, and labels are made from it.

use schedscope::identity::hierarchy::{paths, unit_of};
use schedscope::identity::names::{Form, names_in_state};
use schedscope::identity::selection::{Selection, container_name};
use schedscope::identity::unit::{MAX_LABEL_CHARS, clean};
use schedscope::source::procfs::{Books, tgid_in, thread_record};
use schedscope::source::symbols::Symbols;

use super::bytes::Bytes;

/// Takes the bytes as such a text; the first one says what of.
///
/// # Panics
///
/// If reading it does, or if a label is not safe to show.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let which = bytes.below(8);
    let rest = bytes.0;
    let text = String::from_utf8_lossy(rest);
    match which {
        0..=2 => cgroup(&text),
        3 => {
            let (stat, schedstat) = rest.split_at(rest.len().saturating_sub(12));
            let thread = thread_record(stat, schedstat, 7, 7);
            if let Some(thread) = thread {
                assert_eq!((thread.tid, thread.comm[15]), (7, 0));
            }
        }
        4 => {
            let _ = (Books::parse(&text), tgid_in(&text));
        }
        5 => symbols(rest),
        _ => state(rest),
    }
    let _ = clean(&text);
}

fn cgroup(text: &str) {
    let unit = unit_of(text);
    let label = unit.label(None);
    check_label(&label);
    assert!(!label.is_empty());
    let _ = container_name(&label);
    assert!(unit.says() == 0 || paths(text).count() > 0);
    for selection in [
        Selection::unit(&label),
        Selection::cgroup("/a"),
        Selection::Container("a".to_owned()),
    ] {
        let _ = selection.takes(text, &unit, &label);
    }
    for path in paths(text) {
        assert!(
            Selection::cgroup("/").takes(text, &unit, &label),
            "{path:?}"
        );
    }
}

fn state(content: &[u8]) {
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for form in [Form::Bundle, Form::Docker, Form::Storage] {
        let Some(names) = names_in_state(form, content, id) else {
            continue;
        };
        let unit = unit_of(&format!("0::/docker/{id}"));
        check_label(&unit.label(Some(&names)));
    }
}

fn symbols(list: &[u8]) {
    // What is no text is an error, as the kernel has none.
    let Ok(symbols) = Symbols::parse(list) else {
        return;
    };
    for address in [0, 1, 0xffff_ffff_8100_0000, u64::MAX] {
        let name = symbols.name(address);
        assert!(name.is_none() || !symbols.is_empty());
    }
}

fn check_label(label: &str) {
    assert!(label.chars().count() <= MAX_LABEL_CHARS, "{label:?}");
    assert!(!label.contains(char::is_control), "{label:?}");
}
