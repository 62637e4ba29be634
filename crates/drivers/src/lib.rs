//! The world: one module for each driver, one feature for each heavy dependency. Modules never import one another.

pub mod sandbox;
pub mod source;
