//! System calls that confine a program, behind safe doors.
//!
//! The one crate of the workspace that would be allowed unsafe code. It has none: instead of forking, the binary executes
//! itself again under a hidden verb, so that every step runs in an ordinary single-threaded process ([`sandbox`]).
//! This crate knows nothing of backups, copies or services.
#![forbid(unsafe_code)]

pub mod sandbox;
