//! The recovery kit: what a person needs on the day on which there is nothing else but paper, on paper.
//!
//! One list of blocks, printed three ways: as plain text, as Markdown, and as one self-contained page with codes that a
//! telephone reads. The plain text is enough to work from; the codes only save typing. The same facts yield the same bytes.

mod page;
mod plain;

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_model::custody::{Custody, KeySpec};
use seaworthy_model::id::{CopyId, KeyFileId};
use seaworthy_model::objective::Objective;
use seaworthy_model::receipt::Head;
use seaworthy_model::signature::PublicKey;
use seaworthy_model::verdict::Assurance;
use seaworthy_model::witness::Witness;

use crate::output::{bytes, count, duration};
use crate::render::drill::instant;

pub(crate) use page::page;
pub(crate) use plain::{markdown, text};

/// The oldest restic that reads what is stored: repositories of version 2.
pub(crate) const RESTIC_MIN: &str = "0.14.0";

/// Most tables whose rows are listed one by one: the largest.
const TABLES_MAX: usize = 8;

/// Everything that a kit is made of.
#[derive(Debug)]
pub(crate) struct Kit {
    /// The repository's name in the configuration.
    pub(crate) repository: String,
    /// Its own id, which `restic cat config` prints.
    pub(crate) id: String,
    /// How restic is told where it lies.
    pub(crate) location: String,
    /// Whether it lies on a file system, which has to be there first.
    pub(crate) is_directory: bool,
    /// Site, medium, region, account: where to look for it.
    pub(crate) whereabouts: Vec<(String, String)>,
    /// What restic must be given to reach it, and what for.
    pub(crate) access: Vec<(String, String)>,
    /// The keys that open it, by the register.
    pub(crate) keys: Vec<KeySpec>,
    /// The password, where it is to be printed.
    pub(crate) password: Option<Password>,
    /// The restic that was found here.
    pub(crate) restic: Option<Restic>,
    /// What is stored, what must be back first before what needs it.
    pub(crate) services: Vec<ServicePart>,
    /// The key that verifies receipts.
    pub(crate) public_key: Option<PublicKey>,
    /// The end of the ledger when the kit was made.
    pub(crate) head: Option<Head>,
    /// When the kit was made.
    pub(crate) made: Timestamp,
    /// By whom.
    pub(crate) by: String,
}

