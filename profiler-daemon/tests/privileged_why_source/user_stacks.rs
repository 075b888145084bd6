//! User stacks of waits, against a program whose functions are known.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use profiler_ebpf::evidence::{EvidenceRecord, NO_USER_STACK};
use schedscope::core::merge::Merger;
use schedscope::source::evidence::EvidenceTargets;
use schedscope::source::user_symbols::{Frame, UserSymbols};
use schedscope::source::{Kernel, Options};

use crate::common::not_run;
use crate::common::schedscope::may_load_probes;
use crate::support::{ALL, Recording};

/// Waits for bytes on its standard input, four calls deep. The libraries that the workloads consist of are
/// built without frame pointers; this is built with them.
const PROGRAM: &str = r"
#include <unistd.h>
__attribute__((noinline)) long inner(void) { char c; return read(0, &c, 1) + 0; }
__attribute__((noinline)) long middle(void) { return inner() * 2; }
__attribute__((noinline)) long outer(void) { return middle() + 1; }
int main(void) { while (outer() > 1) {} return 0; }
";

const USER_STACKS: Options = Options {
    user_stacks: true,
    ..ALL
};

/// Compiles the program; the reason if there is no compiler.
fn compile(name: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&source, PROGRAM).expect("the tests' directory can be written to");
    let output = Command::new("cc")
        .args(["-O0", "-fno-omit-frame-pointer", "-o"])
        .args([&program, &source])
        .args(flags)
        .output()
        .map_err(|error| format!("no C compiler `cc`: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the program compiles: {text}");
    Ok(program)
}

/// Killed when dropped.
struct Reader(Child);

impl Reader {
    fn start(program: &PathBuf) -> Self {
        let child = Command::new(program).stdin(Stdio::piped()).spawn();
        Self(child.expect("it was compiled for this machine"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends a wait, once there is one: on a busy machine that takes its time.
    fn wake(&mut self) {
        let stat = format!("/proc/{}/stat", self.pid());
        let sleeps = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !sleeps() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut input = self.0.stdin.as_ref().expect("it is a pipe");
        input.write_all(b"x").expect("the program reads");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Wakes the readers each 10 ms while it records.
fn run(kernel: &mut Kernel, readers: &mut [&mut Reader]) -> Recording {
    let mut recording = Recording::default();
    let mut merger = Merger::default();
    for _ in 0..20 {
        recording.go_on(kernel, &mut merger, Duration::from_millis(10));
        for reader in readers.iter_mut() {
            reader.wake();
        }
    }
    recording.go_on(kernel, &mut merger, Duration::from_millis(10));
    recording
}

fn of<'a>(recording: &'a Recording, reader: &Reader) -> Vec<&'a EvidenceRecord> {
    let tid = reader.pid();
    recording
        .evidence
        .iter()
        .filter(|evidence| evidence.tid == tid)
        .collect()
}

#[test]
fn the_user_stack_names_the_functions_of_the_program() {
    const TEST: &str = "the_user_stack_names_the_functions_of_the_program";
    if !may_load_probes(TEST) {
        return;
    }
    let (program, stripped) = match (compile("reader", &[]), compile("stripped-reader", &["-s"])) {
        (Ok(program), Ok(stripped)) => (program, stripped),
        (Err(reason), _) | (_, Err(reason)) => return not_run(TEST, &reason),
    };
    let mut chosen = Reader::start(&program);
    let mut other = Reader::start(&program);
    let mut nameless = Reader::start(&stripped);
    std::thread::sleep(Duration::from_millis(50));
    let mut kernel = Kernel::start(&USER_STACKS).expect("the probes load");
    assert_eq!(kernel.lacks(), &[], "all of it works on this kernel");
    kernel
        .set_evidence_targets(EvidenceTargets::Processes(&[chosen.pid(), nameless.pid()]))
        .expect("the targets can be set");
    let recording = run(&mut kernel, &mut [&mut chosen, &mut other, &mut nameless]);
    let open = kernel.open_evidence().expect("it can be read");
    assert_eq!(of(&recording, &other), Vec::<&EvidenceRecord>::new());
    let mut symbols = UserSymbols::new();
    let mut functions = |tgid, id| -> Vec<Frame> {
        let addresses = kernel.user_stack(id).expect("an id names a stack");
        symbols.frames(tgid, &addresses)
    };
    let evidence = of(&recording, &chosen);
    assert!(evidence.len() >= 15, "{} waits", evidence.len());
    let id = evidence[0].user_stack_id;
    assert!(id >= 0, "{:?}", evidence[0]);
    for evidence in &evidence {
        assert_eq!(evidence.user_stack_id, id, "it always waits there");
    }
    let frames = functions(chosen.pid(), id);
    let names: Vec<_> = frames
        .iter()
        .filter_map(|frame| frame.function.as_ref().map(|(name, _)| name.as_str()))
        .collect();
    // The C library's own function keeps no frame pointer, so it hides who called it.
    let known: Vec<_> = ["middle", "outer", "main"]
        .map(|name| names.iter().position(|found| *found == name))
        .to_vec();
    assert!(
        known.iter().all(Option::is_some) && known.is_sorted(),
        "{known:?} in {frames:?}"
    );
    assert!(names[0].contains("read"), "{frames:?}");
    println!(
        "{}",
        frames
            .iter()
            .map(Frame::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    );
    // The same of the wait that has not ended.
    let still = open.iter().find(|open| open.tid == chosen.pid());
    assert_eq!(still.expect("it waits again").user_stack_id, id);
    // Without symbols there are still the places in the file.
    let evidence = of(&recording, &nameless);
    let frames = functions(nameless.pid(), evidence[0].user_stack_id);
    let places = frames
        .iter()
        .filter(|frame| frame.to_string().starts_with("stripped-reader+0x"))
        .count();
    assert!(places >= 3, "middle, outer and main: {frames:?}");
}

#[test]
fn user_stacks_are_taken_on_request_only() {
    const TEST: &str = "user_stacks_are_taken_on_request_only";
    if !may_load_probes(TEST) {
        return;
    }
    let program = match compile("reader-not-asked", &[]) {
        Ok(program) => program,
        Err(reason) => return not_run(TEST, &reason),
    };
    let mut reader = Reader::start(&program);
    let mut kernel = Kernel::start(&ALL).expect("the probes load");
    kernel
        .set_evidence_targets(EvidenceTargets::All)
        .expect("the targets can be set");
    let recording = run(&mut kernel, &mut [&mut reader]);
    assert!(of(&recording, &reader).len() >= 15);
    for evidence in &recording.evidence {
        assert_eq!(evidence.user_stack_id, NO_USER_STACK, "{evidence:?}");
    }
    assert_eq!(kernel.user_stack(0), None);
    assert_eq!(kernel.user_stack(NO_USER_STACK), None);
}
