//! One file per verb. A verb reads its arguments, calls what does the work, and prints what came of it.

mod adopt;
pub(crate) mod args;
mod backup;
mod catalogue;
mod check;
mod comply;
mod config;
mod doctor;
mod drill;
mod help;
mod hold;
mod independent;
mod init;
mod keys;
mod kit;
mod lint;
mod posture;
mod prove;
mod prune;
mod receipts;
mod replicate;
mod restore;
mod retain;
mod status;
mod verify;
mod wal;

use std::sync::Arc;
use std::time::Duration;

use seaworthy_interface::Cx;
use seaworthy_interface::cx::ProgressSink;
use tokio_util::sync::CancellationToken;

pub(crate) use self::adopt::names as source_names;
pub(crate) use self::backup::report as backup_report;
pub(crate) use self::drill::one as drill_one;
use crate::cli::args::{Cli, ConfigAction, DrillAction, Verb};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Face;

/// Carries out a verb.
pub(crate) fn run(cli: &Cli, face: &Face) -> Outcome {
    match &cli.verb {
        Verb::Demo(arguments) => waiting(cli, |cancel| crate::demo::run(cli, face, arguments, cancel)),
        Verb::Init(arguments) => waiting(cli, |cancel| init::run(cli, face, arguments, cancel)),
        Verb::Doctor(_) => waiting(cli, |cancel| doctor::run(cli, face, cancel)),
        Verb::Config(arguments) => match arguments.action {
            ConfigAction::Check => config::check(cli, face),
            ConfigAction::Show { origin } => config::show(cli, face, origin),
            ConfigAction::Schema => config::schema(face),
        },
        Verb::Lint(arguments) => waiting(cli, |cancel| lint::run(cli, face, arguments, cancel)),
        Verb::Backup(arguments) => waiting(cli, |cancel| backup::run(cli, face, arguments, cancel)),
        Verb::Drill(arguments) => match &arguments.action {
            None => waiting(cli, |cancel| drill::run(cli, face, &arguments.run, cancel)),
            Some(DrillAction::Run(run)) => waiting(cli, |cancel| drill::run(cli, face, run, cancel)),
            Some(DrillAction::List { service }) => {
                waiting(cli, |_| drill::list(cli, face, service.as_deref()))
            }
            Some(DrillAction::Show { run, format }) => waiting(cli, |_| drill::show(cli, face, run, *format)),
        },
        Verb::Status(arguments) => waiting(cli, |_| status::run(cli, face, arguments)),
        Verb::Restore(arguments) => waiting(cli, |cancel| restore::run(cli, face, arguments, cancel)),
        Verb::Wal(arguments) => waiting(cli, |cancel| wal::run(cli, face, arguments, cancel)),
        Verb::Points(arguments) => waiting(cli, |_| status::points(cli, face, arguments)),
        Verb::Receipts(arguments) => waiting(cli, |_| receipts::run(cli, face, arguments)),
        Verb::Verify(arguments) => verify::run(cli, face, arguments),
        Verb::Retain(arguments) => waiting(cli, |cancel| retain::run(cli, face, arguments, cancel)),
        Verb::Hold(arguments) => waiting(cli, |cancel| hold::run(cli, face, arguments, cancel)),
        Verb::Prune(arguments) => waiting(cli, |cancel| prune::run(cli, face, arguments, cancel)),
        Verb::Replicate(arguments) => waiting(cli, |cancel| replicate::run(cli, face, arguments, cancel)),
        Verb::Comply(arguments) => waiting(cli, |cancel| comply::run(cli, face, arguments, cancel)),
        Verb::Adopt(arguments) => waiting(cli, |cancel| adopt::run(cli, face, arguments, cancel)),
        Verb::Check(arguments) => waiting(cli, |cancel| check::run(cli, face, arguments, cancel)),
        Verb::Posture(arguments) => waiting(cli, |cancel| posture::run(cli, face, arguments, cancel)),
        Verb::Keys(arguments) => waiting(cli, |cancel| keys::run(cli, face, arguments, cancel)),
        Verb::Kit(arguments) => waiting(cli, |cancel| kit::run(cli, face, arguments, cancel)),
        Verb::Catalogue(arguments) => waiting(cli, |cancel| catalogue::run(cli, face, arguments, cancel)),
        Verb::Completions(arguments) => help::completions(face, arguments),
        Verb::Man(arguments) => help::man(cli, face, arguments),
        Verb::Help(arguments) => help::run(face, arguments),
    }
}

/// How long a run that was asked to stop may take to clean up before the process ends regardless.
const GRACE: Duration = Duration::from_secs(10);

