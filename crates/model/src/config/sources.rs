//! Meaning of a source and of its checks: what each kind may hold, and what it must not.

use std::net::IpAddr;

use super::diagnostic::{Draft, Place, quoted};
use super::meaning::{Judge, Sited, sited};
use super::shape::{
    At, CheckTable, DurationText, FilesTable, NameText, PostgresTable, RetentionTable, SourceTable,
    SqliteTable, built_in,
};
use crate::check::{Question, UserCheck};
use crate::id::CheckName;
use crate::source::{FilesSpec, PostgresMode, PostgresSpec, SourceSpec, SqliteSpec, Tls};

/// Reads one source; `None` after something was reported.
pub(super) fn source(
    judge: &mut Judge<'_>,
    prefix: &str,
    service: &str,
    source: Sited<'_, SourceTable>,
) -> Option<(SourceSpec, Vec<UserCheck>)> {
    judge.record(format!("{prefix}.kind"), Some(&source.place()));
    let text = source.text;
    let (spec, checks, kind) = match &source.at.value {
        SourceTable::Postgres(table) => {
            (postgres(judge, prefix, text, table).map(SourceSpec::Postgres), &table.checks, Kind::Postgres)
        }
        SourceTable::Sqlite(table) => {
            (sqlite(judge, prefix, text, table).map(SourceSpec::Sqlite), &table.checks, Kind::Sqlite)
        }
        SourceTable::Files(table) => {
            (files(judge, prefix, text, table).map(SourceSpec::Files), &table.checks, Kind::Files)
        }
    };
    let read = self::checks(judge, prefix, service, kind, text, checks);
    Some((spec?, read))
}

/// Reads the checks of a source or of an adopted set.
pub(super) fn checks(
    judge: &mut Judge<'_>,
    prefix: &str,
    service: &str,
    kind: Kind,
    text: usize,
    checks: &[At<CheckTable>],
) -> Vec<UserCheck> {
    let mut read: Vec<(UserCheck, Place)> = Vec::new();
    for at in checks {
        let at = Sited { text, at };
        let Some(check) = check(judge, prefix, service, kind, at) else { continue };
        if let Some((_, first)) = read.iter().find(|(other, _)| other.name == check.name) {
            Draft::error(at.place(), format!("there are two checks named {}", quoted(check.name.as_str())))
                .label("here again")
                .with(first.clone(), "first here")
                .hint("the name is what a receipt says; give one of them another")
                .report(judge.sink);
            continue;
        }
        judge.record(format!("{prefix}.checks.{}", check.name), Some(&at.place()));
        read.push((check, at.place()));
    }
    read.into_iter().map(|(check, _)| check).collect()
}

/// What is kept of a source, as written.
pub(super) fn retention(source: &SourceTable) -> Option<&At<RetentionTable>> {
    match source {
        SourceTable::Postgres(table) => table.retention.as_ref(),
        SourceTable::Sqlite(table) => table.retention.as_ref(),
        SourceTable::Files(table) => table.retention.as_ref(),
    }
}

/// What a check asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Postgres,
    Sqlite,
    Files,
}

impl Judge<'_> {
    pub(super) fn flag(&mut self, key: &str, text: usize, value: Option<&At<bool>>) -> bool {
        let value = sited(text, value);
        self.record(key.to_owned(), value.map(|value| value.place()).as_ref());
        value.is_some_and(|value| value.at.value)
    }

    /// A list of texts, none of them empty.
    pub(super) fn list(
        &mut self,
        key: &str,
        what: &str,
        text: usize,
        value: Option<&At<Vec<At<String>>>>,
    ) -> Vec<String> {
        let value = sited(text, value);
        self.record(key.to_owned(), value.map(|value| value.place()).as_ref());
        let mut out = Vec::new();
        for at in value.iter().flat_map(|value| &value.at.value) {
            let place = Place { text, span: at.span.clone() };
            if at.value.is_empty() || at.value.contains('\0') {
                Draft::error(place, format!("an empty {what} says nothing")).report(self.sink);
            } else if out.contains(&at.value) {
                Draft::warning(place, format!("{} is named twice", quoted(&at.value))).report(self.sink);
            } else {
                out.push(at.value.clone());
            }
        }
        out
    }

    fn needed(&mut self, what: &str, text: usize, value: Option<&At<String>>) -> Option<String> {
        // One that is missing has been reported with the shape.
        let value = sited(text, value)?;
        if value.at.value.trim().is_empty() || value.at.value.contains('\0') {
            Draft::error(value.place(), format!("`{what}` is empty")).report(self.sink);
            return None;
        }
        Some(value.at.value.clone())
    }
}

