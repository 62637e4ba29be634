//! Sets of copies that another tool makes: their table and its meaning.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use super::diagnostic::{Draft, Place, quoted};
use super::meaning::{Judge, Sited, sited};
use super::shape::{At, CheckTable, DurationText, PathText, SecretText};
use super::sources;
use crate::adopt::{AdoptedKind, AdoptedSet, Pattern, SidecarRule};
use crate::id::SourceName;

/// Rounds that `openssl enc -pbkdf2` makes where `-iter` says nothing.
const ITERATIONS: u32 = 10_000;
const SIDECAR: &str = "optional";

/// Copies that another tool makes, adopted so that they are drilled here. They have no witness: a drill shows that they can be
/// restored, never that they are equal to their source.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptedTable {
    /// What the copies are. `pg_dump`: custom, directory, tar and SQL format, of `pg_dumpall` too.
    #[schemars(required, extend("enum" = ["pg_dump"]))]
    pub(super) kind: Option<At<String>>,
    /// Directory that they lie in. Directories below it are not searched.
    #[schemars(required)]
    pub(super) location: Option<At<PathText>>,
    /// Which names in there are copies: text, `*` for any text, and `{year}`, `{month}`, `{day}`, `{hour}`, `{minute}`, `{second}`,
    /// `{date}` (`{year}-{month}-{day}`) or `{epoch}` where the name says when.
    #[schemars(required, extend("examples" = ["shop_{year}{month}{day}_{hour}{minute}*.dump"]))]
    pub(super) pattern: Option<At<String>>,
    /// IANA name of the zone whose wall clock the names are written in. Needed where they hold a day.
    #[schemars(extend("examples" = ["Europe/Amsterdam"]))]
    pub(super) zone: Option<At<String>>,
    /// What opens encrypted copies: the passphrase of `openssl enc -aes-256-cbc -pbkdf2` or of gpg, or an armoured private key of
    /// gpg's without a passphrase.
    pub(super) decrypt: Option<At<SecretText>>,
    /// Rounds of PBKDF2, where `openssl enc` was called with `-iter`.
    #[schemars(extend("default" = ITERATIONS))]
    pub(super) iterations: Option<At<u32>>,
    /// What is asked of `NAME.sha256` beside a copy. `optional`: it must hold where it is there.
    #[schemars(extend("default" = SIDECAR, "enum" = ["ignored", "optional", "required"]))]
    pub(super) sidecar: Option<At<String>>,
    /// Age at which the newest copy counts as stale. The service's where omitted.
    pub(super) stale_after: Option<At<DurationText>>,
    /// Tables whose rows are left out on purpose (`--exclude-table-data`), as `schema.table`.
    pub(super) without_rows: Option<At<Vec<At<String>>>>,
    /// Whether a copy without a row is healthy.
    #[schemars(extend("default" = false))]
    pub(super) may_be_empty: Option<At<bool>>,
    /// Directory of PostgreSQL's programs. Searched for where omitted.
    pub(super) bin_dir: Option<At<PathText>>,
    /// Questions asked of a restore.
    #[serde(default)]
    pub(super) checks: Vec<At<CheckTable>>,
}

