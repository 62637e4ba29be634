//! Plays a script that `pg_dump` wrote to a scratch engine, statement by statement, and counts everything that goes wrong.
//!
//! `psql` goes on after an error and ends with status 0. Here, too, what follows an error is carried out, so that the
//! first and the last are both known; but every error counts, except those that a sound dump is known to meet in an empty
//! engine. Roles that a dump names and does not hold are made as they come up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress};
use seaworthy_model::adopt::said::{self, Said};
use seaworthy_model::adopt::script::{Ending, Part, ScriptError, Splitter};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::witness::postgres::printable;
use tokio::sync::mpsc;

use super::super::names::{identifier, split_qualified};
use super::super::session::Address;
use super::wire::{Answer, Refused, Wire};
use crate::source::blocking::blocking;

/// Bytes of the script read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to be played: bounds memory.
const PIECES_WAITING: usize = 4;
/// Errors after which no further one would say more.
const ERRORS_MAX: u64 = 1_000;
/// Roles that one statement may name.
const ROLES_OF_STATEMENT_MAX: usize = 64;
/// Roles of a whole dump: far above what a cluster has.
const ROLES_MAX: usize = 10_000;

/// A name in parts: `schema`, `table`.
pub(super) type Name = Vec<String>;

/// What a script did.
#[derive(Debug, Default)]
pub(super) struct Played {
    /// The databases that it went to, in order; the first is where it began.
    pub(super) databases: Vec<String>,
    /// Statements.
    pub(super) statements: u64,
    /// Statements that a sound dump, too, fails with here.
    pub(super) harmless: u64,
    /// Statements that failed.
    pub(super) errors: u64,
    /// The first of them that blames the copy.
    pub(super) first: Option<(FindingCode, String)>,
    /// The first that blames the machine.
    pub(super) environment: Option<(FindingCode, &'static str, String)>,
    /// Roles that were made because it names them.
    pub(super) roles: BTreeSet<String>,
    /// Rows that were copied into each table of each database.
    pub(super) copied: BTreeMap<(String, Name), u64>,
    /// Sequences that were set.
    pub(super) set: BTreeSet<(String, Name)>,
    /// Whether rows came as INSERTs.
    pub(super) has_inserts: bool,
    /// How it ended.
    pub(super) ending: Option<Ending>,
}

impl Played {
    /// Why this is no restore; `Ok` where nothing was wrong.
    ///
    /// Damage comes first, then what the machine lacks, because errors may be its consequence, then any other error.
    pub(super) fn result(&self) -> Result<(), DriverError> {
        if let Some(Ending::Cut(how)) = &self.ending {
            return Err(DriverError::new(ErrorKind::Corrupt, format!("play the dump to its end: {how}"))
                .code(FindingCode::StreamUnfinished));
        }
        if let Some((code, hint, words)) = &self.environment {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("restore here: {words} ({} of {} statements failed)", self.errors, self.statements),
            )
            .code(*code)
            .hint(*hint));
        }
        if let Some((code, words)) = &self.first {
            return Err(DriverError::new(
                ErrorKind::Corrupt,
                format!("{} of {} statements failed, the first: {words}", self.errors, self.statements),
            )
            .code(*code));
        }
        if self.ending.is_none() {
            return Err(DriverError::new(ErrorKind::Corrupt, "play the dump to its end")
                .code(FindingCode::StreamUnfinished));
        }
        Ok(())
    }
}

/// The parts of a piece of the script, and the line up to which it reaches.
type Piece = (Vec<Part>, u64);

/// Reads and splits on a thread of its own.
fn split(
    path: &Path,
    check: &dyn Fn() -> Result<(), DriverError>,
    pieces: &mpsc::Sender<Piece>,
    told: &dyn Fn(u64),
) -> Result<Result<Ending, ScriptError>, DriverError> {
    let failed = |error| DriverError::io(format!("read `{}`", path.display()), error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut splitter, mut buffer, mut bytes) = (Splitter::new(), vec![0; PIECE_BYTES], 0_u64);
    loop {
        check()?;
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(Ok(splitter.finish()));
        }
        let mut parts = Vec::new();
        let fed = splitter.feed(&buffer[..count], &mut |part| parts.push(part));
        bytes += count as u64;
        told(bytes);
        // Where nobody plays any more, whoever stopped knows why.
        if !parts.is_empty() && pieces.blocking_send((parts, splitter.line())).is_err() {
            return Ok(Ok(Ending::Cut("it was not played to its end".to_owned())));
        }
        if let Err(error) = fed {
            return Ok(Err(error));
        }
    }
}

