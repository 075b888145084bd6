//! Who may have a password checked next: one at a time, and of those who wait one of each address in turn, so
//! that a crowd of guesses from one address keeps nobody waiting at another.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Of so many that wait, those who have gone are looked for: there are fewer connections.
const MANY: usize = 512;

/// Where somebody comes from; `None` through a Unix socket.
pub(super) type Origin = Option<IpAddr>;

/// Those who share a line are one: an IPv6 network has 2^64 addresses.
pub(super) fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Hands out turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// Somebody has the turn.
    taken: bool,
    /// By address, the one whose turn is next first; none of them is empty.
    lines: VecDeque<(Origin, VecDeque<oneshot::Sender<Turn>>)>,
}

/// The turn of whoever has it; it is the next one's when this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Option<Turns>);

impl Waiting {
    fn line_up(&mut self, origin: Origin, place: oneshot::Sender<Turn>) {
        if self.lines.iter().map(|(_, line)| line.len()).sum::<usize>() >= MANY {
            for (_, line) in &mut self.lines {
                line.retain(|place| !place.is_closed());
            }
            self.lines.retain(|(_, line)| !line.is_empty());
        }
        match self.lines.iter_mut().find(|(its, _)| *its == origin) {
            Some((_, line)) => line.push_back(place),
            None => self.lines.push_back((origin, VecDeque::from([place]))),
        }
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let (origin, mut line) = self.lines.pop_front()?;
        let first = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((origin, line));
        }
        first
    }
}

impl Turns {
    /// Waits for a turn.
    pub(super) async fn take(&self, origin: Origin) -> Turn {
        let wait = {
            let mut waiting = self.waiting();
            if waiting.taken {
                let (place, wait) = oneshot::channel();
                waiting.line_up(origin, place);
                Some(wait)
            } else {
                waiting.taken = true;
                None
            }
        };
        let turn = match wait {
            Some(wait) => wait.await.ok(),
            None => None,
        };
        // Whoever lines up is called: a place is dropped without a turn only together with who has waited.
        turn.unwrap_or_else(|| Turn(Some(self.clone())))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else {
            return;
        };
        loop {
            let next = {
                let mut waiting = turns.waiting();
                let next = waiting.next();
                waiting.taken = next.is_some();
                next
            };
            let Some(next) = next else {
                return;
            };
            match next.send(Self(Some(turns.clone()))) {
                Ok(()) => return,
                // That one has gone meanwhile; the next one is called by this loop, and by nobody else.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        origin(IpAddr::from([192, 0, 2, last]))
    }

    /// Has these wait while somebody has the turn, and returns who came in which order.
    async fn order(of: &[(u8, u32)], gone: &[u32]) -> Vec<u32> {
        let turns = Turns::default();
        let first = turns.take(Some(from(1))).await;
        let came = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for &(address, number) in of {
            let (turns, came) = (turns.clone(), Arc::clone(&came));
            let task = tokio::spawn(async move {
                let _turn = turns.take(Some(from(address))).await;
                came.lock().expect("nobody panics").push(number);
            });
            // So that they line up in this order.
            tokio::task::yield_now().await;
            if gone.contains(&number) {
                task.abort();
            } else {
                tasks.push(task);
            }
        }
        tokio::task::yield_now().await;
        drop(first);
        for task in tasks {
            task.await.expect("it does not panic");
        }
        assert!(!turns.waiting().taken, "nobody has it any more");
        assert!(turns.waiting().lines.is_empty());
        let came = came.lock().expect("nobody panics");
        came.clone()
    }

    #[tokio::test]
    async fn a_crowd_from_one_address_waits_behind_one_from_another() {
        let crowd = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 10), (3, 20), (2, 11)];
        assert_eq!(order(&crowd, &[]).await, [0, 10, 20, 1, 11, 2, 3]);
    }

    #[tokio::test]
    async fn who_has_gone_is_passed_over() {
        let crowd = [(1, 0), (1, 1), (2, 10), (1, 2)];
        assert_eq!(order(&crowd, &[0, 10]).await, [1, 2]);
        assert_eq!(order(&crowd, &[0, 1, 2, 10]).await, [0_u32; 0]);
    }

    #[tokio::test]
    async fn those_who_have_gone_are_not_kept() {
        let turns = Turns::default();
        let _first = turns.take(None).await;
        for number in (0..7_u8).cycle().take(10_000) {
            let mut waits = Box::pin(turns.take(Some(from(number))));
            let waker = std::task::Waker::noop();
            let mut context = std::task::Context::from_waker(waker);
            assert!(waits.as_mut().poll(&mut context).is_pending());
        }
        let kept: usize = turns.waiting().lines.iter().map(|its| its.1.len()).sum();
        assert!(kept <= MANY, "{kept}");
    }

    #[test]
    fn a_network_is_one_origin() {
        let parse = |text: &str| origin(text.parse().expect("an address"));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:2"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:192.0.2.7"), from(7));
        assert_ne!(from(7), from(8));
    }
}