/// A password that is printed. `Debug` does not show it.
pub(crate) struct Password {
    /// The password.
    pub(crate) text: zeroize::Zeroizing<String>,
    /// The key that it opens.
    pub(crate) key: KeyFileId,
    /// What the register says of that key.
    pub(crate) entry: Option<KeySpec>,
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A restic that was found.
#[derive(Debug)]
pub(crate) struct Restic {
    /// As it says itself.
    pub(crate) version: String,
    /// SHA-256 of its file.
    pub(crate) sha256: String,
}

/// One service.
#[derive(Debug)]
pub(crate) struct ServicePart {
    /// Its name.
    pub(crate) name: String,
    /// Who is asked.
    pub(crate) owner: String,
    /// What must be back before it.
    pub(crate) needs: Vec<String>,
    /// The promise.
    pub(crate) rto: Objective,
    /// What holds its state.
    pub(crate) sources: Vec<SourcePart>,
}

/// One source of a service.
#[derive(Debug)]
pub(crate) struct SourcePart {
    /// Its name.
    pub(crate) name: String,
    /// `postgres`, `sqlite`, `files`.
    pub(crate) kind: String,
    /// The copy to take: the newest of those proven furthest, else the newest.
    pub(crate) copy: Option<CopyPart>,
    /// The newest copy, where it is another one.
    pub(crate) newer: Option<CopyPart>,
    /// The witness of the copy to take.
    pub(crate) witness: Option<Witness>,
}

/// One copy.
#[derive(Debug, Clone)]
pub(crate) struct CopyPart {
    /// Its snapshot.
    pub(crate) copy: CopyId,
    /// The instant that it brings the source back to.
    pub(crate) point: Timestamp,
    /// Bytes that a restore needs.
    pub(crate) bytes: u64,
    /// How far it is proven, and by which receipt.
    pub(crate) proof: Option<(Assurance, u64)>,
    /// How long the drill that proved it took.
    pub(crate) rto_ms: Option<u64>,
}

/// A piece of a kit.
#[derive(Debug)]
enum Block {
    /// A heading, of level 1 to 3.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// What must not be overlooked.
    Warning(String),
    /// Names and values.
    Facts(Vec<(String, String)>),
    /// What is typed, line by line.
    Commands(Vec<String>),
    /// A value that is typed or compared, with its name: a code on a page.
    Code(String, String),
    /// A line to write on by hand.
    Blank(String),
}

fn text_of(words: impl Into<String>) -> Block {
    Block::Text(words.into())
}

/// A word of a shell, as it has to be typed.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-:=@+,%".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn fact(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

fn blocks(kit: &Kit) -> Vec<Block> {
    let mut out = vec![
        Block::Heading(1, format!("Recovery kit of repository {}", kit.repository)),
        text_of(format!(
            "Made {} by {}. With this page, the repository and its password, everything below is brought back on an empty machine by \
             stock restic and the tools of each engine. Seaworthy is not needed.",
            instant(kit.made),
            kit.by
        )),
    ];
    out.push(match &kit.password {
        Some(_) => Block::Warning(
            "THIS PAGE HOLDS A PASSWORD. Whoever has it and reaches the repository reads everything in it. Print it, lock it away, \
             and delete the file."
                .to_owned(),
        ),
        None => Block::Warning("This page holds no password and no credential. Keep those apart from it.".to_owned()),
    });
    needs(kit, &mut out);
    first_look(kit, &mut out);
    out.push(Block::Heading(2, "3. Bring it back, in this order".to_owned()));
    out.push(text_of(
        "Restore into new places only, never over something that runs. Compare with what is expected before anybody uses it.",
    ));
    if kit.services.is_empty() {
        out.push(Block::Warning("No service keeps copies in this repository.".to_owned()));
    }
    for (number, service) in kit.services.iter().enumerate() {
        service_part(number + 1, service, &mut out);
    }
    evidence(kit, &mut out);
    out
}

fn needs(kit: &Kit, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "1. What you need".to_owned()));
    out.push(Block::Heading(3, "The repository".to_owned()));
    let mut facts = vec![fact("for restic", &kit.location), fact("id", &kit.id)];
    facts.extend(kit.whereabouts.iter().cloned());
    out.push(Block::Facts(facts));
    out.push(Block::Code("location".to_owned(), kit.location.clone()));
    if kit.is_directory {
        out.push(text_of(
            "It is a directory: bring its disk, or a copy of the whole directory, to the machine, and put its path there in place of the \
             one above.",
        ));
    }
    if !kit.access.is_empty() {
        out.push(text_of("restic reaches it with these, which are not on this page:"));
        out.push(Block::Facts(kit.access.clone()));
    }

    out.push(Block::Heading(3, "Its password".to_owned()));
    if kit.keys.is_empty() {
        out.push(text_of("Who holds one is not written in the register of keys. Write it here:"));
        out.push(Block::Blank("held by, and where".to_owned()));
    } else {
        // First those that are not on the machine that may be lost.
        let (online, apart): (Vec<&KeySpec>, Vec<&KeySpec>) =
            kit.keys.iter().partition(|key| key.custody == Custody::Online);
        let lines = apart.into_iter().chain(online).map(|key| {
            let id = key
                .id
                .as_ref()
                .map_or_else(|| "id not known".to_owned(), |id| format!("key {}", id.as_str()));
            let place = key.place.as_ref().map_or_else(String::new, |place| format!(", {place}"));
            (format!("{} ({})", key.name, key.custody), format!("{}{place}; {id}", key.holder))
        });
        out.push(text_of("Any one of these opens it:"));
        out.push(Block::Facts(lines.collect()));
    }
    match &kit.password {
        Some(password) => {
            let whose = password.entry.as_ref().map_or_else(
                || format!("of key {}", &password.key.0[..16]),
                |entry| format!("{}, held by {}, of key {}", entry.name, entry.holder, &password.key.0[..16]),
            );
            out.push(Block::Code(format!("PASSWORD {whose}"), password.text.to_string()));
        }
        None => out.push(Block::Blank("password, written by hand, or nothing".to_owned())),
    }

    out.push(Block::Heading(3, "restic".to_owned()));
    out.push(text_of(format!(
        "Version {RESTIC_MIN} or newer. From your distribution (apt-get install restic, dnf install restic), or from \
         https://github.com/restic/restic/releases, whose SHA256SUMS is signed by its authors.",
    )));
    if let Some(restic) = &kit.restic {
        out.push(text_of("The one that was installed where this kit was made:"));
        out.push(Block::Facts(vec![fact("version", &restic.version), fact("SHA-256", &restic.sha256)]));
    }
}

