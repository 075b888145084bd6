//! Pure reconstruction.
pub mod decode;
pub mod histogram;
pub mod merge;
pub mod state;
