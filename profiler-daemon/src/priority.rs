//! Which threads run before others.
//!
//! A thread has the priority of the one that starts it, so one that is raised has those that it starts go back
//! to what is usual.

use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, getpriority_process, setpriority_process};
use rustix::thread::gettid;

/// What the process was started with.
static USUAL: AtomicI32 = AtomicI32::new(0);

/// Has the calling thread run before others, as far as that is allowed: with less than `nice` it keeps what it has.
pub fn raise(nice: i32) {
    let thread = Some(gettid());
    let usual = getpriority_process(thread).unwrap_or(0);
    USUAL.store(usual, Ordering::Relaxed);
    if nice < usual {
        // Where this is not allowed, it waits its turn as others do.
        let _ = setpriority_process(thread, nice);
    }
}

/// Has the calling thread run before others until this is dropped. A thread that is started meanwhile does so for
/// good.
pub struct Hurry {
    thread: Pid,
    before: i32,
}

impl Hurry {
    /// Begins, with this `nice`.
    #[must_use]
    pub fn begin(nice: i32) -> Self {
        let thread = gettid();
        let before = getpriority_process(Some(thread)).unwrap_or(0);
        // Where this is not allowed, it waits its turn as others do.
        let _ = setpriority_process(Some(thread), nice);
        Self { thread, before }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // To give way is always allowed.
        let _ = setpriority_process(Some(self.thread), self.before);
    }
}

/// Has the calling thread run as the process does, whoever started it.
pub fn usual() {
    // To give way is always allowed.
    let _ = setpriority_process(Some(gettid()), USUAL.load(Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_raised_thread_starts_is_not_raised() {
        let thread = || getpriority_process(Some(gettid())).expect("anybody may look");
        let before = thread();
        let raised = std::thread::spawn(move || {
            raise(before - 1);
            let itself = thread();
            let started = std::thread::spawn(move || {
                let inherited = thread();
                usual();
                (inherited, thread())
            });
            (itself, started.join().expect("it does not panic"))
        });
        let (itself, (inherited, lowered)) = raised.join().expect("it does not panic");
        assert_eq!(inherited, itself);
        assert_eq!(lowered, before);
        // Nobody is lowered by being raised.
        raise(before + 1);
        assert_eq!(thread(), before);
    }
}