/// Reads one set; `None` after something was reported.
pub(super) fn adopted(
    judge: &mut Judge<'_>,
    prefix: &str,
    service: &str,
    name: Option<SourceName>,
    table: Sited<'_, AdoptedTable>,
    service_stale_after: SignedDuration,
) -> Option<AdoptedSet> {
    let text = table.text;
    let written = &table.at.value;
    let kind_at = sited(text, written.kind.as_ref());
    judge.record(format!("{prefix}.kind"), kind_at.map(|at| at.place()).as_ref());
    let kind = kind_at.and_then(|at| AdoptedKind::named(&at.at.value));
    let location_at = sited(text, written.location.as_ref());
    judge.record(format!("{prefix}.location"), location_at.map(|at| at.place()).as_ref());
    let location = location_at.and_then(|at| judge.path("location", at));
    let pattern_at = sited(text, written.pattern.as_ref());
    judge.record(format!("{prefix}.pattern"), pattern_at.map(|at| at.place()).as_ref());
    let pattern = pattern_at.and_then(|at| match Pattern::new(at.at.value.as_str()) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            Draft::error(at.place(), format!("{} is no pattern: {error}", quoted(&at.at.value)))
                .hint("e.g. \"shop_{year}{month}{day}_{hour}{minute}*.dump\"; see `seaworthy adopt PATH`")
                .report(judge.sink);
            None
        }
    });
    let zone_at = sited(text, written.zone.as_ref());
    let zone = zone_at.and_then(|at| {
        judge.record(format!("{prefix}.zone"), Some(&at.place()));
        judge.zone(at)
    });
    let mut is_sound = zone.is_some() == zone_at.is_some();
    if let (Some(pattern), Some(at)) = (&pattern, pattern_at)
        && pattern.is_local()
        && zone_at.is_none()
    {
        Draft::error(at.place(), "a day in a name says nothing without the zone in which it was written")
            .label("a wall clock")
            .hint("add zone = \"Europe/Amsterdam\", or zone = \"UTC\"")
            .report(judge.sink);
        is_sound = false;
    }
    let decrypt_at = sited(text, written.decrypt.as_ref());
    let decrypt = decrypt_at.and_then(|at| {
        judge.record(format!("{prefix}.decrypt"), Some(&at.place()));
        judge.secret(at)
    });
    is_sound &= decrypt.is_some() == decrypt_at.is_some();
    let iterations_at = sited(text, written.iterations.as_ref());
    judge.record(format!("{prefix}.iterations"), iterations_at.map(|at| at.place()).as_ref());
    if let Some(at) = iterations_at.filter(|at| at.at.value == 0) {
        Draft::error(at.place(), "no rounds make no key").hint("write what -iter said").report(judge.sink);
        is_sound = false;
    }
    let sidecar_at = sited(text, written.sidecar.as_ref());
    judge.record(format!("{prefix}.sidecar"), sidecar_at.map(|at| at.place()).as_ref());
    let word = sidecar_at.map_or(SIDECAR, |at| at.at.value.as_str());
    let sidecar = SidecarRule::ALL.into_iter().find(|rule| rule.as_str() == word);
    let stale_at = sited(text, written.stale_after.as_ref());
    judge.record(format!("{prefix}.stale_after"), stale_at.map(|at| at.place()).as_ref());
    let stale_after = stale_at.and_then(|at| judge.positive(at)).unwrap_or(service_stale_after);
    let without_rows =
        judge.list(&format!("{prefix}.without_rows"), "table", text, written.without_rows.as_ref());
    for at in written.without_rows.iter().flat_map(|list| &list.value) {
        if !at.value.is_empty() && !at.value.contains('.') {
            Draft::error(
                Place { text, span: at.span.clone() },
                format!("{} does not say in which schema the table is", quoted(&at.value)),
            )
            .hint("write it as schema.table")
            .report(judge.sink);
            is_sound = false;
        }
    }
    let may_be_empty = judge.flag(&format!("{prefix}.may_be_empty"), text, written.may_be_empty.as_ref());
    let bin_dir = sited(text, written.bin_dir.as_ref()).and_then(|at| {
        judge.record(format!("{prefix}.bin_dir"), Some(&at.place()));
        judge.path("directory", at)
    });
    let checks = sources::checks(judge, prefix, service, sources::Kind::Postgres, text, &written.checks);
    if !is_sound {
        return None;
    }
    Some(AdoptedSet {
        name: name?,
        kind: kind?,
        location: location?,
        pattern: pattern?,
        zone,
        decrypt,
        iterations: iterations_at.map_or(ITERATIONS, |at| at.at.value),
        sidecar: sidecar?,
        stale_after,
        without_rows,
        may_be_empty,
        bin_dir,
        checks,
    })
}
