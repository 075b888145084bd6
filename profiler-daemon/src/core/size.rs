//! How much memory figures take, about: for whoever keeps many snapshots.

use super::account::Account;
use super::snapshot::{Snapshot, TargetSnapshot, ThreadSnapshot};
use super::worst::LongWait;

impl Snapshot {
    /// Bytes of memory that it takes, about. What it shares with other snapshots counts only as a pointer:
    /// threads that have ended.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let targets: usize = self.targets.iter().map(target_bytes).sum();
        size_of::<Self>() + self.inflicted.heap_bytes() + targets
    }
}

fn target_bytes(target: &TargetSnapshot) -> usize {
    let lists = [&target.worst, &target.stuck];
    let waits =
        lists.map(|its| [&its.queued, &its.blocked, &its.idle].map(|list| list.iter().count()));
    let waits: usize = waits.as_flattened().iter().sum();
    let threads: usize = target
        .threads
        .iter()
        .map(|thread| match thread.ended_ns {
            Some(_) => size_of::<usize>(),
            None => size_of::<ThreadSnapshot>() + account_bytes(&thread.account),
        })
        .sum();
    size_of::<TargetSnapshot>()
        + waits * size_of::<LongWait>()
        + account_bytes(&target.total)
        + threads
}

fn account_bytes(account: &Account) -> usize {
    let (figures, detail) = (&account.figures, &account.detail);
    let histograms = figures.runqueue_delay.heap_bytes() + figures.offcpu.heap_bytes();
    let rankings = detail.waits.heap_bytes() + detail.wakers.heap_bytes();
    histograms + rankings + detail.culprits.heap_bytes()
}
