//! Meaning: from tables whose shape is right to an inventory that cannot be wrong.
//!
//! Names must resolve, paths must be absolute, promises must be kept by their schedules, secrets must be references.
//! Nothing stops at the first problem, and no value is guessed: what is omitted takes a documented default, whose origin
//! is recorded.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::tz::TimeZoneDatabase;

use super::cadence::{Cadence, CronError, cadence};
use super::custody;
use super::diagnostic::{Draft, Place, Sink, quoted};
use super::nearest::nearest;
use super::remote::remote;
use super::shape::{
    At, DefaultsTable, DrillTable, DurationText, FileTable, NameText, ObjectiveText, PathText,
    RepositoryTable, RetentionTable, ScheduleTable, ServiceTable, TierTable, built_in,
};
use super::sources;
use super::units::{DurationError, format_duration, parse_duration};
use super::{Origin, Origins};
use crate::id::{NameError, RepositoryName, ServiceName, SourceName, TierName};
use crate::objective::{Objective, RecoveryObjective};
use crate::secret::SecretRef;
use crate::service::{
    DrillPolicy, Inventory, RepositorySpec, RetentionSpec, ScheduleSpec, Service, ServiceSource,
};

/// One parsed file.
pub(super) struct Document {
    pub(super) text: usize,
    pub(super) table: FileTable,
}

/// A value and the file that it is in.
#[derive(Debug)]
pub(super) struct Sited<'a, T> {
    pub(super) text: usize,
    pub(super) at: &'a At<T>,
}

impl<T> Clone for Sited<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Sited<'_, T> {}

impl<T> Sited<'_, T> {
    pub(super) fn place(&self) -> Place {
        Place { text: self.text, span: self.at.span.clone() }
    }
}

pub(super) fn sited<T>(text: usize, at: Option<&At<T>>) -> Option<Sited<'_, T>> {
    at.map(|at| Sited { text, at })
}

/// Own value before default value.
pub(super) fn layered<'a, T>(
    own: Option<&'a At<T>>,
    text: usize,
    default: Option<&'a At<T>>,
) -> Option<Sited<'a, T>> {
    // Defaults stand in the root file only, which is the first.
    sited(text, own).or(sited(0, default))
}

pub(super) struct Judge<'s> {
    pub(super) sink: &'s mut Sink,
    origins: Origins,
    cadences: BTreeMap<String, Result<Cadence, CronError>>,
    zones: TimeZoneDatabase,
}

/// An objective, where it was promised, and in whose words.
#[derive(Clone)]
struct Promise {
    objective: Objective,
    place: Place,
    origin: Origin,
}

struct Tier {
    rpo: Promise,
    rto: Promise,
}

struct Scheduled {
    spec: ScheduleSpec,
    cadence: Cadence,
    place: Place,
}