fn first_look(kit: &Kit, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "2. Is it the right one?".to_owned()));
    let mut commands = vec![format!("export RESTIC_REPOSITORY={}", quoted(&kit.location))];
    commands.extend(kit.access.iter().map(|(name, _)| format!("export {name}=...")));
    commands.extend([
        "restic cat config        # asks for the password; \"id\" must be the one above".to_owned(),
        "restic snapshots         # what there is".to_owned(),
    ]);
    out.push(Block::Commands(commands));
    out.push(text_of(
        "Add --no-lock where the medium is read-only. If a lock is left of a machine that is gone: restic unlock.",
    ));
}

fn service_part(number: usize, service: &ServicePart, out: &mut Vec<Block>) {
    out.push(Block::Heading(3, format!("3.{number} {}", service.name)));
    let mut facts = vec![fact("ask", &service.owner)];
    if !service.needs.is_empty() {
        facts.push(fact("after", service.needs.join(", ")));
    }
    if let Objective::Within(bound) = service.rto {
        facts.push(fact("promised within", duration(Duration::try_from(bound).unwrap_or_default())));
    }
    out.push(Block::Facts(facts));
    if service.sources.is_empty() {
        out.push(text_of("It holds no state: start it anew."));
    }
    for source in &service.sources {
        source_part(&service.name, source, out);
    }
}

fn proof(copy: &CopyPart) -> String {
    match copy.proof {
        Some((level, receipt)) => format!("proven {level}, receipt {receipt}"),
        None => "NOT PROVEN: nobody has restored it yet".to_owned(),
    }
}

fn source_part(service: &str, source: &SourcePart, out: &mut Vec<Block>) {
    let name = format!("{service}/{}", source.name);
    let Some(copy) = &source.copy else {
        out.push(Block::Warning(format!("There is NO COPY of {name} ({}) in this repository.", source.kind)));
        return;
    };
    let mut facts = vec![
        fact("what", format!("{name} ({})", source.kind)),
        fact("snapshot", &copy.copy.0),
        fact("as of", instant(copy.point)),
        fact("size", format!("{} ({} bytes)", bytes(copy.bytes), copy.bytes)),
        fact("proof", proof(copy)),
    ];
    if let Some(ms) = copy.rto_ms {
        facts.push(fact(
            "a drill took",
            format!("{}, on the machine that drilled it", duration(Duration::from_millis(ms))),
        ));
    }
    if let Some(newer) = &source.newer {
        facts.push(fact(
            "newer",
            format!("{} as of {}: {}", newer.copy.0, instant(newer.point), proof(newer)),
        ));
    }
    out.push(Block::Facts(facts));
    let directory = format!("restored/{service}-{}", source.name);
    out.push(Block::Commands(steps(&copy.copy, &directory, source)));
    let expected = source.witness.as_ref().map(expected).unwrap_or_default();
    if !expected.is_empty() {
        out.push(text_of(format!("Expected afterwards, by the witness of {name}:")));
        out.push(Block::Facts(expected));
    }
}

/// What is typed to bring a source back.
fn steps(copy: &CopyId, directory: &str, source: &SourcePart) -> Vec<String> {
    let sparse = match &source.witness {
        Some(Witness::Files(files)) if files.totals.sparse > 0 => "--sparse ",
        _ => "",
    };
    let mut steps = vec![format!("restic restore {} {sparse}--target {directory}", copy.0)];
    match &source.witness {
        Some(Witness::Postgres(postgres)) if postgres.physical.is_some() => {
            let major = postgres.server.major();
            steps.extend([
                format!("less {directory}/README.txt      # where tablespaces go"),
                format!("chown -R postgres {directory}/data && chmod 700 {directory}/data"),
                format!(
                    "pg_ctl -D {directory}/data -w start      # PostgreSQL {major}, as the user postgres"
                ),
            ]);
        }
        Some(Witness::Postgres(postgres)) => {
            let database = quoted(&postgres.database.name);
            steps.extend([
                format!(
                    "less {directory}/globals.sql      # read it first: it makes roles and the empty database"
                ),
                format!("psql -X -d postgres -f {directory}/globals.sql"),
                format!("pg_restore -Fd -j 4 --exit-on-error -d {database} {directory}/database"),
            ]);
            let largest = postgres.tables.iter().max_by_key(|(name, facts)| (facts.rows, Reverse(*name)));
            if let Some((table, _)) = largest {
                let query = quoted(&format!("SELECT count(*) FROM {table}"));
                steps.push(format!("psql -X -d {database} -c {query}"));
            }
        }
        Some(Witness::Sqlite(sqlite)) => {
            let file = format!("{directory}/{}", sqlite.file);
            steps.push(format!("sqlite3 {} 'PRAGMA integrity_check'     # says: ok", quoted(&file)));
            let largest = sqlite.tables.iter().max_by_key(|table| (table.rows, Reverse(&table.name)));
            if let Some(table) = largest {
                let name = table.name.replace('"', "\"\"");
                let query = quoted(&format!("SELECT count(*) FROM \"{name}\""));
                steps.push(format!("sqlite3 {} {query}", quoted(&file)));
            }
        }
        Some(Witness::Files(files)) => {
            for root in &files.roots {
                steps.push(format!("ls -la {}", quoted(&format!("{directory}{root}"))));
            }
        }
        None => steps.push(format!("less {directory}/.seaworthy/RESTORE.txt      # how to go on")),
    }
    steps
}