fn postgres(judge: &mut Judge<'_>, prefix: &str, text: usize, table: &PostgresTable) -> Option<PostgresSpec> {
    let host_at = sited(text, table.host.as_ref());
    judge.record(format!("{prefix}.host"), host_at.map(|at| at.place()).as_ref());
    let host = match host_at {
        None => Some(built_in::PG_HOST.to_owned()),
        Some(at) => host(judge, at),
    };
    let port = sited(text, table.port.as_ref());
    judge.record(format!("{prefix}.port"), port.map(|at| at.place()).as_ref());
    if let Some(port) = port.filter(|port| port.at.value == 0) {
        Draft::error(port.place(), "0 is no port").report(judge.sink);
    }
    let user_at = sited(text, table.user.as_ref());
    judge.record(format!("{prefix}.user"), user_at.map(|at| at.place()).as_ref());
    let user = match user_at {
        None => Some(built_in::PG_USER.to_owned()),
        Some(at) => plain_name(judge, "user", at),
    };
    let database_at = sited(text, table.database.as_ref());
    judge.record(format!("{prefix}.database"), database_at.map(|at| at.place()).as_ref());
    let database = database_at.and_then(|at| plain_name(judge, "database", at));

    let mode_at = sited(text, table.mode.as_ref());
    judge.record(format!("{prefix}.mode"), mode_at.map(|at| at.place()).as_ref());
    let every_at = sited(text, table.base_every.as_ref());
    let mode = match mode_at.map(|at| at.at.value.as_str()) {
        Some("physical") => PostgresMode::Physical,
        Some("continuous") => PostgresMode::Continuous {
            base_every: judge.duration(&format!("{prefix}.base_every"), every_at, built_in::BASE_EVERY),
        },
        // Anything else has been reported with the shape.
        Some(_) | None => PostgresMode::Logical,
    };
    if let Some(at) = every_at.filter(|_| !matches!(mode, PostgresMode::Continuous { .. })) {
        judge.record(format!("{prefix}.base_every"), Some(&at.place()));
        let mut draft = Draft::error(at.place(), "`base_every` is of continuous copies only")
            .hint("write mode = \"continuous\", or take it away");
        if let Some(mode_at) = mode_at {
            draft = draft.with(mode_at.place(), "another mode");
        }
        draft.report(judge.sink);
    }
    let password_at = sited(text, table.password.as_ref());
    let password = password_at.and_then(|at| {
        judge.record(format!("{prefix}.password"), Some(&at.place()));
        judge.secret(at)
    });

    let tls_at = sited(text, table.tls.as_ref());
    judge.record(format!("{prefix}.tls"), tls_at.map(|at| at.place()).as_ref());
    let is_local = host.as_deref().is_none_or(is_local);
    let is_socket = host.as_deref().is_some_and(|host| host.starts_with('/'));
    let tls = match tls_at.map(|at| at.at.value.as_str()) {
        Some("local-only") => Tls::LocalOnly,
        Some(_) => Tls::VerifyFull,
        None if is_local => Tls::LocalOnly,
        None => Tls::VerifyFull,
    };
    if let (Some(at), Some(host)) = (tls_at, &host) {
        if tls == Tls::LocalOnly && !is_local {
            let what = if password_at.is_some() { "the password and the data" } else { "the data" };
            let mut draft = Draft::error(
                at.place(),
                format!("{what} would cross the network to {} unencrypted", quoted(host)),
            )
            .label("for a Unix socket or loopback only")
            .hint("write tls = \"verify-full\", or leave `tls` out");
            if let Some(host_at) = host_at {
                draft = draft.with(host_at.place(), "another machine");
            }
            draft.report(judge.sink);
        } else if tls == Tls::VerifyFull && is_socket {
            let mut draft = Draft::error(at.place(), "PostgreSQL does not speak TLS over a Unix socket")
                .hint("leave `tls` out, or connect by host name");
            if let Some(host_at) = host_at {
                draft = draft.with(host_at.place(), "a Unix socket");
            }
            draft.report(judge.sink);
        }
    }

    let exclude_schemas =
        judge.list(&format!("{prefix}.exclude_schemas"), "schema", text, table.exclude_schemas.as_ref());
    let exclude_tables =
        judge.list(&format!("{prefix}.exclude_tables"), "table", text, table.exclude_tables.as_ref());
    for at in table.exclude_tables.iter().flat_map(|list| &list.value) {
        if !at.value.is_empty() && !at.value.contains('.') {
            Draft::error(
                Place { text, span: at.span.clone() },
                format!("{} does not say in which schema the table is", quoted(&at.value)),
            )
            .hint(format!(
                "write \"public.{}\" if that is where it is",
                at.value.chars().take(63).collect::<String>()
            ))
            .report(judge.sink);
        }
    }
    for (what, list) in
        [("exclude_schemas", &table.exclude_schemas), ("exclude_tables", &table.exclude_tables)]
    {
        let given = sited(text, list.as_ref()).filter(|at| !at.at.value.is_empty());
        if let Some(at) = given.filter(|_| mode.is_of_cluster()) {
            Draft::error(at.place(), "a base backup is of the whole cluster: nothing can be left out of it")
                .hint(format!("take `{what}` away, or write mode = \"logical\""))
                .report(judge.sink);
        }
    }
    let lock_timeout = judge.duration(
        &format!("{prefix}.lock_timeout"),
        sited(text, table.lock_timeout.as_ref()),
        built_in::LOCK_TIMEOUT,
    );
    let bin_dir = sited(text, table.bin_dir.as_ref()).and_then(|at| {
        judge.record(format!("{prefix}.bin_dir"), Some(&at.place()));
        judge.path("directory", at)
    });
    let may_be_empty = judge.flag(&format!("{prefix}.may_be_empty"), text, table.may_be_empty.as_ref());
    Some(PostgresSpec {
        host: host?,
        port: port.map_or(built_in::PG_PORT, |port| port.at.value),
        user: user?,
        mode,
        database: database?,
        password,
        tls,
        exclude_schemas,
        exclude_tables,
        lock_timeout,
        bin_dir,
        may_be_empty,
    })
}

