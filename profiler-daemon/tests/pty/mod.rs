//! The live screen on a pseudo-terminal, as a shell's user has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::common::Workload;
use crate::common::schedscope::{PATIENCE, may_load_probes};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// A shell with a terminal of its own, which runs Schedscope.
struct Session {
    master: File,
    terminal: OwnedFd,
    shell: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    before: Termios,
}

impl Session {
    /// Starts a shell script in which `$0` is the binary and `$1` this word.
    fn start(script: &str, word: &str, environment: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let name = name.to_str().expect("a path").to_owned();
        let open = || {
            let mut options = File::options();
            OwnedFd::from(
                options
                    .read(true)
                    .write(true)
                    .open(&name)
                    .expect("it opens"),
            )
        };
        let terminal = open();
        let before = tcgetattr(&terminal).expect("its settings");
        let shell = Command::new("setsid")
            .args(["--ctty", "sh", "-c", script])
            .args([env!("CARGO_BIN_EXE_schedscope"), word])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .expect("setsid(1) is there");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let session = Self {
            master,
            terminal,
            shell,
            seen,
            before,
        };
        session.resize(80, 24);
        let (mut reader, seen) = (
            session.master.try_clone().expect("dup"),
            Arc::clone(&session.seen),
        );
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A closed terminal is an error here.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                seen.lock().expect("not poisoned").extend(&buffer[..count]);
            }
        });
        session
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.master.as_fd(), size).expect("its size");
    }

    fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("it takes keys");
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("not poisoned")).into_owned()
    }

    /// Waits until something comes after the first `from` bytes of the output; returns where it ends.
    #[track_caller]
    fn wait_for(&self, from: usize, what: &str) -> usize {
        let mut place = None;
        until(what, || {
            let output = self.output();
            let rest = output.get(from..).unwrap_or_default();
            place = rest.find(what).map(|at| from + at + what.len());
            place.is_some()
        });
        place.unwrap_or(from)
    }

    /// The process that the shell runs.
    fn schedscope(&self) -> u32 {
        // Its first child is the shell, which became it from `setsid`.
        let shell = self.shell.id();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(path).expect("the kernel tells children");
        let child = children.split_whitespace().next().expect("it runs");
        child.parse().expect("a number")
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("its settings").local_modes;
        !modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO)
    }

    #[track_caller]
    fn is_as_before(&self) {
        let now = tcgetattr(&self.terminal).expect("its settings");
        assert_eq!(now.local_modes, self.before.local_modes);
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "no {what:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    after.unwrap_or('?')
}

#[test]
fn the_live_screen_shows_threads_takes_keys_and_gives_the_terminal_back() {
    if !may_load_probes("the_live_screen_shows_threads_takes_keys_and_gives_the_terminal_back") {
        return;
    }
    let workload = Workload::start("mutex", &["--duration", "60s"]).expect("any host can");
    let pid = workload.pid().to_string();
    let script = r#""$0" attach "$1" --refresh 200ms; echo "ended with $?""#;
    let mut session = Session::start(script, &pid, &[]);
    let at = session.wait_for(0, ENTER);
    assert!(session.is_raw());
    session.wait_for(at, "WAITING");
    let at = session.wait_for(at, "waiter/");
    assert!(session.output().contains(";48;5;"), "bars have colors");

    session.press("?");
    let at = session.wait_for(at, "suspend;");
    session.press("?2");
    let at = session.wait_for(at, "PROCESS");
    session.resize(120, 40);
    // With so many lines the chosen row is shown in detail.
    let at = session.wait_for(at, "Longest");

    let schedscope = session.schedscope();
    session.press("\u{1a}");
    until("stop", || state(schedscope) == 'T');
    let at = session.wait_for(at, LEAVE);
    session.is_as_before();
    let process = Pid::from_raw(schedscope.cast_signed()).expect("an id");
    kill_process(process, Signal::CONT).expect("it goes on");
    let at = session.wait_for(at, ENTER);
    let at = session.wait_for(at, "PROCESS");
    assert!(session.is_raw());

    session.press("q");
    let at = session.wait_for(at, LEAVE);
    session.wait_for(at.saturating_sub(LEAVE.len() + 20), SHOW_CURSOR);
    let at = session.wait_for(at, "Verdict:");
    let at = session.wait_for(at, "waiter");
    session.wait_for(at, "ended with 0");
    session.is_as_before();
}

