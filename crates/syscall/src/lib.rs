//! System calls that confine a program or this process, behind safe doors.
//!
//! Programs are confined without unsafe code: instead of forking, the binary executes itself again under a hidden verb, so
//! that every step runs in an ordinary single-threaded process ([`sandbox`]). One call of the C library is unsafe: how much
//! memory its allocator keeps ([`heap`]).
//! This crate knows nothing of backups, copies or services.

pub mod heap;
pub mod sandbox;
pub mod secrecy;
