//! A scheduler that does legal things at random, knows the exact truth of what it did, and writes the
//! records that the probes would write.
//!
//! It keeps the kernel's own figures as `kernel/sched/stats.h` does (`sched_info`): the enqueue stamp,
//! the cumulative run-queue delay, and the count of runs. Its quirks are there too: a thread that is
//! preempted on its way to sleep is not stamped, and whether such a run is counted depends on the
//! kernel's version.
//!
//! * [`Machine`]: what happens, step by step; every step is recorded and remembered.
//! * [`truth`]: what a thread did in a window, from what is remembered.
//! * [`feed`]: gives the records to a core, in pieces.
//! * `interrupts`: the time that they take from whoever has a CPU.
//! * [`shed`]: leaves out threads as the probes and the daemon do under overload.
//! * [`checks`]: what holds of figures whatever was lost.
//! * [`faults`]: loses, repeats, shifts and spoils records.

#![allow(dead_code, reason = "each test crate and benchmark uses a part of it")]

pub(crate) mod checks;
pub(crate) mod faults;
pub(crate) mod feed;
mod interrupts;
mod records;
mod setting;
pub(crate) mod shed;
mod task;
pub(crate) mod truth;

use interrupts::Interrupts;
use records::{comm, low_bits, number, renamed};
pub(crate) use setting::{Config, Kernel, Random};
pub(crate) use task::{Change, Doing, TaskState, Written};

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use profiler_ebpf::{
    Exec, Fork, Migrate, RawRecord, Switch, ThreadRecord, Wakeup, switch_flags, thread_flags,
};
use schedscope::core::decode::Event;

/// State words in which a thread goes to sleep, as seen on real kernels.
pub(crate) const WAITS: [u16; 7] = [0x1, 0x2001, 0x2, 0x102, 0x402, 0x104, 0x8];

/// The state word of a thread's last switch.
pub(crate) const DEAD: u16 = 0x80;

/// Start of a thread in boot time, from its start in the records' time.
const BOOT_OFFSET_NS: u64 = 7_000_000_000;

/// A thread's place in [`Machine::tasks`]; unlike its id it never changes.
pub(crate) type Task = usize;

/// The machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) random: Random,
    pub(crate) now_ns: u64,
    pub(crate) tasks: Vec<TaskState>,
    running: Vec<Option<Task>>,
    /// Per CPU.
    queues: Vec<Vec<Task>>,
    blocked: Vec<Task>,
    /// Tasks that are not dead.
    alive: Vec<Task>,
    used_tids: BTreeSet<u32>,
    last_tid: u32,
    /// Per CPU.
    pub(crate) interrupts: Vec<Interrupts>,
    /// Records are written from now on.
    pub(crate) is_attached: bool,
    pub(crate) attached_ns: u64,
    /// The records so far don't tell yet which threads there are. No names or ids change now: what
    /// becomes of those that do is shown case by case.
    pub(crate) is_starting: bool,
    /// A stream a CPU, and one for renames and execs.
    pub(crate) streams: Vec<Vec<Written>>,
}

