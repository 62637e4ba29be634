//! The questions of `restore` on a terminal: what, which copy, to where. Every answer is an option too, and the menu says which.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use inquire::ui::RenderConfig;
use inquire::{Confirm, Select, Text};
use jiff::Timestamp;
use seaworthy_interface::Opening;
use seaworthy_model::forecast::Forecast;
use seaworthy_model::id::ServiceName;
use seaworthy_model::placement::Answer;
use seaworthy_model::point::{PointStanding, RecoveryPoint};
use seaworthy_model::receipt::{Outcome as Ending, Receipt};
use seaworthy_model::service::{Service, ServiceSource, in_recovery_order};
use seaworthy_model::source::SourceSpec;

use crate::cli::args::{Cli, Restore};
use crate::cli::init::asked;
use crate::cli::restore::{Order, below};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, bytes, count, duration};
use crate::render::drill::instant;
use crate::setup::Setup;
use crate::state::absolute;

/// What a person can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Database,
    Files,
    Full,
    List,
    Exit,
}

impl Task {
    const ALL: [Self; 5] = [Self::Database, Self::Files, Self::Full, Self::List, Self::Exit];

    fn takes(self, source: &ServiceSource) -> bool {
        let is_files = matches!(source.spec, SourceSpec::Files(_));
        match self {
            Self::Database => !is_files,
            Self::Files => is_files,
            Self::Full | Self::List | Self::Exit => true,
        }
    }
}

/// A line of a menu, and what it stands for.
struct Line<T> {
    words: String,
    is: T,
}

impl<T> fmt::Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// A source, and its copies that can be restored: the newest good one first, those that were shown to be bad last.
struct Offer<'a> {
    service: &'a Service,
    source: &'a ServiceSource,
    points: Vec<RecoveryPoint>,
}

/// What the menu knows.
pub(super) struct Menu<'a> {
    face: &'a Face,
    setup: &'a Setup,
    offers: Vec<Offer<'a>>,
    receipts: Vec<Receipt>,
    now: Timestamp,
}

impl<'a> Menu<'a> {
    /// Reads what the ledger knows of the services that were named, or of all; opens no repository.
    pub(super) async fn new(
        face: &'a Face,
        setup: &'a Setup,
        memory: &Memory,
        named: Option<&'a Service>,
    ) -> Outcome<Self> {
        if face.is_plain() {
            inquire::set_global_render_config(RenderConfig::empty());
        }
        let services: Vec<&Service> = match named {
            Some(service) => vec![service],
            None => setup.services(&[])?,
        };
        let mut offers = Vec::new();
        for service in in_recovery_order(&services) {
            for source in &service.sources {
                let mut points = memory.points(&service.name, &source.name).await?;
                points.retain(|point| is_offered(setup, service, point));
                sort(&mut points);
                offers.push(Offer { service, source, points });
            }
        }
        if offers.iter().all(|offer| offer.points.is_empty()) {
            return Err(Failure::new(Exit::NotFound, "no copy is known here")
                .hint("on a new machine, look through the repositories first: seaworthy catalogue rebuild"));
        }
        Ok(Self { face, setup, offers, receipts: memory.receipts().await?, now: Timestamp::now() })
    }

    /// Asks until there is something to do; nothing where the person leaves.
    pub(super) fn ask(&self, cli: &Cli, given: &Restore) -> Outcome<Vec<Order>> {
        let copies: usize = self.offers.iter().map(|offer| offer.points.len()).sum();
        self.face.say(format!(
            "{} of {}; a restore goes to a new place, never over anything. Type to search, Esc leaves.",
            count(copies, "copy"),
            count(self.offers.len(), "source")
        ))?;
        loop {
            let task = if given.service.is_some() && self.offers.len() == 1 {
                Task::ALL.into_iter().find(|task| task.takes(self.offers[0].source)).unwrap_or(Task::Full)
            } else {
                let lines =
                    Task::ALL.into_iter().map(|task| Line { words: self.words(task), is: task }).collect();
                asked(Select::new("Restore what?", lines).prompt())?.is
            };
            let orders = match task {
                Task::Exit => return Ok(Vec::new()),
                Task::List => {
                    self.list()?;
                    continue;
                }
                Task::Full => self.full(given)?,
                Task::Database | Task::Files => vec![self.one(task, given)?],
            };
            self.face.say(format!("The same without questions:\n  {}", command(cli, task, &orders)))?;
            if asked(Confirm::new("Restore now?").with_default(true).prompt())? {
                return Ok(orders);
            }
            if given.service.is_some() {
                return Ok(Vec::new());
            }
        }
    }

