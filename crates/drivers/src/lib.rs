//! The world: one module for each driver, one feature for each heavy dependency. Modules never import one another.

pub mod sandbox;
pub mod source;
#[cfg(any(feature = "s3", feature = "google", feature = "azure"))]
pub mod store;
