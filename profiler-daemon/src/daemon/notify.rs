//! What a service manager is told: ready, reloading, stopping, a line of status, and signs of life.
//!
//! The protocol is `sd_notify(3)`. Without a manager (`NOTIFY_SOCKET` is not set) nothing is sent. A
//! manager that can't be reached is complained of once for each kind of news, and changes nothing else.

use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;

use super::engine::{Engine, EngineGone, Handle};
use crate::sink::text::thousands;

/// Without a watchdog the line of status is renewed this often, and never less often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Signs of life in the time after which the manager takes the service for dead: a host that is so
/// loaded that one comes late should not lose its profiler at that very moment.
const SIGNS_PER_LIMIT: u32 = 4;

/// The probes are attached, the threads read, the address taken.
pub(super) fn ready() {
    tell("that the service is ready", &[NotifyState::Ready]);
}

/// The configuration is about to be read again; [`ready`] says when that is done.
pub(super) fn reloading() {
    // Without its time, systemd 253 and newer do not take the message (`Type=notify-reload`).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell("of the reload", &[NotifyState::Reloading, now]),
        Err(error) => eprintln!("schedscope: can't tell of the reload when it began: {error}"),
    }
}

/// The service is about to end.
pub(super) fn stopping() {
    tell("that the service ends", &[NotifyState::Stopping]);
}

fn tell(what: &str, news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        eprintln!("schedscope: can't tell the service manager {what}: {error}");
    }
}

/// Shows the manager that the service does its work, for as long as it does.
///
/// A sign of life is given only if since the last one the drain thread has emptied the rings, records
/// were in them, and it has answered. On a host that lives there are records all the time: asking
/// alone makes some. So a drain thread that is stuck and probes that are silent both let the manager's
/// watchdog (`WatchdogSec=`) run out.
pub(super) async fn show_life(engine: Handle) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let limit = sd_notify::watchdog_enabled();
    let every = limit.map_or(STATUS_EVERY, |limit| {
        (limit / SIGNS_PER_LIMIT).min(STATUS_EVERY)
    });
    let mut told = true;
    let mut last = Beat::default();
    // Its end is for whoever watches over the thread to tell.
    while let Ok(beat) = next_beat(&engine, every).await {
        let status = beat.status(&last, every);
        let mut news = vec![NotifyState::Status(&status)];
        if limit.is_some() && beat.is_progress_from(&last) {
            news.push(NotifyState::Watchdog);
        }
        let sent = sd_notify::notify(&news);
        if let (Err(error), true) = (&sent, told) {
            eprintln!("schedscope: can't give the service manager a sign of life: {error}");
        }
        told = sent.is_ok();
        last = beat;
        tokio::time::sleep(every).await;
    }
}

/// What the drain thread answers, however long that takes. The manager is told that it does take long.
async fn next_beat(engine: &Handle, every: Duration) -> Result<Beat, EngineGone> {
    let mut answer = pin!(engine.ask(Beat::of));
    let mut silent_for = Duration::ZERO;
    loop {
        if let Ok(answer) = tokio::time::timeout(every, &mut answer).await {
            return answer;
        }
        silent_for += every;
        let status = format!("The drain thread has not answered for {silent_for:.0?}");
        // The same will be tried again soon.
        let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
    }
}

/// How far the drain thread has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beat {
    threads: usize,
    drains: u64,
    events: u64,
    lost: u64,
    /// One thread in 2 to this power is kept.
    shift: u8,
}

impl Beat {
    fn of(engine: &mut Engine) -> Self {
        Self {
            threads: engine.core().threads(),
            drains: engine.work().drains,
            events: engine.core().events(),
            lost: engine.kernel().losses().total(),
            shift: engine.core().shedding().shift,
        }
    }

    fn is_progress_from(&self, last: &Self) -> bool {
        self.drains > last.drains && self.events > last.events
    }

    /// A line for `systemctl status`; `since` is how long ago the last beat was.
    fn status(&self, last: &Self, since: Duration) -> String {
        let events = self.events.saturating_sub(last.events);
        if events == 0 {
            return "No record has come from the probes of late".to_owned();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of events is positive and far below 2^64"
        )]
        let rate = (events as f64 / since.as_secs_f64()).round() as u64;
        // The first beat has nothing to be compared with.
        let rate = if *last == Self::default() {
            String::new()
        } else {
            format!(", {} events/s", thousands(rate))
        };
        let shedding = match self.shift {
            0 => String::new(),
            shift => format!(", shedding: 1 thread in {} is followed", 1_u64 << shift),
        };
        format!(
            "Watching {} threads{rate}, {} events lost{shedding}",
            thousands(self.threads as u64),
            thousands(self.lost)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Beat;

    const FIRST: Beat = Beat {
        threads: 312,
        drains: 10,
        events: 5_000,
        lost: 0,
        shift: 0,
    };

    #[test]
    fn only_records_that_were_drained_are_progress() {
        let later = |drains, events| Beat {
            drains: FIRST.drains + drains,
            events: FIRST.events + events,
            ..FIRST
        };
        assert!(later(1, 1).is_progress_from(&FIRST));
        assert!(!later(1, 0).is_progress_from(&FIRST), "silent probes");
        assert!(!later(0, 0).is_progress_from(&FIRST), "nothing at all");
        assert!(FIRST.is_progress_from(&Beat::default()), "the first");
    }

    #[test]
    fn the_status_has_threads_events_and_losses() {
        let second = Beat {
            threads: 1_312,
            drains: 20,
            events: 65_000,
            lost: 7,
            shift: 0,
        };
        let since = Duration::from_secs(5);
        assert_eq!(
            FIRST.status(&Beat::default(), since),
            "Watching 312 threads, 0 events lost"
        );
        assert_eq!(
            second.status(&FIRST, since),
            "Watching 1,312 threads, 12,000 events/s, 7 events lost"
        );
        let shedding = Beat { shift: 3, ..second };
        assert_eq!(
            shedding.status(&FIRST, since),
            "Watching 1,312 threads, 12,000 events/s, 7 events lost, shedding: 1 thread in 8 is followed"
        );
        assert_eq!(
            second.status(&second, since),
            "No record has come from the probes of late"
        );
    }
}
