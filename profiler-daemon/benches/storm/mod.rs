//! A host that does nothing but switch, and the records that the probes would write of it.
//!
//! A small scheduler, always the same for the same setting: each CPU has a run queue and threads that
//! sleep. Who runs wakes a sleeper and goes to sleep itself, or is preempted. The kernel's own figures
//! (the count of runs, the cumulative delay) go along, so that the core takes the way that it takes on
//! a real host, without doubts or conflicts.

#![allow(dead_code, reason = "each program that has it uses a part of it")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use profiler_ebpf::{
    Fork, Migrate, RawRecord, Switch, Wakeup, Waking, switch_flags, waker_context,
};
use schedscope::core::Stream;
use schedscope::core::decode::Event;

/// `futex` on x86-64.
const SYSCALL: u16 = 202;
/// From the first look at a CPU to its first switch.
const START_NS: u64 = 1_000;
/// From the wakeup of who sleeps to the switch of who woke it, and from the wakeup to an idle CPU's switch.
const WAKE_NS: u64 = 150;
const IDLE_EXIT_NS: u64 = 2_500;
const FIRST_TID: u32 = 1_000;
/// Threads of one process.
const PROCESS: u32 = 8;

/// What the host is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) cpus: u32,
    pub(crate) threads: u32,
    /// Whether wakeups are recorded: the service does without where the kernel stamps what it enqueues.
    pub(crate) wakeups: bool,
    /// Whether wakings and migrations are recorded, too.
    pub(crate) wakers: bool,
    /// CPUs that idle, preemptions and wakeups across CPUs; otherwise each turn is a wakeup and a switch
    /// to who was woken, as fast as can be, on each CPU for itself.
    pub(crate) mixed: bool,
}

/// A part of the history.
pub(crate) struct Chunk {
    /// The records of each CPU.
    pub(crate) cpus: Vec<Vec<RawRecord>>,
    /// Nothing older follows.
    pub(crate) watermark_ns: u64,
}

impl Chunk {
    pub(crate) fn streams(&self) -> Vec<Stream<'_>> {
        self.cpus.iter().map(|its| Stream::new(its)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.cpus.iter().map(Vec::len).sum()
    }
}

#[derive(Clone, Copy, Default)]
struct Thread {
    enqueued_ns: u64,
    delay_ns: u64,
    runs: u64,
    cpu: u32,
}

/// What a CPU does at its next moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Wake,
    Switch,
}

struct Cpu {
    running: Option<u32>,
    queue: VecDeque<u32>,
    sleepers: VecDeque<u32>,
    next: Next,
    due_ns: u64,
    /// Its threads have all run once.
    is_settled: bool,
}

/// The host.
pub(crate) struct Storm {
    setting: Setting,
    threads: Vec<Thread>,
    cpus: Vec<Cpu>,
    /// When each CPU does something next. What is not [`Cpu::due_ns`] any more is passed over.
    agenda: BinaryHeap<Reverse<(u64, u32)>>,
    random: u64,
    switches: u64,
}

fn tid(thread: u32) -> u32 {
    FIRST_TID + thread
}

fn low_bits(count: u64) -> u16 {
    (count & 0xffff) as u16
}

impl Storm {
    pub(crate) fn new(setting: Setting) -> Self {
        let mut this = Self {
            setting,
            threads: vec![Thread::default(); setting.threads as usize],
            cpus: Vec::new(),
            agenda: BinaryHeap::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            switches: 0,
        };
        for number in 0..setting.cpus {
            let its = number..setting.threads;
            let mut cpu = Cpu {
                running: None,
                queue: its.step_by(setting.cpus as usize).collect(),
                sleepers: VecDeque::new(),
                next: Next::Switch,
                due_ns: 0,
                is_settled: false,
            };
            for &thread in &cpu.queue {
                this.threads[thread as usize].cpu = number;
                this.threads[thread as usize].enqueued_ns = START_NS / 2;
            }
            cpu.due_ns = START_NS + this.below(1_000);
            this.agenda.push(Reverse((cpu.due_ns, number)));
            this.cpus.push(cpu);
        }
        this
    }

    /// The births of all threads, on the first CPU, and up to when they are.
    pub(crate) fn births(&self) -> Chunk {
        let birth = |number: u32| {
            let leader = number - number % PROCESS;
            Event::Fork(Fork {
                ts_ns: START_NS / 2,
                start_ns: u64::from(number) + 1,
                tid: tid(number),
                tgid: tid(leader),
                parent_tid: if number == leader { 1 } else { tid(leader) },
                cpu: u16::try_from(self.threads[number as usize].cpu).unwrap_or(0),
                ..Fork::default()
            })
            .encode()
        };
        let mut cpus = vec![Vec::new(); self.cpus.len()];
        if let Some(first) = cpus.first_mut() {
            *first = (0..self.setting.threads).map(birth).collect();
        }
        Chunk {
            cpus,
            watermark_ns: START_NS - 1,
        }
    }

    /// Whether every thread has run, so that what follows is always alike.
    pub(crate) fn is_settled(&self) -> bool {
        self.cpus.iter().all(|cpu| cpu.is_settled)
    }

