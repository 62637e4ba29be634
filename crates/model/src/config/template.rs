//! The commented `seaworthy.toml` that a first run writes from what was found on the machine.

use std::fmt::{self, Write as _};

use super::show::quote;

/// Name of the schema file that a written configuration points at; `seaworthy config schema` prints its content.
pub const SCHEMA_FILE: &str = "seaworthy.schema.json";

/// What a first run found, or was told by flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovered {
    /// Who is asked when a proof fails.
    pub owner: String,
    /// IANA name of the machine's time zone; `UTC` where unknown.
    pub zone: String,
    /// Where copies go.
    pub repository: String,
    /// Absolute path of the file with the repository's password.
    pub password_file: String,
    /// PostgreSQL databases.
    pub postgres: Vec<DiscoveredPostgres>,
    /// Absolute paths of SQLite databases.
    pub sqlite: Vec<String>,
    /// Absolute paths of directories.
    pub directories: Vec<String>,
}

/// A PostgreSQL database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredPostgres {
    /// Host name, address, or directory of the Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role that reads.
    pub user: String,
    /// Database.
    pub database: String,
}

/// Writes a commented configuration of what was found; it parses without diagnostics as long as its values are usable.
///
/// Each database and directory becomes a service named after it. Where nothing was found, an example stands in comments.
#[must_use]
pub fn template(discovered: &Discovered) -> String {
    let mut out = String::new();
    let zone = if discovered.zone.is_empty() { "UTC" } else { &discovered.zone };
    push(
        &mut out,
        format_args!(
            "#:schema ./{SCHEMA_FILE}\n\
             # What seaworthy backs up, where the copies go, and what was promised about getting them back.\n\
             # `seaworthy config check` finds what is wrong here; `seaworthy config show --origin` prints every value,\n\
             # the defaults included. A key that is not known is an error, so a slip is not a silent gap.\n\
             \n\
             # Further files: tiers, repositories and services only.\n\
             # include = [\"conf.d/*.toml\"]\n\
             \n\
             # What services take where they say nothing themselves.\n\
             [defaults]\n\
             # Who is asked when a proof fails.\n\
             owner = {}\n\
             # critical: 1h of loss, back in 1h. standard: 24h, 4h. low: 72h, 24h.\n\
             tier = \"standard\"\n\
             # When copies are made: minute, hour, day of month, month, day of week, in a named time zone.\n\
             schedule = {{ cron = \"0 2 * * *\", zone = {} }}\n\
             # What is kept. A copy stays while any of these keeps it; without this line nothing expires.\n\
             retention = {{ daily = 30, weekly = 12, monthly = 12, yearly = 7 }}\n\
             # A restore is proven on this schedule; a proof older than `proof_valid` no longer counts.\n\
             drill = {{ schedule = {{ cron = \"0 4 * * SUN\", zone = {} }}, proof_valid = \"35d\" }}\n",
            quote(&discovered.owner),
            quote(zone),
            quote(zone),
        ),
    );
    push(
        &mut out,
        format_args!(
            "\n# Where copies live. The format is restic's: stock restic can read it with the same password.\n\
             # Keep the password somewhere else as well: without it every copy is noise.\n\
             [repositories.local]\n\
             location = {}\n\
             # A reference, never the password: file:, env:, cmd:, systemd: or vault:\n\
             password = {}\n\
             # The place that one disaster can reach at once.\n\
             site = \"local\"\n\
             \n\
             # A second copy, out of reach of the first one's fire:\n\
             # [repositories.offsite]\n\
             # location = \"s3://bucket/prefix\"\n\
             # password = \"file:/etc/seaworthy/offsite-password\"\n\
             # region = \"eu-central-1\"\n",
            quote(&discovered.repository),
            quote(&format!("file:{}", discovered.password_file)),
        ),
    );
    let mut names = Names::default();
    for postgres in &discovered.postgres {
        let name = names.unique(&postgres.database);
        push(
            &mut out,
            format_args!(
                "\n[services.{name}.sources.database]\n\
                 kind = \"postgres\"\n\
                 host = {}\n\
                 port = {}\n\
                 user = {}\n\
                 database = {}\n\
                 # password = \"file:/etc/seaworthy/{name}-password\"\n\
                 # Questions to every restore, beside the comparison with what was backed up:\n\
                 # checks = [{{ name = \"has-rows\", kind = \"minimum-rows\", table = \"public.orders\", rows = 1000 }}]\n",
                quote(&postgres.host),
                postgres.port,
                quote(&postgres.user),
                quote(&postgres.database),
            ),
        );
    }
    for path in &discovered.sqlite {
        let name = names.unique(stem(path));
        push(
            &mut out,
            format_args!("\n[services.{name}.sources.database]\nkind = \"sqlite\"\npath = {}\n", quote(path)),
        );
    }
    for path in &discovered.directories {
        let name = names.unique(stem(path));
        push(
            &mut out,
            format_args!(
                "\n[services.{name}.sources.files]\n\
                 kind = \"files\"\n\
                 paths = [{}]\n\
                 # Left out on purpose, matched below the root; recorded with every copy.\n\
                 # exclude = [\"cache/**\"]\n",
                quote(path),
            ),
        );
    }
    if names.taken.is_empty() {
        out.push_str(
            "\n# Nothing was found. A service looks like this:\n\
             # [services.orders]\n\
             # rpo = \"1h\"\n\
             # rationale = \"agreed with sales\"\n\
             # schedule = { cron = \"0 * * * *\", zone = \"UTC\" }\n\
             #\n\
             # [services.orders.sources.database]\n\
             # kind = \"postgres\"\n\
             # database = \"orders\"\n",
        );
    }
    out
}

fn push(out: &mut String, arguments: fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a String cannot fail");
}

fn stem(path: &str) -> &str {
    let file = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    for suffix in [".sqlite3", ".sqlite", ".db"] {
        if let Some(stem) = file.strip_suffix(suffix) {
            return stem;
        }
    }
    file
}

#[derive(Default)]
struct Names {
    taken: Vec<String>,
}

impl Names {
    /// A service name made of what was found; numbered where it is taken.
    fn unique(&mut self, text: &str) -> String {
        let mut base: String =
            text.to_lowercase()
                .chars()
                .map(|character| {
                    if character.is_ascii_lowercase() || character.is_ascii_digit() { character } else { '-' }
                })
                .take(50)
                .collect();
        base = base.trim_matches('-').to_owned();
        if base.is_empty() {
            "service".clone_into(&mut base);
        }
        let mut name = base.clone();
        let mut number = 2;
        while self.taken.contains(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        self.taken.push(name.clone());
        name
    }
}
