//! That the books balance: what every part of the figures sums to.

use schedscope::core::{Account, Cause, Figures, Origin, Share, Snapshot};

/// The parts of all figures sum to the time that was observed, and so do whys and whos.
pub(crate) fn check_books(snapshot: &Snapshot) {
    check_parts(snapshot);
    for target in &snapshot.targets {
        check_detail(&target.total);
        for thread in &target.threads {
            check_detail(&thread.account);
        }
    }
}

/// The parts of all figures sum to the time that was observed. (In a difference of two snapshots whys
/// and whos need not: what a wait was taken for may have changed in between.)
pub(crate) fn check_parts(snapshot: &Snapshot) {
    let parts = |figures: &Figures| {
        let blocked: u128 = schedscope::core::Reason::all()
            .map(|reason| figures.blocked(reason))
            .sum();
        assert_eq!(blocked, figures.time(Share::Blocked));
        let queued = figures.time(Share::Runnable);
        let causes = Cause::ALL.iter().map(|&cause| figures.runnable(cause));
        assert_eq!(causes.sum::<u128>(), queued);
        let origins = Origin::ALL
            .iter()
            .map(|&origin| figures.runnable_from(origin));
        assert_eq!(origins.sum::<u128>(), queued);
        figures.observed_ns()
    };
    parts(&snapshot.host);
    for target in &snapshot.targets {
        let mut sum = 0;
        for thread in &target.threads {
            let life_ns = thread
                .ended_ns
                .unwrap_or(snapshot.at_ns)
                .checked_sub(thread.observed_from_ns)
                .expect("ends after it began");
            assert_eq!(
                parts(&thread.account.figures),
                u128::from(life_ns),
                "{thread:?}"
            );
            sum += parts(&thread.account.figures);
        }
        assert_eq!(parts(&target.total.figures), sum);
    }
}

/// What is told of whys and whos sums to what they are told of.
fn check_detail(account: &Account) {
    let Account { figures, detail } = account;
    let waits: u128 = detail.waits.rows().iter().map(|row| row.2.ns).sum();
    let waits = waits + detail.waits.other().ns;
    assert_eq!(waits, figures.time(Share::Blocked));
    let culprits: u128 = detail.culprits.rows().iter().map(|row| row.2.ns).sum();
    let culprits = culprits + detail.culprits.other().ns;
    assert_eq!(culprits, figures.runnable(Cause::Contended));
}