    fn words(&self, task: Task) -> String {
        let of = |noun: &str| {
            let offers = self.offers.iter().filter(|offer| task.takes(offer.source)).count();
            count(offers, noun)
        };
        match task {
            Task::Database => format!("1  Database              {}", of("database")),
            Task::Files => format!("2  Files and contracts   {}", of("tree")),
            Task::Full => "3  Full                  every source, each to its own place".to_owned(),
            Task::List => "4  List                  every copy that is known".to_owned(),
            Task::Exit => "5  Exit".to_owned(),
        }
    }

    fn list(&self) -> Outcome<()> {
        for offer in &self.offers {
            self.face.say(format!("{}/{}", offer.service.name, offer.source.name))?;
            if offer.points.is_empty() {
                self.face.say("  no copy")?;
            }
            for point in &offer.points {
                self.face.say(format!("  {}", self.describe(offer, point)))?;
            }
        }
        Ok(())
    }

    fn one(&self, task: Task, given: &Restore) -> Outcome<Order> {
        let lines: Vec<Line<usize>> = self
            .offers
            .iter()
            .enumerate()
            .filter(|(_, offer)| task.takes(offer.source) && !offer.points.is_empty())
            .map(|(index, offer)| Line { words: self.newest(offer), is: index })
            .collect();
        let offer = match lines.as_slice() {
            [] => {
                return Err(Failure::new(Exit::NotFound, "no copy of that kind is known here")
                    .hint("seaworthy points"));
            }
            [only] => &self.offers[only.is],
            _ => &self.offers[asked(Select::new("Of which source?", lines).prompt())?.is],
        };
        let lines: Vec<Line<usize>> = offer
            .points
            .iter()
            .enumerate()
            .map(|(index, point)| Line { words: self.describe(offer, point), is: index })
            .collect();
        let point = &offer.points[asked(Select::new("Which copy?", lines).prompt())?.is];
        // A base backup is restored as a directory.
        let is_postgres = matches!(
            &offer.source.spec,
            SourceSpec::Postgres(postgres) if !postgres.mode.is_of_cluster()
        );
        let to = match &given.to {
            Some(to) => to.clone(),
            None => {
                let (question, suggested) = if is_postgres {
                    (
                        "To where? A new database as postgres:NAME, or a new directory:",
                        format!(
                            "postgres:{}_{}",
                            offer.service.name.as_str().replace('-', "_"),
                            stamp(self.now)
                        ),
                    )
                } else {
                    (
                        "To which new directory?",
                        format!("./{}-{}-{}", offer.service.name, offer.source.name, stamp(self.now)),
                    )
                };
                asked(Text::new(question).with_default(&suggested).prompt())?.trim().to_owned()
            }
        };
        self.face.say(self.forecast(point))?;
        self.face.say(room(&to, point.restore_bytes)?)?;
        let mut choice = given.choice.clone();
        choice.point = point.copy.0.get(..12).unwrap_or(&point.copy.0).to_owned();
        choice.from = Some(point.repository.name.to_string());
        Ok(Order {
            service: offer.service.name.clone(),
            source: offer.source.name.clone(),
            choice,
            offsite: false,
            to,
            tables: given.table.clone(),
            files: given.file.clone(),
            until: super::moment(given.until.as_deref())?,
            opening: Opening::Alone,
            reuse: None,
        })
    }

