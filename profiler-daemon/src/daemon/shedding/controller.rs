//! How many threads are kept, as the rings fill and empty. Pure: what happens, and when, comes in as an
//! argument.
//!
//! One thread in 2 to the power of a shift is kept. The shift goes up by one (or by two, where more is lost than
//! read) when records are lost, or when two drains in a row find a ring nearly full: the first may have been
//! late, the second follows at once. It goes down after a calm, in which rings were less than half full and the
//! drain itself had time to spare: with twice as many records it still would. If that was too early, the next calm
//! has to be longer.

use profiler_ebpf::shed::MAX_SHIFT;

/// Above this a ring is nearly full.
const HIGH_FILL: f64 = 0.75;

/// Below this there is room for twice as much.
const LOW_FILL: f64 = 0.5;

/// The drain may be busy for this share of a calm: with twice as many records that leaves something over.
const LOW_BUSY: f64 = 0.4;

/// Nothing is concluded for so long after a change: what the rings hold is from before it.
const SETTLE_NS: u64 = 20_000_000;

/// The shortest calm, and the longest that is ever asked for.
const CALM_NS: u64 = 1_000_000_000;
const MAX_CALM_NS: u64 = 64 * CALM_NS;

/// It goes down so far at once at most, where the drain has hardly anything to do.
const MAX_STEPS: u8 = 3;

/// A step down that holds so many times as long as its calm was not too early.
const HELD: u64 = 4;

/// What one drain found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    /// When.
    pub(super) now_ns: u64,
    /// How full the fullest ring was, from 0 to 1.
    pub(super) fill: f64,
    /// Records read, and lost, since the drain before.
    pub(super) read: u64,
    pub(super) lost: u64,
    /// How long the drain before took.
    pub(super) busy_ns: u64,
}

/// Decides.
#[derive(Debug)]
pub(super) struct Controller {
    shift: u8,
    changed_ns: u64,
    /// Drains in a row that found a ring nearly full.
    high: u32,
    /// Since when it has been calm, and how long drains took since.
    calm_from_ns: u64,
    busy_ns: u64,
    /// How long the next calm has to be.
    calm_ns: u64,
    /// The last step was down.
    was_down: bool,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            shift: 0,
            changed_ns: 0,
            high: 0,
            calm_from_ns: 0,
            busy_ns: 0,
            calm_ns: CALM_NS,
            was_down: false,
        }
    }
}

impl Controller {
    /// What is to be kept after this drain.
    pub(super) fn take_in(&mut self, drained: Drained) -> u8 {
        let Drained { now_ns, .. } = drained;
        if self.changed_ns > 0 && now_ns < self.changed_ns.saturating_add(SETTLE_NS) {
            return self.shift;
        }
        self.high = if drained.fill > HIGH_FILL {
            self.high + 1
        } else {
            0
        };
        if drained.lost > 0 || self.high >= 2 {
            self.go_up(&drained);
        } else if self.shift > 0 {
            self.go_down_if_calm(&drained);
        }
        let held_ns = now_ns.saturating_sub(self.changed_ns);
        if self.was_down && held_ns > self.calm_ns.saturating_mul(HELD) {
            self.calm_ns = CALM_NS;
        }
        self.shift
    }

    fn go_up(&mut self, drained: &Drained) {
        // The first step down that was too early costs a loss, and later ones not one each.
        if self.was_down {
            self.calm_ns = self.calm_ns.saturating_mul(2).min(MAX_CALM_NS);
        }
        let steps = if drained.lost > drained.read { 2 } else { 1 };
        self.go_to(
            self.shift.saturating_add(steps).min(MAX_SHIFT),
            drained.now_ns,
        );
        self.was_down = false;
    }

    fn go_down_if_calm(&mut self, drained: &Drained) {
        if drained.fill > LOW_FILL {
            return self.begin_calm(drained.now_ns);
        }
        self.busy_ns = self.busy_ns.saturating_add(drained.busy_ns);
        let elapsed_ns = drained.now_ns.saturating_sub(self.calm_from_ns);
        if elapsed_ns < self.calm_ns {
            return;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share needs no more digits than a float has"
        )]
        let busy = self.busy_ns as f64 / elapsed_ns as f64;
        if busy > LOW_BUSY {
            return self.begin_calm(drained.now_ns);
        }
        // So many doublings fit in what the drain has left.
        let fits = |steps: &u8| busy * f64::from(1_u32 << steps) <= LOW_BUSY;
        let steps = (1..=MAX_STEPS).rev().find(fits).unwrap_or(1);
        self.go_to(self.shift.saturating_sub(steps), drained.now_ns);
        self.was_down = true;
    }

    fn go_to(&mut self, shift: u8, now_ns: u64) {
        self.shift = shift;
        self.changed_ns = now_ns;
        self.high = 0;
        self.begin_calm(now_ns);
    }

    fn begin_calm(&mut self, now_ns: u64) {
        self.calm_from_ns = now_ns;
        self.busy_ns = 0;
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is simulated is small and positive"
)]
mod tests {
    use super::{CALM_NS, Controller, Drained, MAX_CALM_NS};
    use profiler_ebpf::shed::MAX_SHIFT;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// A machine whose threads make so many records in a millisecond, and a drain that can do so many.
    struct Load {
        controller: Controller,
        now_ns: u64,
        in_ring: f64,
        lost: u64,
    }