/// Whether a connection stays on this machine.
fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host(judge: &mut Judge<'_>, at: Sited<'_, String>) -> Option<String> {
    let text = at.at.value.as_str();
    if text.starts_with('/') {
        return judge.absolute("socket directory", at.place(), text);
    }
    let wrong = if looks_like_conninfo(text) {
        judge.sink.mask(at.place());
        Some(("`host` holds a connection string", "write host, port, user and database as keys of their own"))
    } else if text.is_empty() {
        Some(("`host` is empty", "write a host name, an address, or the absolute directory of a Unix socket"))
    } else if text.contains(',') {
        Some(("`host` names several hosts", "write one: a copy is of one server"))
    } else if text.contains('/') {
        Some(("`host` is a relative path", "write the absolute directory of the Unix socket"))
    } else if text.contains('@') {
        judge.sink.mask(at.place());
        Some(("`host` holds a user", "write the user as `user`"))
    } else if text.split_once(':').is_some_and(|(name, port)| {
        !name.contains('[') && !port.contains(':') && port.chars().all(|character| character.is_ascii_digit())
    }) {
        Some(("`host` holds a port", "write the port as `port`"))
    } else if text.starts_with('-')
        || !text.chars().all(|character| character.is_alphanumeric() || "-._:[]%".contains(character))
    {
        Some((
            "`host` is no host name",
            "write a host name, an address, or the absolute directory of a Unix socket",
        ))
    } else {
        None
    };
    let Some((message, hint)) = wrong else { return Some(text.trim_matches(['[', ']']).to_owned()) };
    Draft::error(at.place(), message).hint(hint).report(judge.sink);
    None
}

