//! The world: one module per driver, one feature per heavy dependency.

pub mod sandbox;
//! The world: one module for each driver, one feature for each heavy dependency. Modules never import one another.

pub mod source;