    fn full(&self, given: &Restore) -> Outcome<Vec<Order>> {
        let until = super::moment(given.until.as_deref())?;
        let mut services: Vec<&ServiceName> = self.offers.iter().map(|offer| &offer.service.name).collect();
        services.dedup();
        let mut lines = vec![Line { words: "all of them".to_owned(), is: None }];
        lines.extend(services.iter().map(|name| Line { words: name.to_string(), is: Some(*name) }));
        let wanted = if services.len() == 1 {
            None
        } else {
            asked(Select::new("Of which service?", lines).prompt())?.is
        };
        let to = match &given.to {
            Some(to) => to.clone(),
            None => {
                let suggested = format!("./restored-{}", stamp(self.now));
                let question = Text::new("Below which new directory?").with_default(&suggested);
                asked(question.prompt())?.trim().to_owned()
            }
        };
        let mut orders = Vec::new();
        let mut needed = 0_u64;
        for offer in self.offers.iter().filter(|offer| wanted.is_none_or(|name| offer.service.name == *name))
        {
            let Some(point) = offer.points.first() else {
                // It is asked for all the same: that it cannot be had must be in the exit code.
                self.face.say(format!("✗ {}/{}: no copy is known", offer.service.name, offer.source.name))?;
                let choice = given.choice.clone();
                let order = below(&to, &offer.service.name, &offer.source.name, choice, false)?;
                orders.push(Order { until: until.clone(), ..order });
                continue;
            };
            self.face.say(format!(
                "  {}/{}: {}",
                offer.service.name,
                offer.source.name,
                self.describe(offer, point)
            ))?;
            self.face.say(format!("    {}", self.forecast(point)))?;
            needed = needed.saturating_add(point.restore_bytes);
            let mut choice = given.choice.clone();
            choice.from = Some(point.repository.name.to_string());
            let order = below(&to, &offer.service.name, &offer.source.name, choice, false)?;
            orders.push(Order { until: until.clone(), ..order });
        }
        self.face.say(room(&to, needed)?)?;
        Ok(orders)
    }

    /// A source with the newest of its copies.
    fn newest(&self, offer: &Offer<'_>) -> String {
        let name = format!("{}/{}", offer.service.name, offer.source.name);
        let newest =
            offer.points.first().map_or_else(|| "no copy".to_owned(), |point| self.describe(offer, point));
        format!("{name:<28} {newest}")
    }

    fn describe(&self, offer: &Offer<'_>, point: &RecoveryPoint) -> String {
        let at = point.instant();
        let age = Duration::try_from(self.now.duration_since(at))
            .map_or_else(|_| "in the future".to_owned(), |age| format!("{} ago", duration(age)));
        let mut words = format!(
            "{}  {age}  {}  {}  in {}",
            point.copy.0.get(..8).unwrap_or(&point.copy.0),
            instant(at),
            bytes(point.restore_bytes),
            point.repository.name
        );
        if self.is_offsite(offer.service, point) {
            words.push_str(" (offsite)");
        }
        words.push_str("  ");
        words.push_str(&self.standing(point));
        words
    }

    fn is_offsite(&self, service: &Service, point: &RecoveryPoint) -> bool {
        self.setup
            .inventory()
            .repositories
            .get(&point.repository.name)
            .is_some_and(|spec| service.placement.production.is_at_another_site(&spec.place()) == Answer::Met)
    }

    fn standing(&self, point: &RecoveryPoint) -> String {
        let since = |at: Timestamp| {
            Duration::try_from(self.now.duration_since(at)).map_or_else(
                |_| "at a time that is yet to come".to_owned(),
                |age| format!("{} ago", duration(age)),
            )
        };
        let mut words = match &point.standing {
            PointStanding::Proven { level, at, .. } => format!("proven {level} {}", since(*at)),
            PointStanding::Unproven => "not proven yet".to_owned(),
            PointStanding::Failed { codes, at, .. } => {
                let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
                format!("FAILED {} {}", codes.join(" "), since(*at))
            }
            PointStanding::Gone { .. } => "GONE".to_owned(),
        };
        if point.outcome != Ending::Complete {
            words.push_str(", INCOMPLETE");
        }
        if point.is_implausible {
            words.push_str(", IMPLAUSIBLE");
        }
        words
    }

    /// How long it will take, or that nobody knows.
    fn forecast(&self, point: &RecoveryPoint) -> String {
        let known: Vec<RecoveryPoint> =
            self.offers.iter().flat_map(|offer| offer.points.iter().cloned()).collect();
        forecast_words(Forecast::of(&self.receipts, &known, point).as_ref())
    }
}

/// How long a restore will take, in words.
fn forecast_words(forecast: Option<&Forecast>) -> String {
    let Some(forecast) = forecast else {
        return "how long it takes is not known: no drill of this source has passed".to_owned();
    };
    let spell = |ms: u64| duration(Duration::from_millis(ms));
    let (from, to) = (spell(forecast.from_ms), spell(forecast.to_ms));
    let range = if from == to { to } else { format!("{from} to {to}") };
    let mut words = format!(
        "about {range}, by {}",
        match forecast.drills.len() {
            1 => "the last drill".to_owned(),
            many => format!("the last {many} drills"),
        }
    );
    if !forecast.is_of_repository {
        words.push_str(" from another repository: one that is farther away takes longer");
    }
    if forecast.is_stretched {
        words.push_str("; it is more than twice as large as what they restored");
    }
    words
}