/// Plays the script at `path`, beginning in the address's database.
pub(super) async fn play(cx: &Cx, path: &Path, address: &Address) -> Result<Played, DriverError> {
    let (sender, mut pieces) = mpsc::channel::<Piece>(PIECES_WAITING);
    let (from, total) = (path.to_owned(), path.metadata().map_or(0, |facts| facts.len()));
    let reading = blocking(cx, move |watch| {
        let told = |done| watch.progress(Progress::Bytes { done, total: Some(total) });
        split(&from, &|| Ok(watch.check()?), &sender, &told)
    });
    let playing = async {
        let mut player = Player {
            wire: Wire::open(cx, address).await?,
            address: address.clone(),
            played: Played { databases: vec![address.database.clone()], ..Played::default() },
            copying: None,
        };
        while let Some((parts, line)) = pieces.recv().await {
            for part in parts {
                player.part(cx, part, line).await?;
            }
            if player.played.errors > ERRORS_MAX {
                break;
            }
        }
        drop(pieces);
        Ok::<_, DriverError>(player.played)
    };
    let (read, played) = tokio::join!(reading, playing);
    // What a player could not carry out outranks what the reader, which it left alone, made of that.
    let mut played = played?;
    match read? {
        Ok(ending) => played.ending = Some(ending),
        Err(error @ ScriptError::Command { .. }) => {
            return Err(DriverError::new(ErrorKind::Refused, format!("play the dump: {error}"))
                .code(FindingCode::ForeignCommand));
        }
        Err(error @ (ScriptError::TooLong(_) | ScriptError::Encoding { .. })) => {
            return Err(DriverError::new(ErrorKind::Unsupported, format!("play the dump: {error}"))
                .code(FindingCode::EnvOther));
        }
    }
    Ok(played)
}

/// A COPY whose rows are being sent.
struct Copying {
    statement: String,
    table: Option<Name>,
    is_accepted: bool,
    refused: Option<Refused>,
}

struct Player {
    wire: Wire,
    address: Address,
    played: Played,
    copying: Option<Copying>,
}

impl Player {
    async fn part(&mut self, cx: &Cx, part: Part, line: u64) -> Result<(), DriverError> {
        match part {
            Part::Statement(statement) => {
                self.played.statements += 1;
                let begin = begin_of(&statement);
                if begin.get(..12).is_some_and(|begin| begin.eq_ignore_ascii_case("insert into ")) {
                    self.played.has_inserts = true;
                }
                let answer = self.run(cx, &statement).await?;
                if answer.wants_rows {
                    // It was not seen to be a COPY from the script, so no rows follow.
                    self.wire.end_rows(cx).await?;
                }
                match answer.refused {
                    Some(refused) => self.failed(&refused, &begin, line),
                    None => {
                        if let Some(sequence) = sequence_of(&begin) {
                            self.played.set.insert((self.address.database.clone(), sequence));
                        }
                    }
                }
            }
            Part::CopyBegin(statement) => {
                self.played.statements += 1;
                let begin = begin_of(&statement);
                let answer = self.run(cx, &statement).await?;
                self.copying = Some(Copying {
                    table: table_of(&begin),
                    statement: begin,
                    is_accepted: answer.wants_rows,
                    refused: answer.refused,
                });
            }
            Part::Rows(rows) => {
                if self.copying.as_ref().is_some_and(|copying| copying.is_accepted) {
                    self.wire.rows(cx, &rows).await?;
                }
            }
            Part::CopyEnd(rows) => self.end_copy(cx, rows, line).await?,
            Part::Connect(name) => {
                let address = Address { database: name.clone(), ..self.address.clone() };
                self.wire = Wire::open(cx, &address).await.map_err(|error| {
                    let context = format!("go to the database {} that the dump names", printable(&name));
                    DriverError::new(ErrorKind::Corrupt, context)
                        .because(error)
                        .code(FindingCode::RelationMissing)
                })?;
                self.address = address;
                if !self.played.databases.contains(&name) {
                    self.played.databases.push(name);
                }
            }
        }
        Ok(())
    }