impl Judge<'_> {
    pub(super) fn origin(&self, place: &Place) -> Origin {
        Origin::File { file: self.sink.name(place.text).to_owned(), line: self.sink.line(place) }
    }

    pub(super) fn record(&mut self, key: String, place: Option<&Place>) {
        let origin = place.map_or(Origin::Default, |place| self.origin(place));
        self.origins.insert(key, origin);
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        value: Option<Sited<'_, DurationText>>,
        default: &str,
    ) -> SignedDuration {
        self.record(key.to_owned(), value.map(|value| value.place()).as_ref());
        value
            .and_then(|value| self.read_duration(value.place(), &value.at.value.0))
            .unwrap_or_else(|| built_in_duration(default))
    }

    pub(super) fn positive(&mut self, value: Sited<'_, DurationText>) -> Option<SignedDuration> {
        self.read_duration(value.place(), &value.at.value.0)
    }

    fn read_duration(&mut self, place: Place, text: &str) -> Option<SignedDuration> {
        match parse_duration(text) {
            Ok(duration) if duration.is_zero() => {
                Draft::error(place, "a duration of nothing is no duration").report(self.sink);
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                let message = match &error {
                    DurationError::Calendar { .. } => {
                        format!("{} is a calendar span, not a duration", quoted(text))
                    }
                    other => format!("{} is not a duration: {other}", quoted(text)),
                };
                let label = match &error {
                    DurationError::Calendar { .. } => "its length depends on when it begins",
                    _ => "",
                };
                Draft::error(place, message).label(label).hint_if(error.hint()).report(self.sink);
                None
            }
        }
    }

    fn objective(&mut self, value: Sited<'_, ObjectiveText>) -> Option<Objective> {
        let text = value.at.value.0.trim();
        if text == "not-applicable" {
            return Some(Objective::NotApplicable);
        }
        let folded: String = text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        if matches!(folded.as_str(), "na" | "none" | "never" | "notapplicable" | "ephemeral") {
            Draft::error(value.place(), format!("{} is not an objective", quoted(text)))
                .hint("write \"not-applicable\", and say why in `rationale`")
                .report(self.sink);
            return None;
        }
        self.read_duration(value.place(), text).map(Objective::Within)
    }

    /// An absolute path without `..`, as it may be handed to a program.
    pub(super) fn path(&mut self, what: &str, value: Sited<'_, PathText>) -> Option<String> {
        self.absolute(what, value.place(), &value.at.value.0)
    }

    pub(super) fn absolute(&mut self, what: &str, place: Place, text: &str) -> Option<String> {
        check_path(self.sink, what, place, text)
    }

    pub(super) fn name<T: TryFrom<String, Error = NameError>>(
        &mut self,
        what: &str,
        place: Place,
        text: &str,
    ) -> Option<T> {
        match T::try_from(text.to_owned()) {
            Ok(name) => Some(name),
            Err(error) => {
                let error = match error {
                    NameError::Character(character) if character.is_control() => {
                        "a control character is not allowed in a name".to_owned()
                    }
                    other => other.to_string(),
                };
                let lowered: String = text
                    .to_lowercase()
                    .chars()
                    .map(
                        |character| {
                            if character.is_whitespace() || character == '/' { '-' } else { character }
                        },
                    )
                    .collect();
                let hint =
                    (T::try_from(lowered.clone()).is_ok()).then(|| format!("write {}", quoted(&lowered)));
                Draft::error(place, format!("{} cannot be the name of a {what}: {error}", quoted(text)))
                    .hint_if(hint)
                    .report(self.sink);
                None
            }
        }
    }

    pub(super) fn secret(&mut self, value: Sited<'_, super::shape::SecretText>) -> Option<SecretRef> {
        let place = value.place();
        let reference = match SecretRef::try_from(value.at.value.0.clone()) {
            Ok(reference) => reference,
            Err(error) => {
                self.sink.mask(place.clone());
                Draft::error(place, error.to_string()).label("not shown").report(self.sink);
                return None;
            }
        };
        match &reference {
            SecretRef::File(path) => {
                self.absolute("secret's file", place, path)?;
            }
            SecretRef::Env(name) => {
                let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                    && !name.starts_with(|c: char| c.is_ascii_digit());
                if !is_name {
                    // Perhaps the secret itself, so it is not shown.
                    self.sink.mask(place.clone());
                    Draft::error(place, "what follows `env:` is not the name of an environment variable")
                        .label("not shown")
                        .hint("write the variable's name: \"env:REPOSITORY_PASSWORD\"")
                        .report(self.sink);
                    return None;
                }
            }
            SecretRef::Systemd(name) => {
                if name.contains('/') || name.starts_with('.') {
                    Draft::error(place, "a systemd credential is named, not a path")
                        .hint("write the name that LoadCredential= gives it")
                        .report(self.sink);
                    return None;
                }
            }
            SecretRef::Cmd(_) | SecretRef::Vault { .. } => {}
        }
        Some(reference)
    }

    fn cadence(&mut self, cron: &str) -> Result<Cadence, CronError> {
        self.cadences.entry(cron.to_owned()).or_insert_with(|| cadence(cron)).clone()
    }

    fn schedule(&mut self, key: &str, value: Option<Sited<'_, ScheduleTable>>) -> Option<Scheduled> {
        let value = value?;
        self.record(key.to_owned(), Some(&value.place()));
        let table = &value.at.value;
        // A key that is missing has been reported with the shape.
        let cron = sited(value.text, table.cron.as_ref());
        let zone = sited(value.text, table.zone.as_ref());
        let measured = cron.and_then(|cron| match self.cadence(&cron.at.value) {
            Ok(measured) => Some(measured),
            Err(error) => {
                let hint = match &error {
                    CronError::Fields(6) => Some("leave the seconds out".to_owned()),
                    CronError::Fields(_) => Some("e.g. \"0 2 * * *\" for every day at 02:00".to_owned()),
                    CronError::Field(_) | CronError::Never => None,
                };
                Draft::error(cron.place(), format!("{} is no schedule: {error}", quoted(&cron.at.value)))
                    .hint_if(hint)
                    .report(self.sink);
                None
            }
        });
        let known_zone = zone.and_then(|zone| self.zone(zone));
        Some(Scheduled {
            cadence: measured?,
            spec: ScheduleSpec { cron: cron?.at.value.clone(), zone: known_zone? },
            place: value.place(),
        })
    }

    pub(super) fn zone(&mut self, zone: Sited<'_, String>) -> Option<String> {
        let text = zone.at.value.as_str();
        // `EST` and `CET` exist in the database, as fixed offsets or for old times' sake; who writes them means a place.
        let is_abbreviation = text != "UTC" && !text.contains('/');
        match self.zones.get(text) {
            Ok(found) if !is_abbreviation => {
                let name = found.iana_name().unwrap_or(text);
                return Some(name.to_owned());
            }
            Ok(_) | Err(_) => {}
        }
        let names: Vec<String> = self.zones.available().map(|name| name.as_str().to_owned()).collect();
        let by_city = names.iter().find(|name| {
            name.rsplit('/')
                .next()
                .is_some_and(|city| city.eq_ignore_ascii_case(&text.replace(' ', "_")) && name.contains('/'))
        });
        let near = by_city.map(String::as_str).or_else(|| {
            nearest(
                text,
                names.iter().map(String::as_str).filter(|name| name.contains('/') || *name == "UTC"),
            )
        });
        let message = if is_abbreviation {
            format!("{} names no place, so it does not say when the clocks change", quoted(text))
        } else {
            format!("there is no time zone {}", quoted(text))
        };
        Draft::error(zone.place(), message)
            .hint(match near.filter(|near| *near != text) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write an IANA name, e.g. \"Europe/Amsterdam\", or \"UTC\"".to_owned(),
            })
            .report(self.sink);
        None
    }

    fn retention(&mut self, key: &str, value: Option<Sited<'_, RetentionTable>>) -> Option<RetentionSpec> {
        let value = value?;
        self.record(key.to_owned(), Some(&value.place()));
        let table = &value.at.value;
        let rungs = [
            ("last", table.last.as_ref()),
            ("daily", table.daily.as_ref()),
            ("weekly", table.weekly.as_ref()),
            ("monthly", table.monthly.as_ref()),
            ("yearly", table.yearly.as_ref()),
        ];
        for (name, rung) in rungs {
            if let Some(rung) = sited(value.text, rung).filter(|rung| rung.at.value == 0) {
                Draft::error(rung.place(), format!("`{name} = 0` keeps nothing"))
                    .hint(format!("leave `{name}` out, or keep at least 1"))
                    .report(self.sink);
            }
        }
        let within = sited(value.text, table.within.as_ref())
            .and_then(|within| self.read_duration(within.place(), &within.at.value.0));
        let forever = sited(value.text, table.forever.as_ref()).filter(|forever| forever.at.value);
        let limited: Vec<(&str, Place)> = rungs
            .into_iter()
            .filter_map(|(name, rung)| Some((name, sited(value.text, rung)?.place())))
            .chain(sited(value.text, table.within.as_ref()).map(|within| ("within", within.place())))
            .collect();
        if let Some(forever) = forever {
            if let Some((name, _)) = limited.first() {
                let mut draft = Draft::error(forever.place(), format!("`forever` and `{name}` contradict each other"))
                    .label("nothing expires")
                    .hint("keep one of them: with `forever` nothing expires, with the others what none of them keeps does");
                for (_, place) in &limited {
                    draft = draft.with(place.clone(), "the rest expires");
                }
                draft.report(self.sink);
            }
        } else if limited.is_empty()
            && !self.sink.has_refused(key)
            && !self.sink.has_refused("defaults.retention")
        {
            Draft::error(value.place(), "this retention keeps nothing")
                .hint("say what is kept, e.g. { daily = 30, monthly = 12 }, or { forever = true }")
                .report(self.sink);
        }
        let number = |at: &Option<At<u32>>| at.as_ref().map(|at| at.value);
        Some(RetentionSpec {
            last: number(&table.last),
            daily: number(&table.daily),
            weekly: number(&table.weekly),
            monthly: number(&table.monthly),
            yearly: number(&table.yearly),
            within,
            forever: forever.is_some(),
        })
    }

    fn drill(
        &mut self,
        key: &str,
        text: usize,
        own: Option<&At<DrillTable>>,
        default: Option<&At<DrillTable>>,
    ) -> DrillPolicy {
        // Layer by layer: a service that sets its schedule keeps the defaults' `proof_valid`.
        let none = DrillTable::default();
        let own = own.map_or(&none, |at| &at.value);
        let default = default.map_or(&none, |at| &at.value);
        let schedule = layered(own.schedule.as_ref(), text, default.schedule.as_ref());
        let scheduled = self.schedule(&format!("{key}.schedule"), schedule);
        let proof_place = layered(own.proof_valid.as_ref(), text, default.proof_valid.as_ref());
        let proof_valid = self.duration(&format!("{key}.proof_valid"), proof_place, built_in::PROOF_VALID);
        if let Some(scheduled) = &scheduled
            && scheduled.cadence.longest > proof_valid
        {
            let longest = format_duration(scheduled.cadence.longest);
            let draft = Draft::error(
                scheduled.place.clone(),
                format!(
                    "a proof counts for {}, but up to {longest} pass between drills",
                    format_duration(proof_valid)
                ),
            )
            .label(format!("up to {longest} apart"))
            .hint(format!(
                "drill more often, or let a proof count longer: proof_valid = \"{}\"",
                format_duration(with_grace(scheduled.cadence.longest))
            ));
            match proof_place {
                Some(place) => draft.with(place.place(), "a proof no longer counts after this"),
                None => draft,
            }
            .report(self.sink);
        }
        let percent = layered(own.deadline_percent.as_ref(), text, default.deadline_percent.as_ref());
        self.record(format!("{key}.deadline_percent"), percent.map(|percent| percent.place()).as_ref());
        if let Some(percent) = percent.filter(|percent| percent.at.value < 100) {
            Draft::error(
                percent.place(),
                "a drill that is stopped before the RTO has passed cannot measure a miss",
            )
            .label("less than once the RTO")
            .hint("write at least 100; 300 is three times the RTO")
            .report(self.sink);
        }
        let random_within = self.duration(
            &format!("{key}.random_within"),
            layered(own.random_within.as_ref(), text, default.random_within.as_ref()),
            built_in::RANDOM_WITHIN,
        );
        let deadline = self.duration(
            &format!("{key}.deadline"),
            layered(own.deadline.as_ref(), text, default.deadline.as_ref()),
            built_in::DEADLINE,
        );
        DrillPolicy {
            schedule: scheduled.map(|scheduled| scheduled.spec),
            proof_valid,
            random_within,
            deadline_percent: percent.map_or(built_in::DEADLINE_PERCENT, |percent| percent.at.value),
            deadline,
        }
    }
}

