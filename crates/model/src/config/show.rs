//! The configuration as it was understood: every value, defaults included, as a file that can be read again.

use std::fmt::{self, Write as _};

use super::Parsed;
use super::units::format_duration;
use crate::adopt::AdoptedSet;
use crate::check::{Question, UserCheck};
use crate::custody::{Custody, KeySpec};
use crate::id::{RepositoryName, ServiceName};
use crate::objective::Objective;
use crate::placement::{Place, PlacementSpec};
use crate::remote::RemoteSpec;
use crate::service::{DrillPolicy, RepositorySpec, RetentionSpec, ScheduleSpec, Service};
use crate::source::{PostgresMode, SourceSpec, Tls};

/// Writes the configuration with every value, each with its origin where `with_origin`.
///
/// What is written is itself a configuration, and parses to the same inventory. Secrets are shown as their references.
#[must_use]
pub fn show(parsed: &Parsed, with_origin: bool) -> String {
    let mut page = Page { out: String::new(), parsed, with_origin, prefix: String::new() };
    for key in ["state_dir", "scratch_dir", "color", "log"] {
        if let Some(value) = parsed.settings.get(key) {
            page.text(key, value);
        }
    }
    for (name, objective) in &parsed.inventory.tiers {
        page.table(&format!("tiers.{}", bare(name.as_str())), &format!("tiers.{name}"));
        page.text("rpo", &objective_text(objective.rpo));
        page.text("rto", &objective_text(objective.rto));
    }
    for repository in parsed.inventory.repositories.values() {
        page.repository(repository);
    }
    for service in &parsed.inventory.services {
        page.service(service);
    }
    page.out
}

struct Page<'a> {
    out: String,
    parsed: &'a Parsed,
    with_origin: bool,
    prefix: String,
}

fn objective_text(objective: Objective) -> String {
    match objective {
        Objective::Within(bound) => format_duration(bound),
        Objective::NotApplicable => "not-applicable".to_owned(),
    }
}

/// A name as a part of a dotted key; a name may hold dots itself.
fn bare(name: &str) -> String {
    if name.contains('.') { quote(name) } else { name.to_owned() }
}

/// A text as a TOML basic string on one line.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other if other.is_control() => push(&mut out, format_args!("\\u{:04X}", u32::from(other))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(quote).collect::<Vec<_>>().join(", "))
}

fn schedule(schedule: &ScheduleSpec) -> String {
    format!("{{ cron = {}, zone = {} }}", quote(&schedule.cron), quote(&schedule.zone))
}

fn retention(retention: &RetentionSpec) -> String {
    let mut parts: Vec<String> = [
        ("last", retention.last),
        ("daily", retention.daily),
        ("weekly", retention.weekly),
        ("monthly", retention.monthly),
        ("yearly", retention.yearly),
    ]
    .into_iter()
    .filter_map(|(name, number)| Some(format!("{name} = {}", number?)))
    .collect();
    parts.extend(retention.within.map(|within| format!("within = {}", quote(&format_duration(within)))));
    if retention.forever {
        parts.push("forever = true".to_owned());
    }
    format!("{{ {} }}", parts.join(", "))
}

fn push(out: &mut String, arguments: fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a String cannot fail");
}