    async fn end_copy(&mut self, cx: &Cx, rows: u64, line: u64) -> Result<(), DriverError> {
        let Some(copying) = self.copying.take() else { return Ok(()) };
        let refused = if copying.is_accepted {
            let answer = self.wire.end_rows(cx).await?;
            if answer.refused.is_none() && answer.rows() != rows {
                self.blame(
                    FindingCode::RowCount,
                    format!("line {line}: {rows} rows were sent to a table, {} arrived", answer.rows()),
                );
            }
            answer.refused
        } else {
            copying.refused
        };
        match refused {
            Some(refused) => self.failed(&refused, &copying.statement, line),
            None => {
                if let Some(table) = copying.table {
                    *self.played.copied.entry((self.address.database.clone(), table)).or_default() += rows;
                }
            }
        }
        Ok(())
    }

    /// Runs a statement, and again after each role that it names and that is not there was made.
    async fn run(&mut self, cx: &Cx, statement: &[u8]) -> Result<Answer, DriverError> {
        let mut answer = self.wire.run(cx, statement).await?;
        for _ in 0..ROLES_OF_STATEMENT_MAX {
            let Some(refused) = &answer.refused else { break };
            let Said::Role(role) = said::judge(Some(&refused.state), &refused.message, &begin_of(statement))
            else {
                break;
            };
            if self.played.roles.len() >= ROLES_MAX || !self.played.roles.insert(role.clone()) {
                break;
            }
            let made = self.wire.run(cx, format!("CREATE ROLE {}", identifier(&role)).as_bytes()).await?;
            if made.refused.is_some() {
                break;
            }
            answer = self.wire.run(cx, statement).await?;
        }
        Ok(answer)
    }

    fn blame(&mut self, code: FindingCode, words: String) {
        self.played.errors += 1;
        self.played.first.get_or_insert((code, words));
    }

    fn failed(&mut self, refused: &Refused, statement: &str, line: u64) {
        let words = || format!("up to line {line}: {}", printable(&refused.shown()));
        match said::judge(Some(&refused.state), &refused.message, statement) {
            Said::Harmless(_) => self.played.harmless += 1,
            Said::Environment(code, hint) => {
                self.played.errors += 1;
                self.played.environment.get_or_insert((code, hint, words()));
            }
            Said::Damaged(code) => self.blame(code, words()),
            Said::Role(_) | Said::Wrong => self.blame(FindingCode::RelationMissing, words()),
        }
    }
}

/// The first bytes of a statement as text: enough to see what it is about.
fn begin_of(statement: &[u8]) -> String {
    String::from_utf8_lossy(&statement[..statement.len().min(2048)]).trim_start().to_owned()
}

/// The table of a `COPY name (…) FROM stdin`.
fn table_of(statement: &str) -> Option<Name> {
    split_qualified(qualified_at(statement.get(4..)?.trim_start()))
}

/// The text of the qualified name that `text` begins with.
fn qualified_at(text: &str) -> &str {
    let mut is_quoted = false;
    let end = text.char_indices().find(|(_, character)| {
        if *character == '"' {
            is_quoted = !is_quoted;
        }
        !is_quoted && (character.is_whitespace() || *character == '(')
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// The sequence of a `SELECT pg_catalog.setval('name', …)`.
fn sequence_of(statement: &str) -> Option<Name> {
    let rest = statement.strip_prefix("SELECT pg_catalog.setval('").or_else(|| {
        // Without the schema, as very old dumps have it.
        statement.strip_prefix("SELECT setval('")
    })?;
    let (name, _) = rest.split_once("', ")?;
    split_qualified(&name.replace("''", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_sequences_are_read_from_their_statements() {
        let name = |parts: &[&str]| Some(parts.iter().map(|part| (*part).to_owned()).collect::<Name>());
        assert_eq!(table_of("COPY public.orders (id, at) FROM stdin"), name(&["public", "orders"]));
        assert_eq!(table_of("COPY public.\"Or.d (x\" FROM stdin"), name(&["public", "Or.d (x"]));
        assert_eq!(
            sequence_of("SELECT pg_catalog.setval('public.\"a''b_seq\"', 10, true)"),
            name(&["public", "a'b_seq"])
        );
        assert_eq!(sequence_of("SELECT 1"), None);
    }
}
