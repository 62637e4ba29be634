//! The files source against real trees.
