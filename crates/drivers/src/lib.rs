//! The world: one module per driver, one feature per heavy dependency.

pub mod sandbox;
