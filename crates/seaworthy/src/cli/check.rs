//! stub
use tokio_util::sync::CancellationToken;
use crate::cli::args::{Check, Cli};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::Face;
pub(crate) async fn run(_: &Cli, _: &Face, _: &Check, _: CancellationToken) -> Outcome { Ok(Exit::Unexpected) }