impl Machine {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        let mut this = Self {
            config,
            random: Random::new(seed),
            now_ns: 1_000_000,
            tasks: Vec::new(),
            running: vec![None; config.cpus],
            queues: vec![Vec::new(); config.cpus],
            blocked: Vec::new(),
            alive: Vec::new(),
            used_tids: BTreeSet::new(),
            last_tid: 0,
            interrupts: vec![Interrupts::default(); config.cpus],
            is_attached: false,
            attached_ns: 0,
            is_starting: false,
            streams: vec![Vec::new(); config.cpus + 1],
        };
        for number in 0..config.threads {
            let leader = (config.groups && number % 4 != 0)
                .then(|| this.tasks.len() - usize::try_from(number % 4).expect("small"));
            let name = comm(&mut this.random);
            let task = this.create(leader, name);
            // Kernels that count have counted for a long time.
            this.tasks[task].runs = this.random.next() >> 20;
            this.tasks[task].run_delay = this.random.next() >> 20;
        }
        this
    }

    /// Lets something happen.
    pub(crate) fn step(&mut self) {
        self.now_ns += 1 + self.random.below(self.config.max_step_ns);
        match self.random.below(100) {
            0..58 => {
                let cpu = self.random.place(self.config.cpus);
                self.schedule(cpu);
            }
            58..82 => {
                if let Some(task) = self.random.pick(&self.blocked) {
                    self.wake(task);
                    self.preempt_at_once(task);
                }
            }
            82..85 => self.wake_in_vain(),
            85..90 => self.migrate(),
            90..95 if self.config.lives => {
                let parent = self.pick_running();
                // While the records don't tell who is who, nobody can know a parent's name.
                if let Some(parent) = parent
                    && (!self.is_starting || self.tasks[parent].was_switched)
                {
                    self.fork(parent);
                }
            }
            95..97 if self.config.lives && !self.is_starting => self.rename(),
            97..100 if self.config.lives && !self.is_starting => self.exec(),
            _ => {}
        }
    }

    pub(crate) fn steps(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Writes records from now on.
    pub(crate) fn attach(&mut self) {
        self.is_attached = true;
        self.is_starting = true;
        self.attached_ns = self.now_ns;
    }

    /// The task iterator goes over all threads, while things happen. Gives what it found and when it
    /// began and ended.
    pub(crate) fn pass(&mut self) -> (Vec<ThreadRecord>, RangeInclusive<u64>) {
        let begin_ns = self.now_ns;
        let mut found = Vec::new();
        let mut place = 0;
        // Those that are born meanwhile come last, and are read or not.
        let first = self.tasks.len();
        while place < first || (place < self.tasks.len() && !self.random.one_in(2)) {
            // A thread that was preempted on its way to sleep looks as if it slept; nothing tells.
            let is_misleading = |task: &TaskState| task.doing == Doing::Queued && task.word != 0;
            while is_misleading(&self.tasks[place]) {
                self.step();
            }
            if !self.tasks[place].is_released {
                found.push(self.read(place));
            }
            place += 1;
            for _ in 0..self.random.below(3) {
                self.step();
            }
        }
        self.now_ns += 1;
        (found, begin_ns..=self.now_ns)
    }

    fn read(&mut self, task: Task) -> ThreadRecord {
        let parent = self.tasks[self.tasks[task].leader].tgid;
        let state = &mut self.tasks[task];
        let (word, flags) = match state.doing {
            Doing::Running => (0, thread_flags::ON_CPU),
            Doing::Queued => (0, 0),
            Doing::Blocked => (state.word, 0),
            Doing::Dead => (DEAD | 0x20, 0),
        };
        if self.is_starting {
            let has_entered = state.changes.iter().any(|&(ts_ns, change)| {
                ts_ns > self.attached_ns && matches!(change, Change::Enter { .. })
            });
            let is_queued = state.doing == Doing::Queued && !has_entered;
            state.found_queued_ns = is_queued.then_some(self.now_ns);
            let is_announced = state.changes[0].0 > self.attached_ns;
            state.found_cpu = (!state.was_switched && !is_announced).then_some(state.cpu);
        }
        ThreadRecord {
            start_ns: state.start_ns,
            run_delay_ns: if self.config.counts {
                state.run_delay
            } else {
                0
            },
            comm: state.comm,
            tid: state.tid,
            tgid: state.tgid,
            parent_tgid: parent,
            state: u32::from(word),
            cpu: u32::try_from(state.cpu).expect("few CPUs"),
            runs: low_bits(if self.config.counts {
                state.runs.wrapping_sub(1)
            } else {
                u64::MAX
            }),
            flags,
            ..ThreadRecord::default()
        }
    }

    fn emit(&mut self, stream: usize, event: Event) {
        if self.is_attached {
            self.streams[stream].push(Written {
                raw: event.encode(),
                visible_ns: self.now_ns,
            });
        }
    }

    fn side(&self) -> usize {
        self.config.cpus
    }

    fn pick_running(&mut self) -> Option<Task> {
        let running: Vec<Task> = self.running.iter().flatten().copied().collect();
        self.random.pick(&running)
    }

    /// Makes a task that is queued somewhere.
    fn create(&mut self, leader: Option<Task>, comm: [u8; 16]) -> Task {
        let task = self.tasks.len();
        let mut tid = self.last_tid;
        loop {
            tid = tid % self.config.max_tid + 1;
            if !self.used_tids.contains(&tid) {
                break;
            }
        }
        self.last_tid = tid;
        self.used_tids.insert(tid);
        let cpu = self.random.place(self.config.cpus);
        self.tasks.push(TaskState {
            tid,
            tids: vec![tid],
            tgid: leader.map_or(tid, |leader| self.tasks[leader].tgid),
            leader: leader.unwrap_or(task),
            start_ns: self.now_ns + BOOT_OFFSET_NS + task as u64,
            comm,
            doing: Doing::Queued,
            cpu,
            word: 0,
            last_queued: Some(self.now_ns),
            run_delay: 0,
            runs: 0,
            is_doomed: false,
            is_released: false,
            exec_from: None,
            took_over: false,
            changes: vec![(self.now_ns, Change::Born)],
            names: vec![(self.now_ns, comm)],
            places: vec![(self.now_ns, cpu)],
            was_switched: false,
            found_queued_ns: None,
            found_cpu: None,
            must_stay: false,
        });
        self.queues[cpu].push(task);
        self.alive.push(task);
        task
    }

    fn fork(&mut self, parent: Task) {
        // Ids must not run out.
        if self.used_tids.len() * 2 > self.config.max_tid as usize {
            return;
        }
        let of_process = self.config.groups && self.random.one_in(2);
        let leader = self.tasks[parent].leader;
        let is_ending = self.tasks[leader].doing == Doing::Dead
            || self.tasks[parent].is_doomed
            || self.tasks[parent].exec_from.is_some();
        if is_ending {
            return;
        }
        self.tasks[parent].must_stay |= self.is_starting;
        let own_name = self.random.one_in(5);
        let name = if own_name {
            comm(&mut self.random)
        } else {
            self.tasks[parent].comm
        };
        let child = self.create(of_process.then_some(leader), name);
        let (cpu, ts_ns) = (self.tasks[parent].cpu, self.now_ns);
        let (parent_tid, born) = (self.tasks[parent].tid, self.tasks[child].clone());
        self.emit(
            cpu,
            Event::Fork(Fork {
                ts_ns,
                start_ns: born.start_ns,
                tid: born.tid,
                tgid: born.tgid,
                parent_tid,
                cpu: u16::try_from(born.cpu).expect("few CPUs"),
                flags: if own_name { thread_flags::OWN_NAME } else { 0 },
                ..Fork::default()
            }),
        );
        if own_name {
            self.emit(self.side(), renamed(ts_ns, born.tid, name));
        } else {
            // A name of the same time as a switch comes after it, which is right for all others.
            self.preempt_at_once(child);
        }
    }

    /// The CPU of a thread that was just put on its queue may switch to it at the same moment.
    fn preempt_at_once(&mut self, task: Task) {
        if self.random.one_in(4) && self.tasks[task].doing == Doing::Queued {
            let cpu = self.tasks[task].cpu;
            let began = self.running[cpu].map_or(0, |current| {
                self.tasks[current].changes.last().map_or(0, |last| last.0)
            });
            // But not twice at the same time.
            if began < self.now_ns {
                self.switch(cpu, Some(task));
            }
        }
    }

    fn wake(&mut self, task: Task) {
        self.blocked.retain(|&blocked| blocked != task);
        let cpu = self.random.place(self.config.cpus);
        let waker = self.random.place(self.config.cpus);
        self.write_move(waker, task, cpu);
        let state = &mut self.tasks[task];
        state.doing = Doing::Queued;
        state.cpu = cpu;
        state.places.push((self.now_ns, cpu));
        state.word = 0;
        state.last_queued = Some(self.now_ns);
        state.changes.push((self.now_ns, Change::Wake));
        let tid = state.tid;
        self.queues[cpu].push(task);
        if self.config.wakeups {
            self.tell_interrupts(waker, cpu);
        }
        self.write_wakeup(waker, self.now_ns, tid, cpu);
    }

    fn write_wakeup(&mut self, waker: usize, ts_ns: u64, tid: u32, cpu: usize) {
        if self.config.wakeups {
            self.emit(
                waker,
                Event::Wakeup(Wakeup {
                    ts_ns,
                    tid,
                    cpu: number(cpu),
                    ..Wakeup::default()
                }),
            );
        }
    }

    /// A thread goes to another CPU, where it is queued or about to be.
    fn write_move(&mut self, by: usize, task: Task, to: usize) {
        self.tell_interrupts(by, self.tasks[task].cpu);
        let state = &self.tasks[task];
        if self.config.moves && state.cpu != to {
            let record = Migrate {
                ts_ns: self.now_ns,
                tid: state.tid,
                from_cpu: number(state.cpu),
                to_cpu: number(to),
                runs: low_bits(state.runs),
                ..Migrate::default()
            };
            self.emit(by, Event::Migrate(record));
        }
    }

    /// A wakeup that meets a thread that runs, or was preempted on its way to sleep.
    fn wake_in_vain(&mut self) {
        let Some(task) = self.random.pick(&self.alive) else {
            return;
        };
        let state = &mut self.tasks[task];
        let (tid, cpu) = (state.tid, state.cpu);
        let began_ns = state.changes.last().map_or(0, |last| last.0);
        let waker = self.random.place(self.config.cpus);
        match state.doing {
            // The clock of its run queue may be as old as its last switch. Not if it has another id
            // since: such a record names the id's last owner, and contradicts what is known of that.
            Doing::Running => {
                let oldest_ns = if state.tids.len() > 1 {
                    self.now_ns
                } else {
                    began_ns
                };
                let ts_ns = oldest_ns + self.random.below(self.now_ns - oldest_ns + 1);
                self.write_wakeup(waker, ts_ns, tid, cpu);
            }
            Doing::Queued if state.word != 0 => {
                state.word = 0;
                self.write_wakeup(waker, self.now_ns, tid, cpu);
            }
            _ => {}
        }
    }

    fn migrate(&mut self) {
        let from = self.random.place(self.config.cpus);
        let Some(task) = self.random.pick(&self.queues[from]) else {
            return;
        };
        let to = self.random.place(self.config.cpus);
        let now_ns = self.now_ns;
        let state = &mut self.tasks[task];
        // One without a stamp would get its first one here, and the kernel would be wrong about its
        // delay: known, and only reported.
        let Some(queued_ns) = state.last_queued else {
            return;
        };
        state.run_delay += now_ns - queued_ns;
        state.last_queued = Some(now_ns);
        self.write_move(from, task, to);
        let state = &mut self.tasks[task];
        state.cpu = to;
        state.places.push((now_ns, to));
        self.queues[from].retain(|&queued| queued != task);
        self.queues[to].push(task);
    }

    fn schedule(&mut self, cpu: usize) {
        let next = self.random.pick(&self.queues[cpu]);
        match self.running[cpu] {
            None if next.is_none() => {}
            _ => self.switch(cpu, next),
        }
    }

    /// The CPU's thread leaves, for whatever reason, and another one comes in.
    fn switch(&mut self, cpu: usize, next: Option<Task>) {
        self.tell_interrupts(cpu, cpu);
        let mut record = Switch {
            ts_ns: self.now_ns,
            ..Switch::default()
        };
        if let Some(prev) = self.running[cpu] {
            let is_leader_with_others = self.tasks[prev].leader == prev
                && self
                    .alive
                    .iter()
                    .any(|&other| other != prev && self.tasks[other].tgid == self.tasks[prev].tgid);
            let may_die = self.config.lives
                && self.alive.len() > self.config.cpus
                && !(self.is_starting && self.tasks[prev].must_stay)
                && self.tasks[prev].exec_from.is_none();
            let word = match self.random.below(10) {
                _ if self.tasks[prev].is_doomed => DEAD,
                // A leader that ends before its threads stays as a zombie: rare, and legal.
                0 if may_die && (!is_leader_with_others || self.random.one_in(4)) => DEAD,
                0..6 => self.random.pick(&WAITS).expect("some"),
                // Without anybody to run, it would stay.
                _ if next.is_none() => self.random.pick(&WAITS).expect("some"),
                6..9 => 0,
                _ => 0x1,
            };
            let is_preempted = match word {
                0 => self.random.one_in(2),
                _ => next.is_some() && word == 0x1 && self.random.one_in(3),
            };
            self.leave(prev, word, is_preempted);
            record.prev_tid = self.tasks[prev].tid;
            record.prev_state = word;
            record.flags |= if is_preempted {
                switch_flags::PREEMPT
            } else {
                0
            };
        }
        self.running[cpu] = next;
        if let Some(next) = next {
            self.enter(next, cpu, &mut record);
        }
        self.emit(cpu, Event::Switch(record));
    }

    fn leave(&mut self, task: Task, word: u16, is_preempted: bool) {
        let now_ns = self.now_ns;
        let state = &mut self.tasks[task];
        state
            .changes
            .push((now_ns, Change::Leave { word, is_preempted }));
        state.was_switched |= self.is_attached;
        state.word = word;
        if is_preempted || word == 0 {
            state.doing = Doing::Queued;
            // `sched_info_depart` stamps only what `task_is_running`.
            state.last_queued = (word == 0).then_some(now_ns);
            let cpu = state.cpu;
            self.queues[cpu].push(task);
        } else if word == DEAD {
            state.doing = Doing::Dead;
            self.alive.retain(|&alive| alive != task);
            self.release(task);
        } else {
            state.doing = Doing::Blocked;
            state.last_queued = None;
            self.blocked.push(task);
        }
    }

    /// Gives the ids of the dead back; a leader's only when its process is gone.
    fn release(&mut self, task: Task) {
        let leader = self.tasks[task].leader;
        let tgid = self.tasks[task].tgid;
        let is_over = !self
            .alive
            .iter()
            .any(|&other| self.tasks[other].tgid == tgid);
        let ended = if task == leader { None } else { Some(task) };
        let process = (is_over && self.tasks[leader].doing == Doing::Dead).then_some(leader);
        for task in ended.into_iter().chain(process) {
            let state = &mut self.tasks[task];
            if !state.is_released {
                state.is_released = true;
                self.used_tids.remove(&state.tid);
            }
        }
    }

    fn enter(&mut self, task: Task, cpu: usize, record: &mut Switch) {
        let config = self.config;
        let now_ns = self.now_ns;
        for queue in &mut self.queues {
            queue.retain(|&queued| queued != task);
        }
        let state = &mut self.tasks[task];
        record.next_tid = state.tid;
        let delay_ns = state.run_delay + state.last_queued.map_or(0, |queued| now_ns - queued);
        if config.counts {
            record.next_runs = low_bits(state.runs);
            record.flags |= switch_flags::NEXT_COUNTED;
            if state.last_queued.is_none() {
                record.flags |= switch_flags::NEXT_UNQUEUED;
            }
        }
        if config.stamps {
            record.next_delay_ns = delay_ns;
            record.flags |= switch_flags::NEXT_STAMPED;
        }
        // `sched_info_arrive`.
        state.runs += u64::from(state.last_queued.is_some() || config.counts_unqueued);
        state.run_delay = delay_ns;
        state.last_queued = None;
        state.doing = Doing::Running;
        state.cpu = cpu;
        state.word = 0;
        state.was_switched |= self.is_attached;
        state.changes.push((now_ns, Change::Enter { cpu }));
        state.places.push((now_ns, cpu));
    }

    fn rename(&mut self) {
        let Some(task) = self.random.pick(&self.alive) else {
            return;
        };
        // One that reads in a program, or is being ended by one that does, does not think of its name.
        if self.tasks[task].exec_from.is_none() && !self.tasks[task].is_doomed {
            let name = comm(&mut self.random);
            self.set_name(task, name);
        }
    }

    fn set_name(&mut self, task: Task, name: [u8; 16]) {
        let state = &mut self.tasks[task];
        state.comm = name;
        state.names.push((self.now_ns, name));
        let event = renamed(self.now_ns, state.tid, name);
        self.emit(self.side(), event);
    }

    /// A thread execs, or goes on with an exec: the others of its process have to end first.
    fn exec(&mut self) {
        let Some(task) = self.pick_running() else {
            return;
        };
        let state = &self.tasks[task];
        let leader = state.leader;
        if state.is_doomed {
            return;
        }
        if let Some(old_tid) = state.exec_from {
            return self.finish_exec(task, old_tid);
        }
        let others: Vec<Task> = self
            .alive
            .iter()
            .copied()
            .filter(|&other| other != task && self.tasks[other].tgid == state.tgid)
            .collect();
        if others.is_empty() && task == leader {
            let tid = state.tid;
            return self.finish_exec(task, tid);
        }
        // A leader on its last steps is a zombie already, though it still runs.
        let is_last_step = |other: Task| {
            other == leader
                && self.tasks[other].is_doomed
                && self.tasks[other].doing == Doing::Running
        };
        if task != leader && others.iter().all(|&other| is_last_step(other)) {
            return self.take_over(task, leader);
        }
        for other in others {
            self.tasks[other].is_doomed = true;
            if self.tasks[other].doing == Doing::Blocked {
                self.wake(other);
            }
        }
    }

    /// `de_thread` (fs/exec.c): the thread gets its leader's id and start, the leader gets its id.
    fn take_over(&mut self, task: Task, leader: Task) {
        let (tid, pid) = (self.tasks[task].tid, self.tasks[leader].tid);
        let is_gone = self.tasks[leader].doing == Doing::Dead;
        let start_ns = self.tasks[leader].start_ns;
        let tgid = self.tasks[task].tgid;
        for other in 0..self.tasks.len() {
            if self.tasks[other].tgid == tgid && self.tasks[other].leader == leader {
                self.tasks[other].leader = task;
            }
        }
        let state = &mut self.tasks[task];
        state.tid = pid;
        state.tids.push(pid);
        state.start_ns = start_ns;
        state.took_over = true;
        state.exec_from = Some(tid);
        if is_gone {
            self.tasks[leader].is_released = true;
            self.used_tids.remove(&tid);
        } else {
            self.tasks[leader].tid = tid;
            self.tasks[leader].tids.push(tid);
        }
    }

    /// A program is read in, which takes longer than a leader's last steps.
    fn finish_exec(&mut self, task: Task, old_tid: u32) {
        let tgid = self.tasks[task].tgid;
        if self
            .alive
            .iter()
            .any(|&other| other != task && self.tasks[other].tgid == tgid)
        {
            return;
        }
        let state = &mut self.tasks[task];
        state.exec_from = None;
        let (ts_ns, tid) = (self.now_ns, state.tid);
        let name = comm(&mut self.random);
        self.set_name(task, name);
        self.emit(
            self.side(),
            Event::Exec(Exec {
                ts_ns,
                tid,
                old_tid,
                ..Exec::default()
            }),
        );
        if tid != old_tid {
            // The first time it was told under an id that was nobody's.
            self.emit(self.side(), renamed(ts_ns, tid, name));
        }
    }
}