/// Whether there is room where it goes, where that is a directory of this machine.
fn room(to: &str, needed: u64) -> Outcome<String> {
    if to.starts_with("postgres:") {
        return Ok(format!("the new database needs room for {} on its server", bytes(needed)));
    }
    let path = absolute(Path::new(to))?;
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let facts = rustix::fs::statvfs(existing).map_err(|error| {
        Failure::because(
            Exit::Unexpected,
            format!("ask how much room `{}` has", printable(&existing.to_string_lossy())),
            &error,
        )
    })?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    Ok(if free < needed {
        format!("✗ it needs {}, and there are {} free in {}", bytes(needed), bytes(free), existing.display())
    } else {
        format!("it needs {}; {} are free in {}", bytes(needed), bytes(free), existing.display())
    })
}

/// Whether a copy can be restored at all: it is not known to be gone, and its repository is configured.
fn is_offered(setup: &Setup, service: &Service, point: &RecoveryPoint) -> bool {
    !point.is_gone()
        && service.repositories.contains(&point.repository.name)
        && setup.inventory().repositories.contains_key(&point.repository.name)
}

/// The newest first; what nobody should take unless there is nothing else, last.
fn sort(points: &mut [RecoveryPoint]) {
    points.sort_by_key(|point| {
        let is_bad = matches!(point.standing, PointStanding::Failed { .. });
        let is_less = point.outcome != Ending::Complete || point.is_implausible || point.is_doubted;
        let is_proven = matches!(point.standing, PointStanding::Proven { .. });
        // Of one instant, the copy that was proven.
        let newest = std::cmp::Reverse((point.instant(), is_proven, point.sequence));
        (is_bad, is_less, newest)
    });
}

/// `20261130_0230`: a name that a database may have.
fn stamp(now: Timestamp) -> String {
    now.strftime("%Y%m%d_%H%M").to_string()
}

/// The command that does what was answered.
fn command(cli: &Cli, task: Task, orders: &[Order]) -> String {
    let mut words = vec!["seaworthy".to_owned()];
    if let Some(config) = &cli.global.config {
        words.extend(["--config".to_owned(), quoted(&config.to_string_lossy())]);
    }
    if let Some(state) = &cli.global.state_dir {
        words.extend(["--state-dir".to_owned(), quoted(&state.to_string_lossy())]);
    }
    words.push("restore".to_owned());
    let commands: Vec<String> = orders
        .iter()
        .map(|order| {
            let mut words = words.clone();
            words.push(order.service.to_string());
            words.extend(["--source".to_owned(), order.source.to_string()]);
            if let Some(from) = &order.choice.from {
                words.extend(["--from".to_owned(), from.clone()]);
            }
            if task != Task::Full {
                words.extend(["--point".to_owned(), order.choice.point.clone()]);
            }
            if let Some(until) = &order.until {
                words.extend(["--until".to_owned(), quoted(&until.to_string())]);
            }
            for table in &order.tables {
                words.extend(["--table".to_owned(), quoted(table)]);
            }
            for file in &order.files {
                words.extend(["--file".to_owned(), quoted(&file.to_string_lossy())]);
            }
            words.extend(["--to".to_owned(), quoted(&order.to)]);
            words.join(" ")
        })
        .collect();
    commands.join("\n  ")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-./:@".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What each source is called, for a person who named none.
pub(super) fn known(services: &[&Service]) -> String {
    let names: Vec<String> = services.iter().map(|service| service.name.to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_is_told_with_what_it_rests_on() {
        let forecast = Forecast {
            drills: vec![9],
            from_ms: 2_400,
            to_ms: 2_400,
            is_of_repository: true,
            is_stretched: false,
        };
        assert_eq!(forecast_words(Some(&forecast)), "about 2.4s, by the last drill");
        let forecast = Forecast {
            drills: vec![9, 7],
            to_ms: 65_000,
            is_of_repository: false,
            is_stretched: true,
            ..forecast
        };
        assert_eq!(
            forecast_words(Some(&forecast)),
            "about 2.4s to 1m05s, by the last 2 drills from another repository: one that is farther away takes longer; \
             it is more than twice as large as what they restored"
        );
        assert!(forecast_words(None).contains("not known"));
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quoted("./shop-db_20261130"), "./shop-db_20261130");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
