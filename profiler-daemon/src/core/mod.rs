//! Pure reconstruction.