fn looks_like_conninfo(text: &str) -> bool {
    text.contains('=') || text.contains("://")
}

/// The name of a database or a role: never something that a client library would take for a connection string or a flag.
fn plain_name(judge: &mut Judge<'_>, what: &str, at: Sited<'_, String>) -> Option<String> {
    let text = at.at.value.as_str();
    let hint = "write host, port, user and database as keys of their own, and the password as a reference";
    if looks_like_conninfo(text) {
        // It may hold a password in any of libpq's spellings.
        judge.sink.mask(at.place());
        Draft::error(at.place(), format!("`{what}` holds a connection string, not a name"))
            .label("not shown")
            .hint(hint)
            .report(judge.sink);
        return None;
    }
    let wrong = if text.is_empty() {
        Some("is empty".to_owned())
    } else if text.starts_with('-') {
        Some(format!("{} begins with `-`, which a program takes for a flag", quoted(text)))
    } else if text.len() > 63 {
        Some(format!("{} is longer than the 63 bytes that PostgreSQL allows", quoted(text)))
    } else if text.contains('\0') {
        Some("holds a NUL character".to_owned())
    } else {
        None
    };
    if let Some(why) = wrong {
        Draft::error(at.place(), format!("`{what}` {why}")).report(judge.sink);
        return None;
    }
    Some(text.to_owned())
}

fn sqlite(judge: &mut Judge<'_>, prefix: &str, text: usize, table: &SqliteTable) -> Option<SqliteSpec> {
    let path_at = sited(text, table.path.as_ref());
    judge.record(format!("{prefix}.path"), path_at.map(|at| at.place()).as_ref());
    let path = path_at.and_then(|at| {
        let text = &at.at.value.0;
        if text == ":memory:" || text.starts_with("file:") {
            Draft::error(at.place(), format!("{} is not the path of a file", quoted(text)))
                .hint("write the absolute path of the database file")
                .report(judge.sink);
            return None;
        }
        for suffix in ["-wal", "-journal", "-shm"] {
            if let Some(database) = text.strip_suffix(suffix) {
                Draft::error(
                    at.place(),
                    format!("{} is a companion of a database, not the database", quoted(text)),
                )
                .hint(format!("write {}; its companions are part of every copy", quoted(database)))
                .report(judge.sink);
                return None;
            }
        }
        judge.path("path", at)
    });
    let busy_timeout = judge.duration(
        &format!("{prefix}.busy_timeout"),
        sited(text, table.busy_timeout.as_ref()),
        built_in::BUSY_TIMEOUT,
    );
    let may_be_empty = judge.flag(&format!("{prefix}.may_be_empty"), text, table.may_be_empty.as_ref());
    Some(SqliteSpec { path: path?, busy_timeout, may_be_empty })
}