#[test]
fn a_signal_ends_the_live_screen_like_a_key() {
    if !may_load_probes("a_signal_ends_the_live_screen_like_a_key") {
        return;
    }
    let script = r#""$0" top --refresh 200ms; echo "ended with $?""#;
    let session = Session::start(script, "", &[("NO_COLOR", "1")]);
    let at = session.wait_for(0, "the whole host");
    let at = session.wait_for(at, "0:0");
    // Only what changes is written.
    session.wait_for(at, "1");
    let process = Pid::from_raw(session.schedscope().cast_signed()).expect("an id");
    kill_process(process, Signal::TERM).expect("it ends");
    let at = session.wait_for(at, LEAVE);
    session.wait_for(at, "ended with 0");
    session.is_as_before();
    let output = session.output();
    assert!(!output.contains("8;5;"), "no colors with NO_COLOR");
    assert!(!output.contains("Verdict:"), "no report after top");
}

#[test]
fn lines_come_in_place_of_a_screen() {
    if !may_load_probes("lines_come_in_place_of_a_screen") {
        return;
    }
    let script = r#""$0" top --interval 200ms -d 1s; echo "ended with $?""#;
    let session = Session::start(script, "", &[]);
    let at = session.wait_for(0, "contend throttl");
    // A report follows, since no screen has shown anything.
    let at = session.wait_for(at, "Verdict:");
    session.wait_for(at, "ended with 0");
    assert!(!session.output().contains(ENTER));
}

/// Any user can go through a recording, of whatever machine.
#[test]
fn a_recording_is_gone_through_and_played() {
    if !may_load_probes("a_recording_is_gone_through_and_played") {
        return;
    }
    let workload = Workload::start("mutex", &["--duration", "60s"]).expect("any host can");
    let path = format!("{}/travel.sched", env!("CARGO_TARGET_TMPDIR"));
    let pid = workload.pid().to_string();
    let recorded = Command::new(env!("CARGO_BIN_EXE_schedscope"))
        .args(["record", "-d", "1500ms", "-o", &path, &pid])
        .output()
        .expect("it runs");
    assert!(recorded.status.success(), "{recorded:?}");
    drop(workload);

    let script = r#""$0" report --screen "$1" --tick 100ms; echo "ended with $?""#;
    let mut session = Session::start(script, &path, &[]);
    let at = session.wait_for(0, ENTER);
    let at = session.wait_for(at, "waiter/");
    let mut columns = 80;
    let mut shows = |session: &mut Session, at: usize, keys: &str, what: &str| {
        session.press(keys);
        until(what, || {
            // Only what changes is written, unless the size does; and no spaces.
            columns = 170 - columns;
            session.resize(columns, 24);
            std::thread::sleep(Duration::from_millis(200));
            session
                .output()
                .get(at..)
                .unwrap_or_default()
                .contains(what)
        });
        session.output().len()
    };
    let at = shows(&mut session, at, "$", "0:01.5");
    let at = shows(&mut session, at, "[", "0:00.5");
    let at = shows(&mut session, at, "0\u{1b}[C\u{1b}[C", "0:00.2");
    let at = shows(&mut session, at, " ", "playing");
    // It stops at the end, a second after this.
    std::thread::sleep(Duration::from_secs(2));
    let at = shows(&mut session, at, "[", "0:00.5");
    let at = shows(&mut session, at, "?", "faster");
    session.press("xq");
    let at = session.wait_for(at, LEAVE);
    session.wait_for(at, "ended with 0");
    session.is_as_before();
}

#[test]
fn without_a_terminal_a_recording_has_no_screen() {
    let output = Command::new(env!("CARGO_BIN_EXE_schedscope"))
        .args(["report", "--screen", "whatever.sched"])
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("leave it out for a report"), "{message}");
}
