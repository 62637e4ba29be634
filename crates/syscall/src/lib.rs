//! System calls that confine a program, behind safe doors.
//!
//! Without unsafe code: instead of forking, the binary executes itself again under a hidden verb, so that every step runs
//! in an ordinary single-threaded process ([`sandbox`]).
//! This crate knows nothing of backups, copies or services.

pub mod sandbox;