fn files(judge: &mut Judge<'_>, prefix: &str, text: usize, table: &FilesTable) -> Option<FilesSpec> {
    let list = sited(text, table.paths.as_ref());
    judge.record(format!("{prefix}.paths"), list.map(|at| at.place()).as_ref());
    let mut paths: Vec<(String, Place)> = Vec::new();
    let mut is_whole = list.is_some();
    for at in list.iter().flat_map(|list| &list.at.value) {
        let at = Sited { text, at };
        let Some(path) = judge.path("path", at) else {
            is_whole = false;
            continue;
        };
        let holds = |outer: &str, inner: &str| {
            outer == inner
                || outer == "/"
                || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some((other, place)) =
            paths.iter().find(|(other, _)| holds(other, &path) || holds(&path, other))
        {
            let (outer, inner) = if holds(other, &path) { (other, &path) } else { (&path, other) };
            Draft::error(
                at.place(),
                format!("{} lies within {}, so it would be copied twice", quoted(inner), quoted(outer)),
            )
            .with(place.clone(), "and here")
            .hint("leave one of them out")
            .report(judge.sink);
            is_whole = false;
            continue;
        }
        paths.push((path, at.place()));
    }
    if let Some(list) = list.filter(|list| list.at.value.is_empty()) {
        Draft::error(list.place(), "`paths` names no tree")
            .hint("write paths = [\"/srv/app\"]")
            .report(judge.sink);
        is_whole = false;
    }
    let exclude = judge.list(&format!("{prefix}.exclude"), "pattern", text, table.exclude.as_ref());
    for at in table.exclude.iter().flat_map(|list| &list.value) {
        let root = paths
            .iter()
            .find_map(|(root, _)| at.value.strip_prefix(root.as_str()).filter(|rest| rest.starts_with('/')));
        if let Some(below) = root {
            Draft::error(
                Place { text, span: at.span.clone() },
                format!("{} leaves nothing out: patterns are matched below the root", quoted(&at.value)),
            )
            .hint(format!("write {}", quoted(below.trim_start_matches('/'))))
            .report(judge.sink);
        }
    }
    let one_file_system =
        judge.flag(&format!("{prefix}.one_file_system"), text, table.one_file_system.as_ref());
    let may_be_empty = judge.flag(&format!("{prefix}.may_be_empty"), text, table.may_be_empty.as_ref());
    is_whole.then(|| FilesSpec {
        paths: paths.into_iter().map(|(path, _)| path).collect(),
        exclude,
        one_file_system,
        may_be_empty,
    })
}

type CheckHead<'a> = (&'a Option<At<NameText>>, &'a Option<At<DurationText>>);

fn head(check: &CheckTable) -> CheckHead<'_> {
    match check {
        CheckTable::Sql(table) => (&table.name, &table.timeout),
        CheckTable::MinimumRows(table) => (&table.name, &table.timeout),
        CheckTable::Freshness(table) => (&table.name, &table.timeout),
        CheckTable::Migration(table) => (&table.name, &table.timeout),
        CheckTable::Command(table) => (&table.name, &table.timeout),
        CheckTable::Http(table) => (&table.name, &table.timeout),
    }
}

fn check(
    judge: &mut Judge<'_>,
    prefix: &str,
    service: &str,
    kind: Kind,
    at: Sited<'_, CheckTable>,
) -> Option<UserCheck> {
    let text = at.text;
    let (name_at, timeout_at) = head(&at.at.value);
    let name_at = sited(text, name_at.as_ref());
    let name = name_at.and_then(|name| judge.name::<CheckName>("check", name.place(), &name.at.value.0));
    let key = name
        .as_ref()
        .map_or_else(|| format!("{prefix}.checks"), |name| format!("{prefix}.checks.{name}.timeout"));
    let timeout = judge.duration(&key, sited(text, timeout_at.as_ref()), built_in::CHECK_TIMEOUT);
    let question = question(judge, text, &at.at.value);

    let needs_database = match &at.at.value {
        CheckTable::Sql(_)
        | CheckTable::MinimumRows(_)
        | CheckTable::Freshness(_)
        | CheckTable::Migration(_) => true,
        CheckTable::Command(_) | CheckTable::Http(_) => false,
    };
    if needs_database && kind == Kind::Files {
        Draft::error(
            at.place(),
            format!("this check asks a database, but its source in {} is a tree of files", quoted(service)),
        )
        .hint("use kind = \"command\", or move the check to the database's source")
        .report(judge.sink);
        return None;
    }
    if let CheckTable::Sql(table) = &at.at.value
        && kind == Kind::Sqlite
        && let Some(database) = sited(text, table.database.as_ref())
    {
        Draft::error(database.place(), "a SQLite file is one database; `database` is for PostgreSQL")
            .hint("leave `database` out")
            .report(judge.sink);
        return None;
    }
    Some(UserCheck { name: name?, question: question?, timeout })
}