    /// Goes on for so many switches.
    pub(crate) fn run(&mut self, switches: u64) -> Chunk {
        let mut cpus = vec![Vec::new(); self.cpus.len()];
        let end = self.switches + switches;
        let mut last_ns = 0;
        // What happens at the same time belongs to the same part.
        while let Some(&Reverse((now_ns, number))) = self.agenda.peek()
            && (self.switches < end || now_ns == last_ns)
        {
            self.agenda.pop();
            last_ns = now_ns;
            let (cpu, place) = (number as usize, number);
            if self.cpus[cpu].due_ns != now_ns {
                continue;
            }
            let (next, wait_ns) = match self.cpus[cpu].next {
                Next::Wake => self.wake(place, now_ns, &mut cpus[cpu]),
                Next::Switch => self.switch(place, now_ns, &mut cpus[cpu]),
            };
            self.plan(place, next, now_ns + wait_ns);
        }
        let next_ns = self.cpus.iter().map(|cpu| cpu.due_ns).min().unwrap_or(1);
        Chunk {
            cpus,
            watermark_ns: next_ns - 1,
        }
    }

    fn plan(&mut self, cpu: u32, next: Next, due_ns: u64) {
        let its = &mut self.cpus[cpu as usize];
        its.next = next;
        its.due_ns = due_ns;
        self.agenda.push(Reverse((due_ns, cpu)));
    }

    /// Who runs, or an idle CPU's timer, wakes a sleeper.
    fn wake(&mut self, cpu: u32, now_ns: u64, records: &mut Vec<RawRecord>) -> (Next, u64) {
        let its = &self.cpus[cpu as usize];
        let waker = its.running;
        let is_idle = waker.is_none();
        let wakes = !self.setting.mixed || is_idle || self.below(16) < 13;
        let sleeper = if wakes {
            self.cpus[cpu as usize].sleepers.pop_front()
        } else {
            None
        };
        let Some(sleeper) = sleeper else {
            // A thread that finds nobody to wake goes to sleep; an idle CPU looks again later.
            return if is_idle {
                (Next::Wake, 10 * IDLE_EXIT_NS)
            } else {
                (Next::Switch, WAKE_NS)
            };
        };
        let goes_away = self.setting.mixed && !is_idle && self.below(8) == 0;
        let target = if goes_away {
            u32::try_from(self.below(u64::from(self.setting.cpus))).unwrap_or(cpu)
        } else {
            cpu
        };
        let thread = &mut self.threads[sleeper as usize];
        let (runs, from_cpu) = (low_bits(thread.runs), thread.cpu);
        thread.enqueued_ns = now_ns;
        thread.cpu = target;
        if self.setting.wakers {
            let waking = Waking {
                ts_ns: now_ns,
                tid: tid(sleeper),
                waker_tid: waker.map_or(0, tid),
                runs,
                context: if is_idle {
                    waker_context::TIMER
                } else {
                    waker_context::THREAD
                },
                ..Waking::default()
            };
            records.push(Event::Waking(waking).encode());
            if from_cpu != target {
                let migrate = Migrate {
                    ts_ns: now_ns,
                    tid: tid(sleeper),
                    from_cpu,
                    to_cpu: target,
                    runs,
                    ..Migrate::default()
                };
                records.push(Event::Migrate(migrate).encode());
            }
        }
        if self.setting.wakeups {
            let wakeup = Wakeup {
                ts_ns: now_ns,
                tid: tid(sleeper),
                cpu: target,
                ..Wakeup::default()
            };
            records.push(Event::Wakeup(wakeup).encode());
        }
        let there = &mut self.cpus[target as usize];
        let was_idle = there.running.is_none() && there.queue.is_empty();
        there.queue.push_back(sleeper);
        if target != cpu && was_idle {
            self.plan(target, Next::Switch, now_ns + IDLE_EXIT_NS);
        }
        if is_idle {
            (Next::Switch, IDLE_EXIT_NS)
        } else {
            (Next::Switch, WAKE_NS)
        }
    }

    fn switch(&mut self, cpu: u32, now_ns: u64, records: &mut Vec<RawRecord>) -> (Next, u64) {
        let is_preempted = self.setting.mixed && self.below(16) < 2;
        let run_ns = if self.setting.mixed {
            300 + self.below(2_400)
        } else {
            1_350
        };
        let its = &mut self.cpus[cpu as usize];
        let prev = its.running;
        let next = its.queue.pop_front();
        its.is_settled |= next.is_none() || its.queue.is_empty();
        let mut record = Switch {
            ts_ns: now_ns,
            prev_tid: prev.map_or(0, tid),
            next_tid: next.map_or(0, tid),
            ..Switch::default()
        };
        if let Some(prev) = prev {
            record.prev_syscall = SYSCALL;
            record.flags |= switch_flags::PREV_SYSCALL;
            if is_preempted && next.is_some() && its.is_settled {
                record.flags |= switch_flags::PREEMPT;
                its.queue.push_back(prev);
                self.threads[prev as usize].enqueued_ns = now_ns;
            } else {
                record.prev_state = 1;
                its.sleepers.push_back(prev);
            }
        }
        if let Some(next) = next {
            let thread = &mut self.threads[next as usize];
            thread.delay_ns += now_ns - thread.enqueued_ns;
            record.flags |= switch_flags::NEXT_COUNTED | switch_flags::NEXT_STAMPED;
            record.next_delay_ns = thread.delay_ns;
            record.next_runs = low_bits(thread.runs);
            thread.runs += 1;
        }
        its.running = next;
        if prev.is_some() || next.is_some() {
            records.push(Event::Switch(record).encode());
        }
        self.switches += 1;
        match next {
            // At first everybody runs once.
            Some(_) if !self.cpus[cpu as usize].is_settled => (Next::Switch, run_ns),
            Some(_) => (Next::Wake, run_ns),
            None => (Next::Wake, 2 * IDLE_EXIT_NS),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % bound
    }
}