impl Page<'_> {
    fn table(&mut self, header: &str, prefix: &str) {
        let gap = if self.out.is_empty() { "" } else { "\n" };
        push(&mut self.out, format_args!("{gap}[{header}]\n"));
        prefix.clone_into(&mut self.prefix);
    }

    fn raw(&mut self, key: &str, value: &str) {
        let dotted = if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) };
        // The keys of a check are recorded as one.
        let origin = self.parsed.origins.get(&dotted).or_else(|| self.parsed.origins.get(&self.prefix));
        match origin.filter(|_| self.with_origin) {
            Some(origin) => push(&mut self.out, format_args!("{key} = {value}  # {origin}\n")),
            None => push(&mut self.out, format_args!("{key} = {value}\n")),
        }
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, &quote(value));
    }

    fn repository(&mut self, repository: &RepositorySpec) {
        self.table(
            &format!("repositories.{}", bare(repository.name.as_str())),
            &format!("repositories.{}", repository.name),
        );
        self.text("location", &repository.location);
        self.text("password", &repository.password.to_string());
        self.text("medium", &repository.medium);
        self.text("site", &repository.site);
        if let Some(region) = &repository.region {
            self.text("region", region);
        }
        if let Some(account) = &repository.account {
            self.text("account", account);
        }
        if let Some(written) = &repository.retention {
            self.raw("retention", &retention(written));
        }
        if let Some(remote) = &repository.remote {
            self.remote(remote);
        }
        if let Some(service) = &repository.opened_by {
            self.text("opened_by", service.as_str());
        }
        for key in repository.keys.values() {
            self.key(repository, key);
        }
    }

    fn key(&mut self, repository: &RepositorySpec, key: &KeySpec) {
        self.table(
            &format!("repositories.{}.keys.{}", bare(repository.name.as_str()), bare(key.name.as_str())),
            &format!("repositories.{}.keys.{}", repository.name, key.name),
        );
        self.text("custody", key.custody.word());
        self.text("holder", &key.holder);
        if let Some(place) = &key.place {
            self.text("place", place);
        }
        if let Some(password) = &key.password {
            self.text("password", &password.to_string());
        }
        if let Some(id) = &key.id {
            self.text("id", id.as_str());
        }
        if key.custody != Custody::Online {
            self.text("check_every", &format_duration(key.check_every));
        }
    }

    fn remote(&mut self, remote: &RemoteSpec) {
        if let Some(endpoint) = &remote.endpoint {
            self.text("endpoint", endpoint);
        }
        if let Some(path_style) = remote.path_style {
            self.raw("path_style", if path_style { "true" } else { "false" });
        }
        for (key, value) in [
            ("storage_class", &remote.storage_class),
            ("server_side_encryption", &remote.encryption),
            ("storage_account", &remote.storage_account),
        ] {
            if let Some(value) = value {
                self.text(key, value);
            }
        }
        for (credential, reference) in &remote.credentials {
            self.text(credential.as_str(), &reference.to_string());
        }
        self.text("timeout", &format_duration(remote.timeout));
    }

    fn service(&mut self, service: &Service) {
        let header = format!("services.{}", bare(service.name.as_str()));
        let prefix = format!("services.{}", service.name);
        self.table(&header, &prefix);
        self.text("owner", &service.owner);
        self.text("tier", service.tier.as_str());
        self.text("rpo", &objective_text(service.objective.rpo));
        self.text("rto", &objective_text(service.objective.rto));
        if let Some(rationale) = &service.rationale {
            self.text("rationale", rationale);
        }
        if !service.depends_on.is_empty() {
            self.raw("depends_on", &list(service.depends_on.iter().map(ServiceName::as_str)));
        }
        if !service.repositories.is_empty() {
            self.raw("repositories", &list(service.repositories.iter().map(RepositoryName::as_str)));
        }
        if let Some(written) = &service.schedule {
            self.raw("schedule", &schedule(written));
        }
        if let Some(written) = &service.retention {
            self.raw("retention", &retention(written));
        }
        self.text("stale_after", &format_duration(service.stale_after));
        self.raw("ssot", if service.ssot { "true" } else { "false" });
        self.table(&format!("{header}.drill"), &format!("{prefix}.drill"));
        self.drill(&service.drill);
        self.placement(&header, &prefix, &service.placement);
        for source in &service.sources {
            let source_header = format!("{header}.sources.{}", bare(source.name.as_str()));
            let source_prefix = format!("{prefix}.sources.{}", source.name);
            self.table(&source_header, &source_prefix);
            self.text("kind", source.spec.kind());
            self.source(&source.spec);
            if let Some(written) = &source.retention {
                self.raw("retention", &retention(written));
            }
            for check in &source.checks {
                push(&mut self.out, format_args!("\n[[{source_header}.checks]]\n"));
                self.prefix = format!("{source_prefix}.checks.{}", check.name);
                self.check(check);
            }
        }
        for set in &service.adopted {
            self.adopted(&header, &prefix, set);
        }
    }

    fn adopted(&mut self, header: &str, prefix: &str, set: &AdoptedSet) {
        let set_header = format!("{header}.adopted.{}", bare(set.name.as_str()));
        let set_prefix = format!("{prefix}.adopted.{}", set.name);
        self.table(&set_header, &set_prefix);
        self.text("kind", set.kind.as_str());
        self.text("location", &set.location);
        self.text("pattern", set.pattern.as_str());
        if let Some(zone) = &set.zone {
            self.text("zone", zone);
        }
        if let Some(decrypt) = &set.decrypt {
            self.text("decrypt", &decrypt.to_string());
        }
        self.raw("iterations", &set.iterations.to_string());
        self.text("sidecar", set.sidecar.as_str());
        self.text("stale_after", &format_duration(set.stale_after));
        self.raw("without_rows", &list(set.without_rows.iter().map(String::as_str)));
        self.raw("may_be_empty", if set.may_be_empty { "true" } else { "false" });
        if let Some(bin_dir) = &set.bin_dir {
            self.text("bin_dir", bin_dir);
        }
        for check in &set.checks {
            push(&mut self.out, format_args!("\n[[{set_header}.checks]]\n"));
            self.prefix = format!("{set_prefix}.checks.{}", check.name);
            self.check(check);
        }
    }

    fn drill(&mut self, drill: &DrillPolicy) {
        if let Some(written) = &drill.schedule {
            self.raw("schedule", &schedule(written));
        }
        self.text("proof_valid", &format_duration(drill.proof_valid));
        self.text("random_within", &format_duration(drill.random_within));
        self.raw("deadline_percent", &drill.deadline_percent.to_string());
        self.text("deadline", &format_duration(drill.deadline));
    }

    fn placement(&mut self, header: &str, prefix: &str, placement: &PlacementSpec) {
        let Place { medium, site, region, account } = &placement.production;
        if !placement.production.is_unsaid() {
            self.table(&format!("{header}.production"), &format!("{prefix}.production"));
        }
        for (key, word) in [("site", site), ("region", region), ("account", account), ("medium", medium)] {
            if let Some(word) = word {
                self.text(key, word);
            }
        }
        let policy = &placement.policy;
        self.table(&format!("{header}.policy"), &format!("{prefix}.policy"));
        for (key, number) in [
            ("copies", policy.copies),
            ("media", policy.media),
            ("offsite", policy.offsite),
            ("other_account", policy.other_account),
            ("other_region", policy.other_region),
            ("immutable", policy.immutable),
        ] {
            self.raw(key, &number.to_string());
        }
        if !policy.regions.is_empty() {
            self.raw("regions", &list(policy.regions.iter().map(String::as_str)));
        }
        self.text("evidence_age", &format_duration(policy.evidence_age));
    }

    fn source(&mut self, spec: &SourceSpec) {
        let flag = |value: bool| if value { "true" } else { "false" };
        let texts = |items: &[String]| list(items.iter().map(String::as_str));
        match spec {
            SourceSpec::Postgres(postgres) => {
                self.text("host", &postgres.host);
                self.raw("port", &postgres.port.to_string());
                self.text("user", &postgres.user);
                self.text("mode", postgres.mode.word());
                if let PostgresMode::Continuous { base_every } = postgres.mode {
                    self.text("base_every", &format_duration(base_every));
                }
                self.text("database", &postgres.database);
                if let Some(password) = &postgres.password {
                    self.text("password", &password.to_string());
                }
                self.text(
                    "tls",
                    match postgres.tls {
                        Tls::LocalOnly => "local-only",
                        Tls::VerifyFull => "verify-full",
                    },
                );
                self.raw("exclude_schemas", &texts(&postgres.exclude_schemas));
                self.raw("exclude_tables", &texts(&postgres.exclude_tables));
                self.text("lock_timeout", &format_duration(postgres.lock_timeout));
                if let Some(bin_dir) = &postgres.bin_dir {
                    self.text("bin_dir", bin_dir);
                }
                self.raw("may_be_empty", flag(postgres.may_be_empty));
            }
            SourceSpec::Sqlite(sqlite) => {
                self.text("path", &sqlite.path);
                self.text("busy_timeout", &format_duration(sqlite.busy_timeout));
                self.raw("may_be_empty", flag(sqlite.may_be_empty));
            }
            SourceSpec::Files(files) => {
                self.raw("paths", &texts(&files.paths));
                self.raw("exclude", &texts(&files.exclude));
                self.raw("one_file_system", flag(files.one_file_system));
                self.raw("may_be_empty", flag(files.may_be_empty));
            }
        }
    }

    fn check(&mut self, check: &UserCheck) {
        let kind = match &check.question {
            Question::Sql { .. } => "sql",
            Question::MinimumRows { .. } => "minimum-rows",
            Question::Freshness { .. } => "freshness",
            Question::Migration { .. } => "migration",
            Question::Command { .. } => "command",
            Question::Http { .. } => "http",
        };
        self.text("kind", kind);
        self.text("name", check.name.as_str());
        self.text("timeout", &format_duration(check.timeout));
        match &check.question {
            Question::Sql { database, query, expect } => {
                self.text("query", query);
                if let Some(expect) = expect {
                    self.text("expect", expect);
                }
                if let Some(database) = database {
                    self.text("database", database);
                }
            }
            Question::MinimumRows { table, rows } => {
                self.text("table", table);
                self.raw("rows", &rows.to_string());
            }
            Question::Freshness { table, column, within } => {
                self.text("table", table);
                self.text("column", column);
                self.text("within", &format_duration(*within));
            }
            Question::Migration { tool, revision } => {
                self.text("tool", tool);
                self.text("revision", revision);
            }
            Question::Command { argv } => self.raw("argv", &list(argv.iter().map(String::as_str))),
            Question::Http { url, status } => {
                self.text("url", url);
                self.raw("status", &status.to_string());
            }
        }
    }
}
