//! Development only: real servers, real copies on a disk, real directories as sandboxes, generators, faults.
//!
//! Nothing here is linked into the product.

pub mod bucket;
pub mod components;
pub mod copy;
pub mod emulator;
pub mod estate;
pub mod gateway;
#[cfg(feature = "product")]
pub mod load;
pub mod page;
pub mod postgres;
#[cfg(feature = "product")]
pub mod product;
pub mod proxy;
pub mod sandbox;
pub mod terminal;
