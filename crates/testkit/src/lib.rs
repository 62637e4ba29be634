//! Development only: real servers, generators, faults.

pub mod postgres;