fn question(judge: &mut Judge<'_>, text: usize, check: &CheckTable) -> Option<Question> {
    match check {
        CheckTable::Sql(table) => {
            let database =
                table.database.as_ref().map(|at| plain_name(judge, "database", Sited { text, at }));
            Some(Question::Sql {
                query: judge.needed("query", text, table.query.as_ref())?,
                expect: table.expect.as_ref().map(|at| at.value.clone()),
                database: match database {
                    None => None,
                    Some(read) => Some(read?),
                },
            })
        }
        CheckTable::MinimumRows(table) => {
            if let Some(rows) = sited(text, table.rows.as_ref()).filter(|rows| rows.at.value == 0) {
                Draft::error(rows.place(), "every table has at least 0 rows, so this check cannot fail")
                    .hint("write the fewest rows that are plausible")
                    .report(judge.sink);
                return None;
            }
            Some(Question::MinimumRows {
                table: judge.needed("table", text, table.table.as_ref())?,
                rows: table.rows.as_ref()?.value,
            })
        }
        CheckTable::Freshness(table) => {
            let within_at = sited(text, table.within.as_ref())?;
            let within = judge.positive(within_at);
            Some(Question::Freshness {
                table: judge.needed("table", text, table.table.as_ref())?,
                column: judge.needed("column", text, table.column.as_ref())?,
                within: within?,
            })
        }
        CheckTable::Migration(table) => Some(Question::Migration {
            tool: judge.needed("tool", text, table.tool.as_ref())?,
            revision: judge.needed("revision", text, table.revision.as_ref())?,
        }),
        CheckTable::Command(table) => {
            let argv = sited(text, table.argv.as_ref())?;
            let words: Vec<String> = argv.at.value.iter().map(|at| at.value.clone()).collect();
            let program = words.first().map_or("", String::as_str);
            let wrong = if program.is_empty() {
                Some(("`argv` names no program", "write argv = [\"/usr/bin/program\", \"argument\"]"))
            } else if words.iter().any(|word| word.contains('\0')) {
                Some(("`argv` holds a NUL character", "take it out"))
            } else if words.len() == 1 && program.contains(char::is_whitespace) {
                Some(("`argv` is one word with spaces", "no shell splits it; write one text per argument"))
            } else if program.contains('/') && !program.starts_with('/') {
                Some((
                    "the program's path is relative",
                    "write the absolute path, or a name that is searched for",
                ))
            } else {
                None
            };
            if let Some((message, hint)) = wrong {
                Draft::error(argv.place(), message).hint(hint).report(judge.sink);
                return None;
            }
            Some(Question::Command { argv: words })
        }
        CheckTable::Http(table) => {
            let url_at = sited(text, table.url.as_ref())?;
            let status_at = sited(text, table.status.as_ref());
            let status = status_at.map_or(built_in::HTTP_STATUS, |at| at.at.value);
            if let Some(at) = status_at.filter(|at| !(100..=599).contains(&at.at.value)) {
                Draft::error(at.place(), format!("{status} is no HTTP status"))
                    .hint("write 100 to 599")
                    .report(judge.sink);
                return None;
            }
            let url = url_at.at.value.as_str();
            let authority = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or(""));
            let host = authority.map(|authority| match authority.rsplit_once(':') {
                Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
                _ => authority,
            });
            let is_sound = !url.chars().any(|character| character.is_control() || character.is_whitespace());
            if host.is_some_and(|host| !host.starts_with('/') && is_local(host)) && is_sound {
                return Some(Question::Http { url: url.to_owned(), status });
            }
            Draft::error(url_at.place(), format!("{} is not on the sandbox's own loopback", quoted(url)))
                .label("a sandbox has no route to anywhere else")
                .hint("write \"http://127.0.0.1:PORT/path\"")
                .report(judge.sink);
            None
        }
    }
}
