//! A cluster that is recovered in a sandbox to a moment that its log holds: what [`super::deliver`] makes for people, with an engine that
//! runs, and looked at.
//!
//! There is no witness of such a moment. What is shown of it is that every record up to it was applied and none behind it, that files and
//! pages are those of the base backup, and that the engine's own tool finds tables and indexes sound.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_interface::{Cx, Damage, DriverError, ErrorKind, Journal, Restored, Sandbox};
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::verdict::CheckReport;
use seaworthy_model::wal::{Reached, Target};
use seaworthy_model::witness::{PhysicalFacts, PhysicalSeen, Witness};

use super::super::restore::{Filled, blocking, room};
use super::super::restored::RestoredPostgres;
use super::super::wal::stop::NoStop;
use super::deliver::{Copy, Looked, chain, cut, fetch, look, put_into_place};
use super::restore::{Started, engine, opened, physical_of, start, stopping, why};
use super::verify;

fn missed(kind: ErrorKind, detail: String) -> DriverError {
    DriverError::new(kind, detail).code(FindingCode::MomentMissed)
}

/// An error of the log: damage is the log's, and decides; anything else does not.
fn of_log(error: DriverError) -> DriverError {
    match error.kind {
        ErrorKind::Corrupt | ErrorKind::NotFound => missed(ErrorKind::Corrupt, why(&error)),
        ErrorKind::Refused => missed(ErrorKind::Refused, why(&error)),
        _ => error,
    }
}

/// Recovers the first of `copies` to `until`; see [`seaworthy_interface::Source::restore_until`].
pub(in super::super) async fn restore(
    cx: &Cx,
    copies: &[Copy],
    journal: Arc<dyn Journal>,
    sandbox: Arc<dyn Sandbox>,
    programs: &[PathBuf],
    until: &Target,
) -> Result<RestoredMoment, DriverError> {
    let (witness, from) =
        copies.first().ok_or_else(|| DriverError::new(ErrorKind::Other, "restore no copy"))?;
    let engine = engine(cx, witness, &sandbox, programs).await?;
    let root = sandbox.root().to_path_buf();
    let mut facts = chain(copies).map_err(of_log)?;
    cx.phase("log");
    let looked = look(cx, copies, Some(journal), &root, &mut facts, until).await.map_err(of_log)?;
    let Looked { seen: log, beyond, known, last, stop } = looked;
    let hole = beyond.map(|at| format!("more of the log is kept from {at} on; what lies before that is not"));
    let stop = match (stop, hole) {
        (Ok(stop), Some(hole)) if *until == Target::Latest => {
            return Err(missed(
                ErrorKind::Corrupt,
                format!("the log leads to {} and no farther: {hole}", stop.1),
            ));
        }
        (Ok(stop), _) => stop,
        (Err(error @ NoStop::Never { .. }), Some(hole)) => {
            return Err(missed(ErrorKind::Corrupt, format!("{until}: {error}; {hole}")));
        }
        (Err(error), _) => return Err(missed(ErrorKind::Refused, format!("{until}: {error}"))),
    };
    let at = match until {
        Target::Time(time) => *time,
        Target::Latest => last.map_or(known, |last| last.max(known)),
        _ => last.unwrap_or(witness.snapshot.at),
    };
    let (place, mut kept) = (root.clone(), facts);
    let facts = blocking(cx, move || {
        if stop.1 < kept.until {
            cut(&place.join(super::deliver::LOG), &mut kept, stop.1)?;
        }
        (kept.last, kept.until) = stop;
        Ok(kept)
    })
    .await?;
    cx.phase("fetch");
    fetch(cx, physical_of(witness)?, from, &root).await.map_err(room)?;
    put_into_place(cx, &root, &facts).await?;
    cx.phase("verify");
    let rest = PhysicalFacts { log: BTreeMap::new(), ..facts.clone() };
    let (place, stopped) = (root.clone(), stopping(cx));
    let files = blocking(cx, move || verify::verify(&place, &rest, &stopped)).await?;
    let seen = PhysicalSeen { log: log.log, ..files };
    let mut started = start(cx, &engine, witness, &facts, &sandbox, seen).await?;
    match opened(cx, witness, &mut started).await {
        Ok(filled) => {
            let Started { address, process, seen, .. } = started;
            let filled = Filled { findings: Vec::new(), ..filled };
            let inner = RestoredPostgres::new(sandbox, process, address, at, filled);
            let bytes = stop.1.0.saturating_sub(facts.from.0);
            let reached = Reached { target: until.clone(), at, position: stop.1, bytes };
            Ok(RestoredMoment { inner, facts, seen, reached })
        }
        Err(error) => Err(started.give_up(error).await),
    }
}

/// A cluster that was recovered to a moment.
#[derive(Debug)]
pub(in super::super) struct RestoredMoment {
    inner: RestoredPostgres,
    facts: PhysicalFacts,
    seen: PhysicalSeen,
    reached: Reached,
}

fn without_witness() -> DriverError {
    DriverError::new(
        ErrorKind::Unsupported,
        "damage a restore of a moment: it has no witness that would tell",
    )
}

#[async_trait]
impl Restored for RestoredMoment {
    fn summary(&self) -> String {
        format!("{}, recovered to {}", self.inner.summary(), self.reached.position)
    }

    fn findings(&self) -> Vec<Finding> {
        self.inner.findings()
    }

    fn engine_identity(&self) -> Option<String> {
        self.inner.engine_identity()
    }

    fn reached(&self) -> Option<Reached> {
        Some(self.reached.clone())
    }

    async fn compare(&self, cx: &Cx, _: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        cx.check()?;
        Ok(self.facts.compare(&self.seen))
    }

    async fn newest(&self, cx: &Cx) -> Result<Option<Timestamp>, DriverError> {
        self.inner.newest(cx).await
    }

    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError> {
        self.inner.answer(cx, check, point).await
    }

    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError> {
        self.inner.write_probe(cx).await
    }

    async fn damage(&self, _: &Cx, _: &Witness, _: u64) -> Result<Damage, DriverError> {
        Err(without_witness())
    }

    async fn close(self: Box<Self>, cx: &Cx) -> Result<(), DriverError> {
        Box::new(self.inner).close(cx).await
    }
}
