//! Which copies a moment is restored from: the one whose log holds it, or the one before it and the log that leads on from there.

use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_engine::store::SnapshotReader;
use seaworthy_interface::{CopyReader, Cx};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::service::{Service, ServiceSource};
use seaworthy_model::wal::Target;
use seaworthy_model::witness::{PhysicalFacts, Witness};

use super::witness_of;
use crate::app::{self, Opened, reference};
use crate::cli::args::Choice;
use crate::cli::drill::{Chosen, choose};
use crate::cli::wal;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::Face;
use crate::render::drill::instant;
use crate::setup::Setup;

/// A copy whose log leads on from the one that is restored.
pub(crate) type Behind = (Witness, Arc<dyn CopyReader>);

/// What a choice is made with.
pub(crate) struct Ground<'a> {
    pub(crate) face: &'a Face,
    pub(crate) setup: &'a Setup,
    pub(crate) memory: &'a Memory,
    pub(crate) cx: &'a Cx,
    pub(crate) service: &'a Service,
    pub(crate) source: &'a ServiceSource,
    pub(crate) choice: &'a Choice,
}

/// What a copy of a whole cluster says of its log.
pub(crate) fn facts(witness: &Witness) -> Option<&PhysicalFacts> {
    match witness {
        Witness::Postgres(witness) => witness.physical.as_ref(),
        Witness::Sqlite(_) | Witness::Files(_) => None,
    }
}

/// From when on a copy can be restored to any moment up to its own.
fn since(facts: Option<&PhysicalFacts>, point: &RecoveryPoint) -> Timestamp {
    facts.and_then(|facts| facts.base.as_ref()).map_or(point.point, |base| base.at)
}