/// Runs an asynchronous verb. The first Ctrl-C (or SIGTERM) asks it to stop; the second, or ten seconds, ends it.
fn waiting<F>(cli: &Cli, verb: impl FnOnce(CancellationToken) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let timeout = cli.global.timeout.as_deref().map(span).transpose()?;
    // `restic unlock` asks whether the holder of a lock lives by sending it SIGHUP; unhandled, the question would kill us.
    seaworthy_repository::survive_hangup()
        .map_err(|error| crate::wiring::repository_failure("outlive a hang-up", error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because(Exit::Unexpected, "start the runtime", &error))?;
    let cancel = CancellationToken::new();
    let result = runtime.block_on(async {
        let work = verb(cancel.clone());
        tokio::pin!(work);
        let stop = async {
            let late = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                word = signalled() => word,
                () = late => Ok(Stopped::TimedOut),
            }
        };
        let stopped = tokio::select! {
            result = &mut work => return result,
            stopped = stop => stopped?,
        };
        tell(&format!("{}: stopping; Ctrl-C to stop at once", stopped.word()));
        cancel.cancel();
        tokio::select! {
            result = &mut work => stopped.ending(result),
            _ = signalled() => Err(interrupted(Exit::Interrupted, "stopped at once")),
            () = tokio::time::sleep(GRACE) => Err(interrupted(stopped.exit(), "it did not stop within 10 s")),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// Why a verb was asked to stop.
#[derive(Debug, Clone, Copy)]
enum Stopped {
    Interrupted,
    Terminated,
    TimedOut,
}

impl Stopped {
    fn word(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::TimedOut => "--timeout is over",
        }
    }

    /// Somebody's wish to stop is 130; a deadline leaves the question open.
    fn exit(self) -> Exit {
        match self {
            Self::Interrupted | Self::Terminated => Exit::Interrupted,
            Self::TimedOut => Exit::Unknown,
        }
    }

    /// The ending of work that was asked to stop: what it had decided by then stands, anything else was the stop.
    fn ending(self, result: Outcome) -> Outcome {
        match result {
            Ok(
                exit @ (Exit::Ok
                | Exit::DrillFailed
                | Exit::ObjectiveMissed
                | Exit::Findings
                | Exit::Incomplete),
            ) => Ok(exit),
            Ok(_) => Ok(self.exit()),
            Err(failure) => Err(Failure { exit: self.exit(), ..failure }),
        }
    }
}

fn interrupted(exit: Exit, how: &str) -> Failure {
    Failure::new(exit, format!("stopped: {how}")).hint(
        "no copy is half visible; the next run removes what is left: locks, sandboxes, unfinished packs",
    )
}

async fn signalled() -> Outcome<Stopped> {
    let failed = |error: std::io::Error| Failure::because(Exit::Unexpected, "listen for signals", &error);
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map(|()| Stopped::Interrupted).map_err(failed),
        _ = terminate.recv() => Ok(Stopped::Terminated),
    }
}

fn tell(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stderr().lock(), "{line}").is_err() {
        // Nobody reads standard error any more; the run stops all the same.
    }
}

/// A context of the run.
pub(crate) fn context(cancel: &CancellationToken, sink: ProgressSink) -> Cx {
    Cx::new(cancel.clone(), sink)
}

/// A context that tells nobody how far it is.
pub(crate) fn silent(cancel: &CancellationToken) -> Cx {
    Cx::new(cancel.clone(), Arc::new(|_| {}))
}

/// Reads `90m`, `24h`, `30d` as a span of time.
pub(crate) fn span(text: &str) -> Outcome<Duration> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => 0_u64,
    };
    let count: Option<u64> = count.parse().ok().filter(|_| seconds > 0);
    count.and_then(|count| count.checked_mul(seconds)).map(Duration::from_secs).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{}` is not a span of time", crate::failure::printable(text)))
            .hint("write e.g. 45s, 90m, 24h, 30d")
    })
}

/// Reads an instant in RFC 3339.
pub(crate) fn instant(text: &str) -> Outcome<jiff::Timestamp> {
    text.parse().map_err(|_| {
        Failure::new(Exit::Usage, format!("`{}` is not an instant", crate::failure::printable(text)))
            .hint("write e.g. 2026-11-21T12:00:00Z")
    })
}

/// Now, or the instant that `--as-of` asks for.
pub(crate) fn as_of(cli: &Cli) -> Outcome<jiff::Timestamp> {
    cli.global.as_of.as_deref().map_or_else(|| Ok(jiff::Timestamp::now()), instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(span("90m").unwrap(), Duration::from_secs(5400));
        for wrong in ["90", "", "m", "-1h", "1y", "99999999999999999999d"] {
            assert!(span(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
