//! Trees of files as a source. Not implemented yet.
