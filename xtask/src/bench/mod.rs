//! placeholder of this slice: being written.
use crate::TaskResult;
/// The options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}
/// Not yet.
pub(crate) fn run(_options: &Options) -> TaskResult {
    Err("the benchmark is not written yet".into())
}
