//! Loses, repeats, shifts and spoils records.