/// An absolute path without `..`, `~` or variables; reports what else it is.
pub(super) fn check_path(sink: &mut Sink, what: &str, place: Place, text: &str) -> Option<String> {
    let wrong = if text.chars().any(char::is_control) {
        Some(("holds a control character", None))
    } else if text.starts_with('~') {
        Some(("begins with `~`", Some("write the absolute path: a service runs with another home, or none")))
    } else if text.contains('$') && (text.contains("${") || text.starts_with('$')) {
        Some(("holds a variable", Some("variables are not expanded here; write the absolute path")))
    } else if !text.starts_with('/') {
        Some((
            "is relative",
            Some(
                "write the absolute path: what a relative one means depends on where the program was started",
            ),
        ))
    } else if text.split('/').any(|part| part == "..") {
        Some(("holds `..`", Some("write the path that it leads to")))
    } else {
        None
    };
    match wrong {
        None => Some(match text.trim_end_matches('/') {
            "" => "/".to_owned(),
            trimmed => trimmed.to_owned(),
        }),
        Some((why, hint)) => {
            Draft::error(place, format!("the {what} {} {why}", quoted(text)))
                .hint_if(hint.map(str::to_owned))
                .report(sink);
            None
        }
    }
}

pub(super) fn built_in_duration(text: &str) -> SignedDuration {
    parse_duration(text).expect("the built-in durations are parsed by a test")
}

/// A twelfth more: two hours on a day, two and a half days on a month. What a late run may take without an alarm.
fn with_grace(duration: SignedDuration) -> SignedDuration {
    // Whole minutes, so that the value reads well.
    let minutes = duration.as_secs() / 60;
    let late = minutes + minutes.div_euclid(12).max(1);
    // Beyond four days, whole days.
    SignedDuration::from_mins(if late > 4 * 1_440 { (late + 1_439) / 1_440 * 1_440 } else { late })
}

/// Turns documents whose shape is right into an inventory; what is wrong goes to the sink.
pub(super) fn judge(documents: &[Document], sink: &mut Sink) -> (Inventory, Origins) {
    let mut judge = Judge {
        sink,
        origins: Origins::new(),
        cadences: BTreeMap::new(),
        zones: TimeZoneDatabase::bundled(),
    };
    judge.root_only(documents);
    if let Some(version) = documents.first().and_then(|root| sited(root.text, root.table.version.as_ref()))
        && version.at.value != built_in::VERSION
    {
        Draft::error(version.place(), format!("version {} of this format is not known", version.at.value))
            .label(format!("this program reads version {}", built_in::VERSION))
            .report(judge.sink);
    }

    let no_defaults = DefaultsTable::default();
    let defaults =
        documents.first().and_then(|root| root.table.defaults.as_ref()).map_or(&no_defaults, |at| &at.value);
    let tiers = judge.tiers(documents);
    let repositories = judge.repositories(documents);
    let mut services = judge.services(documents, defaults, &tiers, &repositories);
    judge.dependencies(&services);
    judge.own_repository(documents, &repositories);
    judge.openers(documents);

    let inventory = Inventory {
        services: services.drain(..).map(|(service, _)| service).collect(),
        repositories: repositories
            .into_iter()
            .filter_map(|repository| repository.spec)
            .map(|spec| (spec.name.clone(), spec))
            .collect(),
        tiers: tiers
            .into_iter()
            .map(|(name, tier)| {
                (name, RecoveryObjective { rpo: tier.rpo.objective, rto: tier.rto.objective })
            })
            .collect(),
    };
    judge.complete(documents, &inventory);
    (inventory, judge.origins)
}

pub(super) struct Repository {
    pub(super) name: String,
    pub(super) place: Place,
    /// `None` where it is wrong; it still exists for who refers to it.
    pub(super) spec: Option<RepositorySpec>,
}

/// A service and what its later checks point at.
struct Written<'a> {
    place: Place,
    text: usize,
    table: &'a ServiceTable,
    rto: Promise,
}

