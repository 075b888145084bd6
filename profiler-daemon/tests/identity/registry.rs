//! Processes that start, move and end, in a made-up /proc.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use schedscope::core::Birth;
use schedscope::identity::registry::{GRACE, OTHER, Size};
use schedscope::identity::{Keeper, Known, Registry};

use crate::node::Root;

const ID: &str = "3f2a9c1d5b7e8f60112233445566778899aabbccddeeff001234567890abcdef";
const UID: &str = "7f3e1c5a-9b2d-4e8f-a1b0-c2d3e4f50617";

fn process(root: &Root, tgid: u32, name: &str, cgroup: &str) {
    root.write(&format!("proc/{tgid}/comm"), &format!("{name}\n"));
    root.write(&format!("proc/{tgid}/cgroup"), &format!("0::{cgroup}\n"));
}

fn end(root: &Root, tgid: u32) {
    fs::remove_dir_all(root.0.join(format!("proc/{tgid}"))).expect("it was there");
}

fn known(unit: &str, name: &str) -> Known {
    Known {
        unit: unit.to_owned(),
        name: name.to_owned(),
    }
}

fn birth(tgid: u32, parent_tgid: u32) -> Birth {
    Birth { tgid, parent_tgid }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_process_that_is_moved_is_found_again() {
    let root = Root::new("moved");
    let mut registry = Registry::new(&root.0);
    let start = Instant::now();
    process(&root, 7, "sh", "/system.slice/a.service");
    let a = HashMap::from([(7, known("a.service", "sh"))]);
    assert_eq!(registry.known([7, 8], start), a);
    process(&root, 7, "nginx", "/system.slice/b.service");
    assert_eq!(
        registry.known([7], start + seconds(1)),
        a,
        "not read each time"
    );
    let b = HashMap::from([(7, known("b.service", "nginx"))]);
    assert_eq!(registry.known([7], start + seconds(11)), b);
}

#[test]
fn what_ended_before_anybody_looked_has_its_parents_unit() {
    let root = Root::new("short");
    let mut registry = Registry::new(&root.0);
    let now = Instant::now();
    process(&root, 7, "make", "/system.slice/build.service");
    registry.discover(now);
    let births = [birth(8, 7), birth(9, 8), birth(10, 666)];
    registry.born(&births, now);
    registry.look_at_born(&births, now);
    let found = registry.known([7, 8, 9, 10], now);
    assert_eq!(found[&8], known("build.service", ""));
    assert_eq!(found[&9], known("build.service", ""));
    assert_eq!(found.get(&10), None);
}

#[test]
fn what_was_born_and_moved_at_once_has_its_own_unit() {
    let root = Root::new("born");
    let mut registry = Registry::new(&root.0);
    let now = Instant::now();
    process(&root, 7, "systemd", "/init.scope");
    registry.discover(now);
    process(&root, 8, "nginx", "/system.slice/nginx.service");
    let births = [birth(8, 7)];
    registry.born(&births, now);
    registry.look_at_born(&births, now);
    end(&root, 8);
    assert_eq!(registry.known([8], now)[&8].unit, "nginx.service");
}

#[test]
fn an_id_that_is_used_again_means_the_new_process() {
    let root = Root::new("reused");
    let mut registry = Registry::new(&root.0);
    let start = Instant::now();
    process(&root, 1, "init", "/init.scope");
    process(&root, 7, "old", "/system.slice/old.service");
    registry.discover(start);
    assert_eq!(registry.known([7], start)[&7].unit, "old.service");
    // Told: at once.
    end(&root, 7);
    let later = start + seconds(30);
    registry.born(&[birth(7, 1)], later);
    assert_eq!(registry.known([7], later)[&7], known("init.scope", ""));
    // Not told, since records were lost: when the processes are next looked through.
    let later = later + seconds(90);
    process(&root, 7, "new", "/system.slice/new.service");
    registry.sweep(later);
    registry.sweep(later + seconds(61));
    let found = registry.known([7], later + seconds(61));
    assert_eq!(found[&7], known("new.service", "new"));
}

#[test]
fn news_that_come_late_take_nothing_back() {
    let root = Root::new("late");
    let mut registry = Registry::new(&root.0);
    let now = Instant::now();
    process(&root, 7, "systemd", "/init.scope");
    registry.discover(now);
    process(&root, 8, "job", "/system.slice/job.service");
    assert_eq!(registry.known([8], now)[&8].unit, "job.service");
    end(&root, 8);
    let births = [birth(8, 7)];
    registry.born(&births, now + seconds(2));
    registry.look_at_born(&births, now + seconds(2));
    assert_eq!(
        registry.known([8], now + seconds(2))[&8].unit,
        "job.service"
    );
}

#[test]
fn what_has_gone_is_forgotten_after_the_grace_time() {
    let root = Root::new("gone");
    let mut registry = Registry::new(&root.0);
    let start = Instant::now();
    for tgid in 1..=100 {
        process(&root, tgid, "x", &format!("/system.slice/s{tgid}.service"));
    }
    registry.discover(start);
    registry.sweep(start);
    let full = Size {
        processes: 100,
        ended: 0,
        cgroups: 100,
    };
    assert_eq!(registry.size(), full);
    for tgid in 2..=100 {
        end(&root, tgid);
    }
    registry.sweep(start + seconds(61));
    assert_eq!(registry.size(), Size { ended: 99, ..full });
    let asked = registry.known([50], start + seconds(62));
    assert_eq!(asked[&50].unit, "s50.service", "within the grace time");
    registry.sweep(start + seconds(62) + GRACE);
    assert_eq!(
        registry.size(),
        Size {
            processes: 1,
            ended: 0,
            cgroups: 1
        }
    );
    assert_eq!(
        registry.known([50], start + seconds(63) + GRACE),
        HashMap::new()
    );
}

#[test]
fn names_come_when_they_are_there_and_stay() {
    let root = Root::new("names");
    let mut registry = Registry::new(&root.0);
    let start = Instant::now();
    process(
        &root,
        7,
        "app",
        &format!("/kubepods/burstable/pod{UID}/{ID}"),
    );
    let mut unit = |after| registry.known([7], start + seconds(after))[&7].unit.clone();
    assert_eq!(unit(0), format!("pod:{UID}"));
    root.write(&format!("var/log/containers/cart-0_shop_app-{ID}.log"), "");
    assert_eq!(unit(1), format!("pod:{UID}"), "not looked for each time");
    assert_eq!(unit(6), "shop/cart-0/app");
    fs::remove_dir_all(root.0.join("var")).expect("it was written");
    assert_eq!(unit(600), "shop/cart-0/app");
}

#[test]
fn what_there_is_no_room_for_is_among_the_others() {
    let root = Root::new("many");
    for tgid in 1..=5 {
        process(&root, tgid, "x", &format!("/s{tgid}.service"));
    }
    let room = Size {
        processes: 4,
        ended: 0,
        cgroups: 3,
    };
    let mut registry = Registry::bounded(&root.0, room);
    let start = Instant::now();
    let found = registry.known(1..=5, start);
    assert_eq!(found[&3].unit, "s3.service");
    assert_eq!(found[&4].unit, OTHER);
    assert_eq!(found.get(&5), None);
    assert_eq!(registry.size(), room);
    registry.born(&[birth(6, 1)], start);
    assert_eq!(registry.size(), room);
    // As soon as others have gone there is room; where there is none there is no grace either.
    end(&root, 1);
    end(&root, 2);
    registry.sweep(start + seconds(11));
    let found = registry.known(4..=5, start + seconds(11));
    assert_eq!(found[&4].unit, "s4.service");
    assert_eq!(found[&5].unit, "s5.service");
}

/// Where many come and go, those that ended last are known longest, and nothing grows.
#[test]
fn those_that_ended_first_make_room() {
    let root = Root::new("churn");
    let most = Size {
        processes: 1_000,
        ended: 20,
        cgroups: 1_000,
    };
    let mut registry = Registry::bounded(&root.0, most);
    let start = Instant::now();
    process(&root, 1, "init", "/init.scope");
    registry.discover(start);
    let mut tgid = 1;
    for round in 0..12 {
        let now = start + seconds(11 * round);
        let births: Vec<_> = (0..50).map(|number| birth(tgid + 1 + number, 1)).collect();
        for _ in 0..50 {
            tgid += 1;
            process(&root, tgid, "x", &format!("/system.slice/s{tgid}.service"));
        }
        registry.born(&births, now);
        registry.look_at_born(&births, now);
        for ended in tgid - 49..=tgid {
            end(&root, ended);
        }
        registry.sweep(now);
        let size = registry.size();
        assert!(size.ended <= most.ended, "{size:?} in round {round}");
        assert!(size.processes <= 1 + 20 + 50, "{size:?} in round {round}");
        assert!(size.cgroups <= size.processes, "{size:?} in round {round}");
    }
    assert_eq!(registry.size().ended, 20);
    let known = registry.known(tgid - 49..=tgid, start + seconds(200));
    assert_eq!(known.len(), 20, "of those that ended last");
}

/// The real host: its own process, its parent's, and one that does not exist.
#[test]
fn the_keeper_knows_this_process() {
    let keeper = Keeper::start(Registry::default()).expect("a thread can be started");
    let own = std::process::id();
    keeper.tell(vec![birth(own, 1)]);
    let found = keeper
        .known_now(vec![own, u32::MAX])
        .expect("the keeper lives");
    assert_eq!(found.len(), 1, "{found:?}");
    let name = fs::read_to_string("/proc/self/comm").expect("procfs is mounted");
    assert_eq!(found[&own].name, name.trim_end());
    assert!(!found[&own].unit.is_empty());
}
