//! Kernel probes.
#![no_std]
#![no_main]
