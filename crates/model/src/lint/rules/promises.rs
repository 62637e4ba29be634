//! What is promised: in tables of documents, in the configuration, and whether the two agree.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::SignedDuration;

use super::{Promises, quoted};
use crate::config::Origin;
use crate::finding::FindingCode;
use crate::id::ServiceName;
use crate::lint::read::{Document, Kind};
use crate::lint::words::{cells, spans};
use crate::lint::{Draft, Out};
use crate::objective::Objective;
use crate::service::Inventory;

pub(super) fn apply(text: usize, document: &Document<'_>, promises: Option<Promises<'_>>, out: &mut Out<'_>) {
    if document.kind != Kind::Prose {
        return;
    }
    for table in tables(document) {
        needed_first(text, &table, out);
        if let Some(promises) = promises {
            differs(text, &table, promises, out);
        }
    }
}

/// A row of a table of promises.
struct Row {
    name: String,
    rto: Option<(Range<usize>, u64)>,
    rpo: Option<(Range<usize>, u64)>,
    whole: String,
}

/// The tables of a document that have a column RTO or RPO.
fn tables(document: &Document<'_>) -> Vec<Vec<Row>> {
    let mut found = Vec::new();
    let mut columns: Option<(Option<usize>, Option<usize>)> = None;
    let mut is_inside = false;
    let mut rows: Vec<Row> = Vec::new();
    for index in document.prose_lines() {
        let lower = document.lower(index);
        if !lower.trim_start().starts_with('|') {
            if !rows.is_empty() {
                found.push(std::mem::take(&mut rows));
            }
            (is_inside, columns) = (false, None);
            continue;
        }
        let Some(row) = cells(lower) else { continue };
        let cell = |at: usize| row.get(at).and_then(|cell| lower.get(cell.clone())).unwrap_or_default();
        if !is_inside {
            is_inside = true;
            let column = |name: &str| {
                (1..row.len()).find(|at| cell(*at) == name || cell(*at).starts_with(&format!("{name} ")))
            };
            columns =
                Some((column("rto"), column("rpo"))).filter(|(rto, rpo)| rto.is_some() || rpo.is_some());
            continue;
        }
        let Some((rto, rpo)) = columns else { continue };
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        let value = |column: Option<usize>| {
            let cell_span = row.get(column?)?.clone();
            let said = lower.get(cell_span.clone())?;
            // One span and nothing else of note: `4 hours`, `< 4h`. A range has no one bound.
            let all = spans(said);
            let [(_, seconds)] = all.as_slice() else { return None };
            Some((start + cell_span.start..start + cell_span.end, *seconds))
        };
        rows.push(Row {
            name: cell(0).trim_matches(['*', '`', ' ']).to_owned(),
            rto: value(rto),
            rpo: value(rpo),
            whole: lower.to_owned(),
        });
    }
    if !rows.is_empty() {
        found.push(rows);
    }
    found
}

/// A service that all others need, with a recovery time that leaves the others none.
fn needed_first(text: usize, table: &[Row], out: &mut Out<'_>) {
    const NEEDED: [&str; 7] = [
        "needed for all other",
        "needed by all other",
        "required by all",
        "required for all",
        "everything depends on",
        "needed before all",
        "needed for every",
    ];
    let Some(first) = table.iter().find(|row| NEEDED.iter().any(|words| row.whole.contains(words))) else {
        return;
    };
    let Some((first_span, first_rto)) = first.rto.clone() else { return };
    for row in table.iter().filter(|row| row.name != first.name) {
        let Some((span, rto)) = row.rto.clone() else { continue };
        // What is rebuilt within minutes is not waited for by its name alone.
        if rto <= first_rto && rto >= 1800 {
            Draft::new(FindingCode::LintChainTooLong, text, span, &row.name)
                .says(format!(
                    "{} is to be back within {}, and {} before it may take {}",
                    quoted(&row.name),
                    words(rto),
                    quoted(&first.name),
                    words(first_rto)
                ))
                .because("what is needed first is recovered first; the promise has to hold the sum of both")
                .mend(format!(
                    "promise more than {}, or shorten the recovery of {}",
                    words(first_rto),
                    quoted(&first.name)
                ))
                .with(text, first_span.clone(), "needed for all others")
                .report(out);
        }
    }
}

