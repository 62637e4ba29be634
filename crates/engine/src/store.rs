//! Bridges the store and the doors.