impl Ground<'_> {
    async fn read(&self, chosen: &Chosen, point: &RecoveryPoint) -> Outcome<Behind> {
        let reader: Arc<dyn CopyReader> =
            Arc::new(SnapshotReader::new(self.cx, &chosen.repository, &point.copy)?);
        Ok((witness_of(self.face, &reader, point).await?, reader))
    }

    async fn exactly(&self, opened: &mut Opened, point: &RecoveryPoint) -> Outcome<Chosen> {
        let choice = Choice { point: point.copy.0.clone(), ..self.choice.clone() };
        choose(self.setup, self.memory, self.cx, opened, self.service, self.source, &choice).await
    }

    /// Whether some of the log behind a copy was received.
    async fn leads_on(&self, chosen: &Chosen, point: &RecoveryPoint) -> Outcome<bool> {
        let (witness, _) = self.read(chosen, point).await?;
        let Some(facts) = facts(&witness) else { return Ok(false) };
        let journal = wal::journal(self.cx, &chosen.repository, self.service, self.source);
        Ok(wal::held(&journal).await?.iter().any(|piece| {
            piece.of.timeline == facts.timeline && (piece.of.from..piece.of.to).contains(&facts.until)
        }))
    }

    /// Refuses a copy that was named where the moment is behind its end and the log that leads there is in a newer copy.
    async fn leads_to(&self, chosen: &Chosen, until: &Target) -> Outcome<()> {
        let point = &chosen.point;
        let id = reference(&chosen.spec, &chosen.repository).id;
        let points = app::points(self.memory, &self.service.name, &self.source.name, Some(&id)).await?;
        let Some(newer) = points
            .iter()
            .filter(|other| !other.is_gone() && other.point > point.point)
            .min_by_key(|other| other.point)
        else {
            return Ok(());
        };
        let is_behind = match until {
            Target::Latest => true,
            Target::Time(time) => *time > point.point,
            Target::Position(position) => {
                let (witness, _) = self.read(chosen, point).await?;
                facts(&witness).is_some_and(|facts| facts.until < *position)
            }
            Target::Transaction(_) | Target::Name(_) | Target::Immediate => false,
        };
        if !is_behind || self.leads_on(chosen, point).await? {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Usage,
            format!(
                "restore to {}: the log behind the copy of {} is in newer copies, the next one is of {}",
                printable(&until.to_string()),
                instant(point.point),
                instant(newer.point)
            ),
        )
        .hint("leave --point out: the copy that leads to the moment is found"))
    }

    /// The copy to restore, and those behind it.
    pub(crate) async fn choose(&self, opened: &mut Opened, until: &Target) -> Outcome<(Chosen, Vec<Behind>)> {
        let newest =
            choose(self.setup, self.memory, self.cx, opened, self.service, self.source, self.choice).await?;
        if self.choice.point != "latest" {
            self.leads_to(&newest, until).await?;
            return Ok((newest, Vec::new()));
        }
        if !matches!(until, Target::Time(_) | Target::Position(_)) {
            return Ok((newest, Vec::new()));
        }
        let id = reference(&newest.spec, &newest.repository).id;
        let mut points = app::points(self.memory, &self.service.name, &self.source.name, Some(&id)).await?;
        points.retain(|point| !point.is_gone());
        points.sort_by_key(|point| (point.point, point.sequence));
        let at = match until {
            Target::Time(time) => points.partition_point(|point| point.point < *time),
            // The positions of copies rise with their instants.
            Target::Position(position) => {
                let (mut from, mut to) = (0, points.len());
                while from < to {
                    let middle = from + (to - from) / 2;
                    let (witness, _) = self.read(&newest, &points[middle]).await?;
                    let is_before = facts(&witness).is_none_or(|facts| facts.until < *position);
                    if is_before { from = middle + 1 } else { to = middle }
                }
                from
            }
            _ => points.len(),
        };
        let Some(point) = points.get(at) else {
            let journal = wal::journal(self.cx, &newest.repository, self.service, self.source);
            if !wal::held(&journal).await?.is_empty() {
                // Whether it holds the moment is told when it is read.
                return Ok((newest, Vec::new()));
            }
            return Err(Failure::new(
                Exit::NotFound,
                format!(
                    "restore to {}: the newest copy of {}/{} in `{}` is of {}",
                    printable(&until.to_string()),
                    self.service.name,
                    self.source.name,
                    newest.spec.name,
                    points.last().map_or_else(|| "no instant".to_owned(), |point| instant(point.point))
                ),
            )
            .hint(format!(
                "what was written since is in no copy yet; while the server lives: seaworthy backup {}",
                self.service.name
            )));
        };
        let (witness, reader) = self.read(&newest, point).await?;
        let known = facts(&witness);
        let is_inside = match until {
            Target::Position(position) => known.is_some_and(|facts| facts.consistent <= *position),
            Target::Time(time) => since(known, point) <= *time,
            _ => true,
        };
        if is_inside {
            return Ok((self.exactly(opened, point).await?, Vec::new()));
        }
        let between = known.and_then(|facts| facts.between.as_ref()).filter(|between| match until {
            Target::Time(time) => between.since <= *time,
            _ => true,
        });
        let before =
            between.and_then(|between| points.iter().take(at).rfind(|point| point.point == between.since));
        if let Some(before) = before {
            return Ok((self.exactly(opened, before).await?, vec![(witness, reader)]));
        }
        let before = at.checked_sub(1).and_then(|at| points.get(at));
        if let Some(before) = before
            && self.leads_on(&newest, before).await?
        {
            // Whether it leads as far as the moment is told when it is read.
            return Ok((self.exactly(opened, before).await?, Vec::new()));
        }
        let nearest = match before {
            Some(before) => format!(
                "the nearest moments are {} (--point {}) and {}",
                instant(before.point),
                before.copy.0.get(..12).unwrap_or(&before.copy.0),
                instant(since(known, point))
            ),
            None => format!("the oldest moment is {}", instant(since(known, point))),
        };
        Err(Failure::new(
            Exit::NotFound,
            format!(
                "restore to {}: no copy of {}/{} in `{}` holds the log of that moment",
                printable(&until.to_string()),
                self.service.name,
                self.source.name,
                newest.spec.name
            ),
        )
        .hint(nearest))
    }
}