fn words(seconds: u64) -> String {
    match seconds {
        _ if seconds.is_multiple_of(86_400) && seconds > 86_400 => format!("{} days", seconds / 86_400),
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// A row that names a service of the configuration and promises something else.
fn differs(text: usize, table: &[Row], promises: Promises<'_>, out: &mut Out<'_>) {
    for row in table {
        let Some(service) =
            promises.inventory.services.iter().find(|service| service.name.as_str() == row.name)
        else {
            continue;
        };
        for (what, said, objective) in
            [("RTO", &row.rto, service.objective.rto), ("RPO", &row.rpo, service.objective.rpo)]
        {
            let (Some((span, seconds)), Objective::Within(bound)) = (said, objective) else { continue };
            let promised = bound.as_secs().unsigned_abs();
            if promised != *seconds {
                let mut draft = Draft::new(FindingCode::LintPromiseDiffers, text, span.clone(), &row.name)
                    .says(format!("this text promises an {what} of {} for {}, the configuration one of {}", words(*seconds), quoted(&row.name), words(promised)))
                    .because("who reads the one plans with it; the other one is what is measured")
                    .mend("change one of them; seaworthy config show --origin says where the configuration has it from");
                let key = format!("services.{}.{}", service.name, what.to_ascii_lowercase());
                if let Some((config, place)) = origin(out.texts.len() - promises.texts.len(), promises, &key)
                {
                    draft = draft.with(config, place, "the configuration says it here");
                }
                draft.report(out);
            }
        }
    }
}

/// Where the configuration says something: the number of the text, counted behind the `documents` that were handed over, and
/// the line.
pub(super) fn origin(documents: usize, promises: Promises<'_>, key: &str) -> Option<(usize, Range<usize>)> {
    let Some(Origin::File { file, line }) = promises.origins.get(key) else { return None };
    let number = promises.texts.iter().position(|text| text.name == *file)?;
    let text = &promises.texts.get(number)?.text;
    let mut start = 0;
    for (index, content) in text.split_inclusive('\n').enumerate() {
        if index + 1 == *line {
            let trimmed = content.trim_end();
            let lead = trimmed.len() - trimmed.trim_start().len();
            return Some((documents + number, start + lead..start + trimmed.len()));
        }
        start += content.len();
    }
    None
}

/// What the configuration itself says: a promise that is shorter than what has to be back first.
pub(super) fn of_the_configuration(documents: usize, promises: Option<Promises<'_>>, out: &mut Out<'_>) {
    let Some(promises) = promises else { return };
    let mut known = BTreeMap::new();
    for service in &promises.inventory.services {
        if service.depends_on.is_empty() {
            continue;
        }
        let Objective::Within(own) = service.objective.rto else { continue };
        let Some((first, path)) = service
            .depends_on
            .iter()
            .filter_map(|needed| longest(promises.inventory, needed, &mut known, 0))
            .max_by_key(|(sum, _)| *sum)
        else {
            continue;
        };
        // Its own recovery takes something too: a sum that is as long as the promise leaves it nothing.
        if first < own {
            continue;
        }
        let keys = [
            format!("services.{}.rto", service.name),
            format!("services.{}.depends_on", service.name),
            format!("services.{}.tier", service.name),
        ];
        let place = keys.iter().find_map(|key| origin(documents, promises, key));
        let (text, span) = place.unwrap_or((documents, 0..0));
        let chain: Vec<String> = path
            .iter()
            .map(|name| {
                format!("{} ({})", name, words(rto(promises.inventory, name).unsigned_abs().as_secs()))
            })
            .collect();
        let mut draft = Draft::new(FindingCode::LintChainTooLong, text, span, service.name.as_str())
            .says(format!(
                "{} is to be back within {}, and what has to be back before it may take {}",
                quoted(service.name.as_str()),
                words(own.unsigned_abs().as_secs()),
                words(first.unsigned_abs().as_secs())
            ))
            .because(format!(
                "first: {}; services that do not wait for each other are counted side by side",
                chain.join(", then ")
            ))
            .mend(format!(
                "promise more than {}, shorten what comes first, or take it out of depends_on",
                words(first.unsigned_abs().as_secs())
            ));
        if let Some((text, place)) =
            origin(documents, promises, &format!("services.{}.depends_on", service.name))
        {
            draft = draft.with(text, place, "it depends on");
        }
        draft.report(out);
    }
}

fn rto(inventory: &Inventory, name: &ServiceName) -> SignedDuration {
    match inventory.service(name).map(|service| service.objective.rto) {
        Some(Objective::Within(bound)) => bound,
        _ => SignedDuration::ZERO,
    }
}

/// The longest chain that ends with `name`: how long it takes, and its services in the order of recovery.
fn longest(
    inventory: &Inventory,
    name: &ServiceName,
    known: &mut BTreeMap<ServiceName, (SignedDuration, Vec<ServiceName>)>,
    depth: usize,
) -> Option<(SignedDuration, Vec<ServiceName>)> {
    if let Some(answer) = known.get(name) {
        return Some(answer.clone());
    }
    // 100: an inventory has no circles; whoever changes that must not find this one running for ever.
    if depth > 100 {
        return None;
    }
    let service = inventory.service(name)?;
    let before = service
        .depends_on
        .iter()
        .filter_map(|needed| longest(inventory, needed, known, depth + 1))
        .max_by_key(|(sum, _)| *sum);
    let (sum, mut path) = before.unwrap_or_default();
    let total = sum.checked_add(rto(inventory, name)).unwrap_or(SignedDuration::MAX);
    path.push(name.clone());
    known.insert(name.clone(), (total, path.clone()));
    Some((total, path))
}