impl Judge<'_> {
    /// Settings and defaults stand in the root file: a file among many must not change what the others mean.
    fn root_only(&mut self, documents: &[Document]) {
        for document in documents.iter().skip(1) {
            let table = &document.table;
            let at = |span: &std::ops::Range<usize>| Place { text: document.text, span: span.clone() };
            let found = [
                ("version", table.version.as_ref().map(|v| at(&v.span))),
                ("include", table.include.as_ref().map(|v| at(&v.span))),
                ("state_dir", table.state_dir.as_ref().map(|v| at(&v.span))),
                ("scratch_dir", table.scratch_dir.as_ref().map(|v| at(&v.span))),
                ("color", table.color.as_ref().map(|v| at(&v.span))),
                ("log", table.log.as_ref().map(|v| at(&v.span))),
                ("defaults", table.defaults.as_ref().map(|v| at(&v.span))),
            ];
            for (key, place) in found {
                if let Some(place) = place {
                    let root = self.sink.name(0).to_owned();
                    Draft::error(place, format!("`{key}` stands in an included file"))
                        .hint(format!(
                            "move it to {root}; included files hold tiers, repositories and services"
                        ))
                        .report(self.sink);
                }
            }
        }
    }

    /// Every entry of one kind over all files, in their order; a name that was already taken is reported and left out.
    fn entries<'a, T>(
        &mut self,
        what: &str,
        documents: &'a [Document],
        of: impl Fn(&'a FileTable) -> &'a BTreeMap<At<String>, At<T>>,
    ) -> Vec<(Sited<'a, String>, Sited<'a, T>)> {
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        let mut entries = Vec::new();
        for document in documents {
            for (key, value) in of(&document.table) {
                let key = Sited { text: document.text, at: key };
                if let Some(first) = seen.get(key.at.value.as_str()) {
                    Draft::error(
                        key.place(),
                        format!("there are two {what}s named {}", quoted(&key.at.value)),
                    )
                    .label("here again")
                    .with(first.clone(), "first here")
                    .hint("give one of them another name, or delete it")
                    .report(self.sink);
                    continue;
                }
                seen.insert(key.at.value.as_str(), key.place());
                entries.push((key, Sited { text: document.text, at: value }));
            }
        }
        entries
    }

    fn tiers(&mut self, documents: &[Document]) -> BTreeMap<TierName, Tier> {
        let nowhere = Place { text: 0, span: 0..0 };
        let built_in_promise = |text: &str| Promise {
            objective: Objective::Within(built_in_duration(text)),
            place: nowhere.clone(),
            origin: Origin::Default,
        };
        let mut tiers: BTreeMap<TierName, Tier> = BTreeMap::new();
        for (name, rpo, rto) in built_in::TIERS {
            let name = TierName::new(*name).expect("the built-in names are names, by a test");
            tiers.insert(name, Tier { rpo: built_in_promise(rpo), rto: built_in_promise(rto) });
        }
        for (key, table) in self.entries("tier", documents, |file| &file.tiers) {
            let Some(name) = self.name::<TierName>("tier", key.place(), &key.at.value) else { continue };
            let TierTable { rpo, rto } = &table.at.value;
            let mut read =
                |what: &str, value: &Option<At<ObjectiveText>>, inherited: Option<Promise>| -> Promise {
                    let value = sited(table.text, value.as_ref());
                    let key_path = format!("tiers.{}.{what}", key.at.value);
                    if value.is_none() && inherited.is_none() && !self.sink.has_refused(&key_path) {
                        Draft::error(key.place(), format!("tier {} has no `{what}`", quoted(&key.at.value)))
                            .hint(format!("add {what} = \"24h\", or {what} = \"not-applicable\""))
                            .report(self.sink);
                    }
                    let written = value.and_then(|value| {
                        Some(Promise {
                            objective: self.objective(value)?,
                            place: value.place(),
                            origin: self.origin(&value.place()),
                        })
                    });
                    // After an error the inventory is not handed out; any promise will do to go on.
                    written.or(inherited).unwrap_or_else(|| built_in_promise("24h"))
                };
            let (old_rpo, old_rto) =
                tiers.remove(&name).map_or((None, None), |tier| (Some(tier.rpo), Some(tier.rto)));
            let tier = Tier { rpo: read("rpo", rpo, old_rpo), rto: read("rto", rto, old_rto) };
            tiers.insert(name, tier);
        }
        for (name, tier) in &tiers {
            self.origins.insert(format!("tiers.{name}.rpo"), tier.rpo.origin.clone());
            self.origins.insert(format!("tiers.{name}.rto"), tier.rto.origin.clone());
        }
        tiers
    }

    fn repositories(&mut self, documents: &[Document]) -> Vec<Repository> {
        let mut locations: BTreeMap<_, Place> = BTreeMap::new();
        let mut repositories = Vec::new();
        for (key, table) in self.entries("repository", documents, |file| &file.repositories) {
            let name = self.name::<RepositoryName>("repository", key.place(), &key.at.value);
            let spec = self.repository(&key, &table, name);
            if let (Some(spec), Some(location)) = (&spec, &table.at.value.location) {
                let place = Place { text: table.text, span: location.span.clone() };
                let remote = spec.remote.as_ref();
                // One name at two services, or in two accounts, is two buckets.
                let whole = (
                    spec.location.clone(),
                    remote.and_then(|remote| remote.endpoint.clone()),
                    remote.and_then(|remote| remote.storage_account.clone()),
                );
                if let Some(first) = locations.get(&whole) {
                    Draft::error(place, "two repositories are the same place, so two copies are one")
                        .label("here again")
                        .with(first.clone(), "first here")
                        .hint("delete one of them, or give it another location")
                        .report(self.sink);
                } else {
                    locations.insert(whole, place);
                }
            }
            repositories.push(Repository { name: key.at.value.clone(), place: key.place(), spec });
        }
        repositories
    }

    fn repository(
        &mut self,
        key: &Sited<'_, String>,
        table: &Sited<'_, RepositoryTable>,
        name: Option<RepositoryName>,
    ) -> Option<RepositorySpec> {
        let text = table.text;
        let RepositoryTable { location, password, medium, site, region, account, .. } = &table.at.value;
        let prefix = format!("repositories.{}", key.at.value);
        // A missing location or password has been reported with the shape.
        let location = sited(text, location.as_ref());
        let read_location = location.and_then(|location| self.location(location));
        let password = sited(text, password.as_ref());
        let read_password = password.and_then(|password| self.secret(password));
        let is_remote = read_location.as_ref().is_some_and(|location| location.contains("://"));

        if let (Some(SecretRef::File(file)), Some(at), Some(password)) =
            (&read_password, &read_location, password)
            && is_below(file, at)
        {
            Draft::warning(
                password.place(),
                format!("the password of repository {} lies inside it", quoted(&key.at.value)),
            )
            .label("lost or stolen together with the copies")
            .hint("keep the password file elsewhere, and a copy of it away from this machine")
            .report(self.sink);
        }
        let site_given =
            sited(text, site.as_ref()).or(if is_remote { sited(text, region.as_ref()) } else { None });
        if is_remote
            && site_given.is_none()
            && let Some(location) = location
        {
            Draft::error(
                location.place(),
                format!("repository {} does not say at which site it is", quoted(&key.at.value)),
            )
            .hint("add site = \"…\" (the place one disaster can reach at once) or region = \"…\"")
            .report(self.sink);
        }
        for (what, value) in [("site", site), ("region", region), ("account", account)] {
            if let Some(value) = sited(text, value.as_ref()).filter(|value| value.at.value.trim().is_empty())
            {
                Draft::error(value.place(), format!("`{what}` is empty"))
                    .hint("write a word, or leave it out")
                    .report(self.sink);
            }
        }
        self.record(format!("{prefix}.location"), location.map(|value| value.place()).as_ref());
        self.record(format!("{prefix}.password"), password.map(|value| value.place()).as_ref());
        self.record(
            format!("{prefix}.medium"),
            sited(text, medium.as_ref()).map(|value| value.place()).as_ref(),
        );
        self.record(format!("{prefix}.site"), site_given.map(|value| value.place()).as_ref());
        for (what, value) in [("region", region), ("account", account)] {
            if let Some(value) = sited(text, value.as_ref()) {
                self.record(format!("{prefix}.{what}"), Some(&value.place()));
            }
        }
        let remote = read_location.as_ref().and_then(|location| remote(self, &prefix, location, *table));
        let retention =
            self.retention(&format!("{prefix}.retention"), sited(text, table.at.value.retention.as_ref()));
        let keys = custody::keys(self, &prefix, &key.at.value, *table, read_password.as_ref());
        let opened_by =
            table.at.value.opened_by.as_ref().and_then(|at| ServiceName::new(at.value.0.as_str()).ok());
        let default_medium = if is_remote { "object-store" } else { "disk" };
        Some(RepositorySpec {
            name: name?,
            location: read_location?,
            password: read_password?,
            medium: medium.as_ref().map_or_else(|| default_medium.to_owned(), |at| at.value.clone()),
            site: site_given.map_or_else(|| built_in::SITE.to_owned(), |site| site.at.value.clone()),
            region: region.as_ref().map(|at| at.value.clone()),
            account: account.as_ref().map(|at| at.value.clone()),
            retention,
            remote,
            opened_by,
            keys,
        })
    }

    fn location(&mut self, value: Sited<'_, String>) -> Option<String> {
        const SCHEMES: &[&str] = &["s3", "gs", "az"];
        let text = value.at.value.as_str();
        let Some((scheme, rest)) = text.split_once("://") else {
            return self.absolute("location", value.place(), text);
        };
        if !SCHEMES.contains(&scheme) {
            let shown = scheme.to_owned();
            Draft::error(
                value.place(),
                format!("{} is no kind of repository", quoted(&format!("{shown}://"))),
            )
            .label("an absolute path, s3://, gs:// or az://")
            .hint_if(match scheme {
                "file" => Some("write the path alone".to_owned()),
                _ => nearest(scheme, SCHEMES.iter().copied())
                    .map(|near| format!("did you mean \"{near}://\"?")),
            })
            .report(self.sink);
            return None;
        }
        let host = rest.split('/').next().unwrap_or("");
        if host.contains('@') {
            self.sink.mask(value.place());
            Draft::error(value.place(), "the location carries credentials")
                .label("not shown")
                .hint("take them out of the URL; if this file was shared, change them")
                .report(self.sink);
            return None;
        }
        let wrong = if host.is_empty() {
            Some("names no bucket")
        } else if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            Some("holds white space")
        } else if text.contains(['?', '#']) {
            Some("holds `?` or `#`")
        } else if rest.split('/').any(|part| part == "..") {
            Some("holds `..`")
        } else {
            None
        };
        if let Some(why) = wrong {
            Draft::error(value.place(), format!("the location {why}"))
                .hint("write \"s3://bucket/prefix\"")
                .report(self.sink);
            return None;
        }
        Some(text.trim_end_matches('/').to_owned())
    }

    fn services<'a>(
        &mut self,
        documents: &'a [Document],
        defaults: &'a DefaultsTable,
        tiers: &BTreeMap<TierName, Tier>,
        repositories: &[Repository],
    ) -> Vec<(Service, Written<'a>)> {
        let entries = self.entries("service", documents, |file| &file.services);
        let names: Vec<&str> = entries.iter().map(|(key, _)| key.at.value.as_str()).collect();
        if entries.is_empty()
            && !self.sink.has_refused("services")
            && let Some(root) = documents.first()
        {
            Draft::warning(
                Place { text: root.text, span: 0..0 },
                "there is no service, so nothing is backed up",
            )
            .hint("add [services.NAME], or run `seaworthy init` to find what runs here")
            .report(self.sink);
        }
        let mut services = Vec::new();
        for (key, table) in &entries {
            services.extend(self.service(*key, *table, defaults, tiers, repositories, &names));
        }
        services
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one service, read from top to bottom in the order of its table"
    )]
    fn service<'a>(
        &mut self,
        key: Sited<'a, String>,
        table: Sited<'a, ServiceTable>,
        defaults: &'a DefaultsTable,
        tiers: &BTreeMap<TierName, Tier>,
        repositories: &[Repository],
        names: &[&str],
    ) -> Option<(Service, Written<'a>)> {
        let text = table.text;
        let written = &table.at.value;
        let service = key.at.value.as_str();
        let prefix = format!("services.{service}");
        let name = self.name::<ServiceName>("service", key.place(), service);

        let owner = layered(written.owner.as_ref(), text, defaults.owner.as_ref());
        match owner {
            None if self.sink.has_refused(&format!("{prefix}.owner"))
                || self.sink.has_refused("defaults.owner") => {}
            None => Draft::error(key.place(), format!("service {} has no owner", quoted(service)))
                .hint("add owner = \"…\" here or in [defaults]: who is asked when a proof fails?")
                .report(self.sink),
            Some(owner) if owner.at.value.trim().is_empty() => {
                Draft::error(owner.place(), "the owner is empty")
                    .hint("who is asked when a proof fails?")
                    .report(self.sink);
            }
            Some(owner) => self.record(format!("{prefix}.owner"), Some(&owner.place())),
        }

        let tier_at = layered(written.tier.as_ref(), text, defaults.tier.as_ref());
        let tier_word = tier_at.map_or(built_in::TIER, |tier| tier.at.value.0.as_str());
        self.record(format!("{prefix}.tier"), tier_at.map(|tier| tier.place()).as_ref());
        let tier = tiers.iter().find(|(name, _)| name.as_str() == tier_word);
        if let (None, Some(at)) = (tier, tier_at) {
            self.unknown("tier", at, tiers.keys().map(TierName::as_str));
        }

        // Where a promise is the tier's, the place to point at is the tier's line, or the word that chose the tier.
        let chosen_at = tier_at.map_or_else(|| key.place(), |at| at.place());
        let inherited = |promise: &Promise| {
            let is_built_in = promise.origin == Origin::Default;
            Promise {
                place: if is_built_in { chosen_at.clone() } else { promise.place.clone() },
                ..promise.clone()
            }
        };
        let fallback =
            Promise { objective: Objective::NotApplicable, place: key.place(), origin: Origin::Default };
        let (tier_rpo, tier_rto) = tier
            .map_or((fallback.clone(), fallback), |(_, tier)| (inherited(&tier.rpo), inherited(&tier.rto)));
        let rationale = sited(text, written.rationale.as_ref()).filter(|at| !at.at.value.trim().is_empty());
        let rpo =
            self.promise(service, "rpo", sited(text, written.rpo.as_ref()), tier_rpo, rationale.is_some());
        let rto =
            self.promise(service, "rto", sited(text, written.rto.as_ref()), tier_rto, rationale.is_some());
        self.origins.insert(format!("{prefix}.rpo"), rpo.origin.clone());
        self.origins.insert(format!("{prefix}.rto"), rto.origin.clone());
        if let Some(rationale) = rationale {
            self.record(format!("{prefix}.rationale"), Some(&rationale.place()));
        }

        // What holds no state is not captured, so the defaults for capturing do not concern it.
        let has_sources = !written.sources.is_empty();
        let no_defaults = DefaultsTable::default();
        let capture_defaults = if has_sources { defaults } else { &no_defaults };
        let depends_on = self.depends_on(&key, sited(text, written.depends_on.as_ref()), names, &prefix);
        let receivers = self.receivers(
            &key,
            layered(written.repositories.as_ref(), text, capture_defaults.repositories.as_ref()),
            repositories,
            has_sources,
            &prefix,
        );

        let schedule = self.schedule(
            &format!("{prefix}.schedule"),
            layered(written.schedule.as_ref(), text, capture_defaults.schedule.as_ref()),
        );
        if has_sources && let Some(schedule) = &schedule {
            self.keeps_promise(service, &rpo, schedule);
        }
        if !has_sources
            && written.adopted.is_empty()
            && !self.sink.has_refused(&format!("{prefix}.sources"))
            && !self.sink.has_refused(&format!("{prefix}.adopted"))
            && let Objective::Within(bound) = rpo.objective
        {
            Draft::error(
                key.place(),
                format!("{} promises at most {} of loss but has nothing to back up", quoted(service), format_duration(bound)),
            )
            .hint(format!("add [services.{service}.sources.NAME], or rpo = \"not-applicable\" with a rationale if its state is rebuilt"))
            .report(self.sink);
        }

        let stale_at = layered(written.stale_after.as_ref(), text, defaults.stale_after.as_ref());
        let stale_default = match (&schedule, rpo.objective) {
            (Some(schedule), _) => with_grace(schedule.cadence.longest),
            (None, Objective::Within(bound)) => with_grace(bound),
            (None, Objective::NotApplicable) => built_in_duration(built_in::STALE_AFTER),
        };
        self.record(format!("{prefix}.stale_after"), stale_at.map(|at| at.place()).as_ref());
        let stale_after =
            stale_at.and_then(|at| self.read_duration(at.place(), &at.at.value.0)).unwrap_or(stale_default);
        if let (Some(at), Some(schedule)) = (stale_at, &schedule)
            && has_sources
            && stale_after <= schedule.cadence.longest
        {
            let longest = format_duration(schedule.cadence.longest);
            let message = format!(
                "{} counts as stale after {}, {} the next copy is due",
                quoted(service),
                format_duration(stale_after),
                if stale_after == schedule.cadence.longest { "just when" } else { "before" },
            );
            let draft = if stale_after == schedule.cadence.longest {
                Draft::warning(at.place(), message).label("every run that takes time raises an alarm")
            } else {
                Draft::error(at.place(), message).label("stale")
            };
            draft
                .with(schedule.place.clone(), format!("captured every {longest}"))
                .hint(format!(
                    "leave `stale_after` out for {}, or capture more often",
                    format_duration(with_grace(schedule.cadence.longest))
                ))
                .report(self.sink);
        }

        let retention = self.retention(
            &format!("{prefix}.retention"),
            layered(written.retention.as_ref(), text, capture_defaults.retention.as_ref()),
        );
        let drill = self.drill(
            &format!("{prefix}.drill"),
            text,
            written.drill.as_ref(),
            capture_defaults.drill.as_ref(),
        );
        let tables = super::placement::Tables {
            text,
            production: [&written.production, &capture_defaults.production]
                .map(|table| table.as_ref().map(|at| &at.value)),
            policy: [&written.policy, &capture_defaults.policy]
                .map(|table| table.as_ref().map(|at| &at.value)),
        };
        let placement = self.placement(&prefix, &tables);
        if has_sources {
            self.placed((service, key.place()), &placement, &receivers, repositories, &tables);
        }
        let ssot = sited(text, written.ssot.as_ref());
        self.record(format!("{prefix}.ssot"), ssot.map(|ssot| ssot.place()).as_ref());

        let mut sources = Vec::new();
        for (source_key, source) in &written.sources {
            let source_name = self.name::<SourceName>(
                "source",
                Place { text, span: source_key.span.clone() },
                &source_key.value,
            );
            let at = Sited { text, at: source };
            let own = format!("{prefix}.sources.{}", source_key.value);
            let read = sources::source(self, &own, service, at);
            let retention =
                self.retention(&format!("{own}.retention"), sited(text, sources::retention(&source.value)));
            if let (Some(name), Some((spec, checks))) = (source_name, read) {
                sources.push(ServiceSource { name, spec, checks, retention });
            }
        }

        let mut adopted = Vec::new();
        for (set_key, set) in &written.adopted {
            let place = Place { text, span: set_key.span.clone() };
            let set_name = self.name::<SourceName>("set of copies", place.clone(), &set_key.value);
            if let Some((other, _)) = written.sources.iter().find(|(other, _)| other.value == set_key.value) {
                Draft::error(
                    place,
                    format!("a source and a set of copies are both named {}", quoted(&set_key.value)),
                )
                .with(Place { text, span: other.span.clone() }, "the source")
                .hint("receipts tell them apart by their names; give one of them another")
                .report(self.sink);
            }
            let at = Sited { text, at: set };
            let key = format!("{prefix}.adopted.{}", set_key.value);
            adopted.extend(super::adopted::adopted(self, &key, service, set_name, at, stale_after));
        }

        let objective = RecoveryObjective { rpo: rpo.objective, rto: rto.objective };
        let service = Service {
            name: name?,
            owner: owner.map_or_else(String::new, |owner| owner.at.value.clone()),
            tier: TierName::new(tier_word).ok()?,
            objective,
            rationale: rationale.map(|rationale| rationale.at.value.clone()),
            depends_on,
            sources,
            adopted,
            repositories: receivers,
            schedule: schedule.map(|schedule| schedule.spec),
            retention,
            stale_after,
            drill,
            placement,
            ssot: ssot.is_some_and(|ssot| ssot.at.value),
        };
        Some((service, Written { place: key.place(), text, table: written, rto }))
    }

    fn promise(
        &mut self,
        service: &str,
        what: &str,
        own: Option<Sited<'_, ObjectiveText>>,
        tier: Promise,
        has_rationale: bool,
    ) -> Promise {
        let Some(own) = own else { return tier };
        let Some(objective) = self.objective(own) else { return tier };
        let place = own.place();
        if !has_rationale && objective == Objective::NotApplicable && tier.objective != objective {
            Draft::error(
                place.clone(),
                format!("{} says that no {} applies, but not why", quoted(service), what.to_uppercase()),
            )
            .hint("add rationale = \"…\", e.g. \"a cache, rebuilt from its source\"")
            .report(self.sink);
        }
        let origin = self.origin(&place);
        Promise { objective, place, origin }
    }

    /// Who gives a password must be a service of this configuration.
    fn openers(&mut self, documents: &[Document]) {
        let names: Vec<&str> = documents
            .iter()
            .flat_map(|document| document.table.services.keys())
            .map(|key| key.value.as_str())
            .collect();
        for document in documents {
            for (key, table) in &document.table.repositories {
                let Some(at) = sited(document.text, table.value.opened_by.as_ref()) else { continue };
                self.record(format!("repositories.{}.opened_by", key.value), Some(&at.place()));
                if !names.contains(&at.at.value.0.as_str()) {
                    self.unknown("service", at, names.iter().copied());
                }
            }
        }
    }

    fn unknown<'n>(&mut self, what: &str, at: Sited<'_, NameText>, known: impl Iterator<Item = &'n str>) {
        let known: Vec<&str> = known.collect();
        let written = at.at.value.0.as_str();
        let hint = match nearest(written, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => format!("there is no {what} yet"),
            None => format!("known: {}", known.join(", ")),
        };
        Draft::error(at.place(), format!("there is no {what} {}", quoted(written)))
            .hint(hint)
            .report(self.sink);
    }

    fn depends_on(
        &mut self,
        key: &Sited<'_, String>,
        list: Option<Sited<'_, Vec<At<NameText>>>>,
        names: &[&str],
        prefix: &str,
    ) -> Vec<ServiceName> {
        let mut out: Vec<ServiceName> = Vec::new();
        let Some(list) = list else { return out };
        self.record(format!("{prefix}.depends_on"), Some(&list.place()));
        for at in &list.at.value {
            let at = Sited { text: list.text, at };
            let written = at.at.value.0.as_str();
            if written == key.at.value {
                Draft::error(at.place(), format!("{} depends on itself", quoted(written)))
                    .hint("take it out")
                    .report(self.sink);
            } else if !names.contains(&written) {
                self.unknown("service", at, names.iter().copied().filter(|name| *name != key.at.value));
            } else if out.iter().any(|name| name.as_str() == written) {
                Draft::warning(at.place(), format!("{} is named twice", quoted(written))).report(self.sink);
            } else {
                out.extend(ServiceName::new(written).ok());
            }
        }
        out
    }

    fn receivers(
        &mut self,
        key: &Sited<'_, String>,
        list: Option<Sited<'_, Vec<At<NameText>>>>,
        repositories: &[Repository],
        has_sources: bool,
        prefix: &str,
    ) -> Vec<RepositoryName> {
        let mut out: Vec<RepositoryName> = Vec::new();
        let mut chosen: Vec<&Repository> = Vec::new();
        self.record(format!("{prefix}.repositories"), list.map(|list| list.place()).as_ref());
        match list {
            None if has_sources => chosen.extend(repositories),
            None => {}
            Some(list) => {
                for at in &list.at.value {
                    let at = Sited { text: list.text, at };
                    let written = at.at.value.0.as_str();
                    match repositories.iter().find(|repository| repository.name == written) {
                        None => self.unknown("repository", at, repositories.iter().map(|r| r.name.as_str())),
                        Some(found) if chosen.iter().any(|repository| repository.name == found.name) => {
                            Draft::warning(at.place(), format!("{} is named twice", quoted(written)))
                                .report(self.sink);
                        }
                        Some(found) => chosen.push(found),
                    }
                }
            }
        }
        if has_sources && (repositories.is_empty() || list.is_some_and(|list| list.at.value.is_empty())) {
            let place = list.map_or_else(|| key.place(), |list| list.place());
            Draft::error(place, format!("{} has no repository to keep its copies", quoted(&key.at.value)))
                .hint("add [repositories.NAME] with location and password")
                .report(self.sink);
        }
        let specs: Vec<(&Place, &RepositorySpec)> = chosen
            .iter()
            .filter_map(|repository| Some((&repository.place, repository.spec.as_ref()?)))
            .collect();
        if has_sources
            && let [(first_place, first), rest @ ..] = specs.as_slice()
            && !rest.is_empty()
        {
            let one_site = rest.iter().all(|(_, spec)| spec.site == first.site);
            let one_account =
                first.account.is_some() && rest.iter().all(|(_, spec)| spec.account == first.account);
            let place = list.map_or_else(|| key.place(), |list| list.place());
            if one_site || one_account {
                let (what, value) = if one_site {
                    ("site", first.site.as_str())
                } else {
                    ("account", first.account.as_deref().unwrap_or_default())
                };
                let mut draft = Draft::warning(
                    place,
                    format!(
                        "every copy of {} is at the same {what}, {}",
                        quoted(&key.at.value),
                        quoted(value)
                    ),
                )
                .label(if one_site { "one disaster reaches them all" } else { "losing it loses them all" })
                .with((*first_place).clone(), format!("at {}", quoted(value)))
                .hint(format!("add a repository at another {what}"));
                for (place, _) in rest {
                    draft = draft.with((*place).clone(), format!("at {}", quoted(value)));
                }
                draft.report(self.sink);
            }
        }
        out.extend(
            chosen.iter().filter_map(|repository| repository.spec.as_ref().map(|spec| spec.name.clone())),
        );
        out
    }

    fn keeps_promise(&mut self, service: &str, rpo: &Promise, schedule: &Scheduled) {
        let Objective::Within(bound) = rpo.objective else { return };
        let Cadence { longest, shortest } = schedule.cadence;
        if longest <= bound {
            return;
        }
        let promised = format_duration(bound);
        let every = format_duration(longest);
        let message = if longest == shortest {
            format!("{} promises {promised} of loss but is captured every {every}", quoted(service))
        } else {
            format!(
                "{} promises {promised} of loss but up to {every} pass between its captures",
                quoted(service)
            )
        };
        let example = example_cron(bound).map(|cron| format!(" (cron = \"{cron}\")")).unwrap_or_default();
        Draft::error(rpo.place.clone(), message)
            .label(format!("the promise: {promised}"))
            .with(
                schedule.place.clone(),
                if longest == shortest { format!("every {every}") } else { format!("up to {every} apart") },
            )
            .hint(format!("capture at least every {promised}{example}, or raise the promise to {every}"))
            .report(self.sink);
    }

    fn dependencies(&mut self, services: &[(Service, Written<'_>)]) {
        let index: BTreeMap<&str, usize> =
            services.iter().enumerate().map(|(at, (service, _))| (service.name.as_str(), at)).collect();
        let edges: Vec<Vec<(usize, Place)>> = services
            .iter()
            .map(|(_, written)| {
                let list = written.table.depends_on.iter().flat_map(|list| &list.value);
                list.filter_map(|at| {
                    let to = *index.get(at.value.0.as_str())?;
                    Some((to, Place { text: written.text, span: at.span.clone() }))
                })
                .collect()
            })
            .collect();
        for (from, targets) in edges.iter().enumerate() {
            let mut seen = Vec::new();
            for (to, place) in targets {
                if seen.contains(to) {
                    continue;
                }
                seen.push(*to);
                self.feasible(&services[from], &services[*to], place);
            }
        }
        let mut state = vec![Visit::New; services.len()];
        for start in 0..services.len() {
            self.walk(start, services, &edges, &mut state);
        }
    }

    /// Depth-first and without recursion, so that a chain of ten thousand services is no stack overflow.
    fn walk(
        &mut self,
        start: usize,
        services: &[(Service, Written<'_>)],
        edges: &[Vec<(usize, Place)>],
        state: &mut [Visit],
    ) {
        if state[start] != Visit::New {
            return;
        }
        state[start] = Visit::Open;
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, next)) = path.last().copied() {
            let Some((to, _)) = edges[node].get(next) else {
                state[node] = Visit::Done;
                path.pop();
                continue;
            };
            if let Some(last) = path.last_mut() {
                last.1 += 1;
            }
            match state[*to] {
                Visit::New => {
                    state[*to] = Visit::Open;
                    path.push((*to, 0));
                }
                Visit::Open if *to != node => self.cycle(*to, &path, services, edges),
                Visit::Open | Visit::Done => {}
            }
        }
    }

    fn cycle(
        &mut self,
        entry: usize,
        path: &[(usize, usize)],
        services: &[(Service, Written<'_>)],
        edges: &[Vec<(usize, Place)>],
    ) {
        let from = path.iter().position(|(node, _)| *node == entry).unwrap_or(0);
        let round = &path[from..];
        let mut names: Vec<&str> = round.iter().map(|(node, _)| services[*node].0.name.as_str()).collect();
        names.push(services[entry].0.name.as_str());
        // `next` has been advanced past the edge that was taken.
        let places: Vec<Place> = round
            .iter()
            .filter_map(|(node, next)| Some(edges[*node].get(next.checked_sub(1)?)?.1.clone()))
            .collect();
        let Some((first, rest)) = places.split_first() else { return };
        let mut draft = Draft::error(
            first.clone(),
            format!("services wait for one another in a circle: {}", names.join(" → ")),
        )
        .hint("which of them can come back without the other? Take that dependency out");
        for place in rest {
            draft = draft.with(place.clone(), "");
        }
        draft.report(self.sink);
    }

    /// A service cannot be back before what it waits for.
    fn feasible(&mut self, from: &(Service, Written<'_>), to: &(Service, Written<'_>), edge: &Place) {
        let (Objective::Within(own), Objective::Within(needed)) = (from.0.objective.rto, to.0.objective.rto)
        else {
            return;
        };
        if needed <= own {
            return;
        }
        let (own, needed) = (format_duration(own), format_duration(needed));
        Draft::warning(
            edge.clone(),
            format!(
                "{} promises to be back within {own}, but waits for {}, which may take {needed}",
                quoted(from.0.name.as_str()),
                quoted(to.0.name.as_str()),
            ),
        )
        .with(from.1.rto.place.clone(), format!("{own} promised"))
        .with(
            if to.1.rto.origin == Origin::Default { to.1.place.clone() } else { to.1.rto.place.clone() },
            format!("{needed} allowed"),
        )
        .hint(format!(
            "lower the RTO of {}, or raise that of {}",
            quoted(to.0.name.as_str()),
            quoted(from.0.name.as_str())
        ))
        .report(self.sink);
    }

    /// Nothing that was written may be missing without a word: the inventory is counted against the files.
    fn complete(&mut self, documents: &[Document], inventory: &Inventory) {
        let count = |table: &FileTable| {
            let services = table.services.values();
            let sources = services
                .map(|service| service.value.sources.len() + service.value.adopted.len())
                .sum::<usize>();
            (table.repositories.len(), table.services.len(), sources)
        };
        let written = documents
            .iter()
            .map(|document| count(&document.table))
            .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
        let sources = inventory
            .services
            .iter()
            .map(|service| service.sources.len() + service.adopted.len())
            .sum::<usize>();
        let understood = (inventory.repositories.len(), inventory.services.len(), sources);
        if written != understood && !self.sink.has_errors() {
            Draft::error(Place { text: 0, span: 0..0 }, "part of this configuration was not understood")
                .hint("this is a mistake in seaworthy; report it with the file")
                .report(self.sink);
        }
    }

    /// A tree of files that holds a repository backs up its own backup, and grows with every run.
    fn own_repository(&mut self, documents: &[Document], repositories: &[Repository]) {
        for document in documents {
            for source in document.table.services.values().flat_map(|service| service.value.sources.values())
            {
                let super::shape::SourceTable::Files(files) = &source.value else { continue };
                for path in files.paths.iter().flat_map(|paths| &paths.value) {
                    for spec in repositories.iter().filter_map(|repository| repository.spec.as_ref()) {
                        if !is_below(&spec.location, path.value.0.trim_end_matches('/')) {
                            continue;
                        }
                        let place = Place { text: document.text, span: path.span.clone() };
                        let message = format!(
                            "this tree holds repository {}, so it backs up its own backups",
                            quoted(spec.name.as_str())
                        );
                        let draft = if files.exclude.is_some() {
                            Draft::warning(place, message)
                        } else {
                            Draft::error(place, message)
                        };
                        draft
                            .hint("move the repository, or leave its directory out with `exclude`")
                            .report(self.sink);
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    Open,
    Done,
}

fn is_below(inner: &str, outer: &str) -> bool {
    inner.starts_with('/')
        && inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn example_cron(bound: SignedDuration) -> Option<String> {
    let minutes = bound.as_secs() / 60;
    match minutes {
        60 => Some("0 * * * *".to_owned()),
        1_440 => Some("0 2 * * *".to_owned()),
        1..60 if 60 % minutes == 0 => Some(format!("*/{minutes} * * * *")),
        61..1_440 if minutes % 60 == 0 && 24 % (minutes / 60) == 0 => {
            Some(format!("0 */{} * * *", minutes / 60))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_values_are_values() {
        for text in [
            built_in::PROOF_VALID,
            built_in::RANDOM_WITHIN,
            built_in::DEADLINE,
            built_in::STALE_AFTER,
            built_in::LOCK_TIMEOUT,
            built_in::BASE_EVERY,
            built_in::BUSY_TIMEOUT,
            built_in::CHECK_TIMEOUT,
            built_in::EVIDENCE_AGE,
        ] {
            assert!(parse_duration(text).is_ok(), "{text}");
        }
        for (name, rpo, rto) in built_in::TIERS {
            assert!(
                TierName::new(*name).is_ok() && parse_duration(rpo).is_ok() && parse_duration(rto).is_ok()
            );
        }
    }

    #[test]
    fn grace_lets_a_daily_copy_be_two_hours_late() {
        assert_eq!(with_grace(SignedDuration::from_hours(24)), SignedDuration::from_hours(26));
        assert_eq!(with_grace(SignedDuration::from_mins(5)), SignedDuration::from_mins(6));
    }
}
