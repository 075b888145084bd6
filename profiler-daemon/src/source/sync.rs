//! The atomics of the ring protocol, in one place so that the model test can put loom's in theirs.

pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
