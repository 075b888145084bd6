//! What the tests of waits share: what the probes wrote while a workload ran.

use std::time::{Duration, Instant};

use profiler_ebpf::evidence::EvidenceRecord;
use profiler_ebpf::{Switch, Waking, switch_flags};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use schedscope::core::decode::Event;
use schedscope::core::merge::Merger;
use schedscope::source::evidence::EvidenceTargets;
use schedscope::source::{ClockChoice, Kernel, Options};

use crate::common::{Workload, not_run};

/// Everything on.
pub(super) const ALL: Options = Options {
    ring_records: 64 * 1024,
    wakeups: true,
    clock: ClockChoice::Auto,
    syscalls: true,
    wakers: true,
    throttling: true,
    stacks: Some(0),
    user_stacks: false,
};

/// All that came while a workload ran, in the order of time.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) events: Vec<Event>,
    pub(super) evidence: Vec<EvidenceRecord>,
}

impl Recording {
    /// Drains until this time has gone by, with the priority that the daemon's drain thread has: what
    /// else the machine does must not lose records. Workloads are started in between, at the normal one.
    pub(super) fn go_on(&mut self, kernel: &mut Kernel, merger: &mut Merger, span: Duration) {
        setpriority_process(Some(gettid()), -20).expect("root may");
        self.drain(kernel, merger, span);
        setpriority_process(Some(gettid()), 0).expect("root may");
    }

    fn drain(&mut self, kernel: &mut Kernel, merger: &mut Merger, span: Duration) {
        let end = Instant::now() + span;
        loop {
            let is_last = Instant::now() >= end;
            let watermark_ns = if is_last {
                u64::MAX
            } else {
                kernel.now_ns().saturating_sub(20_000_000)
            };
            kernel.drain_with_evidence(|streams, evidence| {
                self.evidence.extend_from_slice(evidence);
                merger.merge(streams, watermark_ns, |_, raw| {
                    self.events
                        .push(Event::decode(raw).expect("the probes write known kinds"));
                })
            });
            if is_last {
                assert_eq!(kernel.losses().total(), 0, "{:?}", kernel.losses());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.events.iter().filter_map(|event| match event {
            Event::Switch(record) => Some(record),
            _ => None,
        })
    }

    /// The waits of a thread: the switch-out, and when it came in again.
    pub(super) fn waits(&self, tid: u32) -> Vec<(Switch, Switch)> {
        let mut left = None;
        let mut waits = Vec::new();
        for switch in self.switches() {
            if switch.next_tid == tid {
                waits.extend(left.take().map(|out| (out, *switch)));
            } else if switch.prev_tid == tid {
                let blocks = switch.flags & switch_flags::PREEMPT == 0 && switch.prev_state != 0;
                left = blocks.then_some(*switch);
            }
        }
        waits
    }

    pub(super) fn wakings(&self, tid: u32) -> impl Iterator<Item = &Waking> {
        self.events.iter().filter_map(move |event| match event {
            Event::Waking(record) if record.tid == tid => Some(record),
            _ => None,
        })
    }
}

/// Records a workload for most of a second; `None` with a note if the host can't do it.
pub(super) fn record(
    test: &str,
    workload: &str,
    arguments: &[&str],
    options: &Options,
) -> Option<(Workload, Recording)> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--duration", "20s"]);
    let running = match Workload::start(workload, &arguments) {
        Ok(running) => running,
        Err(reason) => {
            not_run(test, &reason);
            return None;
        }
    };
    let mut kernel = Kernel::start(options).expect("the probes load");
    assert_eq!(kernel.lacks(), &[], "all of it works on this kernel");
    kernel
        .set_evidence_targets(EvidenceTargets::All)
        .expect("the targets can be set");
    let mut recording = Recording::default();
    recording.go_on(
        &mut kernel,
        &mut Merger::default(),
        Duration::from_millis(900),
    );
    Some((running, recording))
}