/// What a faithful restore holds.
fn expected(witness: &Witness) -> Vec<(String, String)> {
    match witness {
        Witness::Postgres(postgres) => {
            let mut tables: Vec<(&String, u64)> =
                postgres.tables.iter().map(|(name, facts)| (name, facts.rows)).collect();
            let rows: u64 = tables.iter().map(|(_, rows)| rows).sum();
            tables.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
            let mut facts = vec![
                match &postgres.physical {
                    Some(physical) => fact(
                        "server",
                        format!(
                            "PostgreSQL {}, system {}, recovered to {}",
                            postgres.server.major(),
                            postgres.server.system_identifier,
                            physical.until
                        ),
                    ),
                    None => fact("server", format!("PostgreSQL {} or newer", postgres.server.major())),
                },
                fact("database", format!("{}, {}", postgres.database.name, postgres.database.encoding)),
                fact("tables", format!("{} with {rows} rows in all", tables.len())),
            ];
            facts.extend(
                tables.iter().take(TABLES_MAX).map(|(name, rows)| ((*name).clone(), format!("{rows} rows"))),
            );
            facts
        }
        Witness::Sqlite(sqlite) => {
            let mut tables: Vec<(&str, u64)> =
                sqlite.tables.iter().filter_map(|table| Some((table.name.as_str(), table.rows?))).collect();
            tables.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
            let mut facts = vec![
                fact("file", format!("{}, {} bytes", sqlite.file, sqlite.image.size)),
                fact("tables", sqlite.tables.len().to_string()),
            ];
            facts.extend(
                tables
                    .iter()
                    .take(TABLES_MAX)
                    .map(|(name, rows)| ((*name).to_owned(), format!("{rows} rows"))),
            );
            facts
        }
        Witness::Files(files) => {
            let totals = &files.totals;
            vec![
                fact("roots", files.roots.join(", ")),
                fact(
                    "entries",
                    format!(
                        "{}: {} files of {} bytes, {} directories, {} links",
                        totals.entries, totals.files, totals.bytes, totals.directories, totals.symlinks
                    ),
                ),
                fact("each of them", ".seaworthy/manifest.tsv in the restored directory"),
            ]
        }
    }
}

fn evidence(kit: &Kit, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "4. The evidence".to_owned()));
    match &kit.public_key {
        Some(key) => {
            out.push(text_of(
                "Every copy has its witness and a signed statement in .seaworthy/, every drill a signed receipt. They verify with this \
                 public key; compare its fingerprint before you believe one:",
            ));
            out.push(Block::Code("fingerprint".to_owned(), key.id().0));
            out.push(Block::Commands(key.to_pem().lines().map(str::to_owned).collect()));
            out.push(Block::Commands(vec![
                "openssl pkey -pubin -in signing.pub -outform DER | sha256sum     # prints the fingerprint"
                    .to_owned(),
            ]));
        }
        None => out.push(text_of("Nothing has been signed yet.")),
    }
    if let Some(head) = &kit.head {
        out.push(Block::Facts(vec![fact(
            "the ledger ended with",
            format!("receipt {} {}: a ledger without it was cut", head.sequence, head.digest),
        )]));
    }
    let sources: usize = kit.services.iter().map(|service| service.sources.len()).sum();
    out.push(Block::Heading(2, "5. When to print it again".to_owned()));
    out.push(text_of(format!(
        "When a key, the location, a credential or the owner of a service changes, and at least twice a year. It names the copies of {}; newer \
         ones are in the repository, and `restic snapshots` lists them. A drill without Seaworthy's own engine (seaworthy drill \
         --independent) is the rehearsal of this page.",
        count(sources, "source")
    )));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_into_a_shell_is_one_word() {
        assert_eq!(quoted("/srv/backup"), "/srv/backup");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $(rm)"), "'it'\\''s $(rm)'");
        assert_eq!(quoted(""), "''");
    }
}