    /// Records in a ring.
    const RING: f64 = 32_768.0;

    impl Load {
        fn new() -> Self {
            Self {
                controller: Controller::default(),
                now_ns: 1,
                in_ring: 0.0,
                lost: 0,
            }
        }

        /// Goes on for so long and says which shifts there were.
        fn run(&mut self, for_ms: u64, made_a_ms: f64, drained_a_ms: f64) -> Vec<u8> {
            let end_ns = self.now_ns + for_ms * MS;
            let mut shifts = vec![self.controller.shift];
            let mut busy_ns = 0;
            while self.now_ns < end_ns {
                // It wakes at a quarter, or after 100 ms, and reads what is there.
                let made = made_a_ms / f64::from(1 << self.controller.shift);
                let waits_ms = ((RING / 4.0 - self.in_ring).max(0.0) / made.max(1e-9)).min(100.0);
                self.in_ring += made * waits_ms;
                let found = self.in_ring;
                let takes_ms = found / drained_a_ms;
                let came = made * takes_ms;
                let lost = (came - RING).max(0.0);
                self.in_ring = came.min(RING);
                self.now_ns += ((waits_ms + takes_ms) * 1e6) as u64 + 1;
                let shift = self.controller.take_in(Drained {
                    now_ns: self.now_ns,
                    fill: found / RING,
                    read: found as u64,
                    lost: lost as u64,
                    busy_ns,
                });
                busy_ns = (takes_ms * 1e6) as u64;
                self.lost += lost as u64;
                if shifts.last() != Some(&shift) {
                    shifts.push(shift);
                }
            }
            shifts
        }
    }

    #[test]
    fn what_can_be_drained_is_not_shed() {
        // Eight tenths of what the drain can do: rings are at a quarter when it wakes.
        assert_eq!(Load::new().run(10_000, 800.0, 1000.0), [0]);
    }

    #[test]
    fn one_late_drain_is_no_overload() {
        let mut controller = Controller::default();
        for (number, fill) in [0.25, 0.95, 0.3, 0.9, 0.2].into_iter().enumerate() {
            let shift = controller.take_in(Drained {
                now_ns: 100 * MS * (1 + number as u64),
                fill,
                read: 1000,
                ..Drained::default()
            });
            assert_eq!(shift, 0);
        }
    }

    #[test]
    fn too_much_is_shed_until_it_fits_and_all_comes_back_afterwards() {
        let mut load = Load::new();
        let shifts = load.run(1_000, 6_000.0, 1_000.0);
        assert_eq!(shifts.last(), Some(&3), "{shifts:?}");
        let lost = load.lost;
        let shifts = load.run(30_000, 6_000.0, 1_000.0);
        assert!(shifts.iter().all(|&shift| shift >= 2), "{shifts:?}");
        assert!(load.lost - lost <= 2 * RING as u64, "{}", load.lost - lost);
        let shifts = load.run(60_000 * 4, 10.0, 1_000.0);
        assert_eq!(shifts.last(), Some(&0), "{shifts:?}");
    }

    #[test]
    fn what_would_not_fit_with_twice_as_much_is_not_tried_again_and_again() {
        let mut load = Load::new();
        // A half just fits, with a drain that hardly rests: no calm.
        load.run(2_000, 1_800.0, 1_000.0);
        let shifts = load.run(60_000, 1_800.0, 1_000.0);
        assert!(shifts.len() <= 2, "{shifts:?}");
    }

    proptest! {
        #[test]
        fn any_load_keeps_to_the_bounds(
            loads in prop::collection::vec((1u64..500, 0u32..200_000, 100u32..20_000), 1..20),
        ) {
            let mut load = Load::new();
            for (for_ms, made, drained) in loads {
                let shifts = load.run(for_ms, f64::from(made), f64::from(drained));
                prop_assert!(shifts.iter().all(|&shift| shift <= MAX_SHIFT));
                let calm_ns = load.controller.calm_ns;
                prop_assert!((CALM_NS..=MAX_CALM_NS).contains(&calm_ns));
            }
            // Whatever was before, calm brings all back.
            load.in_ring = 0.0;
            load.run(30 * 64_000, 1.0, 1_000.0);
            prop_assert_eq!(load.controller.shift, 0);
        }
    }
}
