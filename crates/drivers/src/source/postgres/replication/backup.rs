//! A base backup as a server sends it, of PostgreSQL 13 to 18.
//!
//! Until 14 each tablespace and the manifest are a stream of their own; from 15 on one stream holds them all, and says where each
//! begins. Both are told as the same events.

use std::fmt::Write as _;

use bytes::{Buf as _, Bytes};
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::wal::{Lsn, Timeline};

use super::wire::Fields;
use super::{Replication, broken, position, unexpected};

/// How a base backup is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// What the server calls it in its own files and views.
    pub label: String,
    /// Whether the server's checkpoint is made at once; otherwise it takes its time, to spare the disks.
    pub fast: bool,
    /// Most KiB a second; 32 to 1,048,576.
    pub max_rate: Option<u32>,
    /// Whether the server waits at the end until the log of the backup is archived: only where it archives itself.
    pub wait: bool,
}

/// A tablespace besides those inside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object identifier.
    pub oid: u32,
    /// Where it lies on the server.
    pub location: String,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The archive of a tablespace begins, or with `None` that of the data directory.
    Archive(Option<u32>),
    /// Bytes of the archive, or of the manifest, that has begun.
    Data(Bytes),
    /// The backup's manifest begins.
    Manifest,
    /// All is there.
    Ended(Ended),
}

/// Where a backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The position up to which the log is needed to make it consistent.
    pub until: Lsn,
    /// On this timeline.
    pub timeline: Timeline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for a stream, or for the end; so many streams have come.
    Between(usize),
    /// In one stream of PostgreSQL 15 or newer.
    InAll,
    /// In a stream of its own of PostgreSQL 13 or 14; so many have come.
    InOne(usize),
    Over,
}

/// A base backup that is being sent. Dropped before its end, the connection is of no use any more.
#[derive(Debug)]
pub struct BaseBackup<'a> {
    connection: &'a mut Replication,
    /// Where the log begins that is needed.
    pub from: Lsn,
    /// On this timeline.
    pub timeline: Timeline,
    /// Tablespaces, in the order in which they come.
    pub tablespaces: Vec<Tablespace>,
    /// The same, with the data directory.
    order: Vec<Option<u32>>,
    stage: Stage,
}

const CONTEXT: &str = "take a base backup";

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The command, as a server of that major reads it. Its own verification of page checksums is left out: what passes is verified here,
/// and told page by page.
fn command(options: &BackupOptions, major: u32) -> String {
    let mut command = String::from("BASE_BACKUP ");
    let label = quoted(&options.label);
    let checkpoint = if options.fast { "fast" } else { "spread" };
    if major >= 15 {
        command.push_str(&format!(
            "(LABEL {label}, CHECKPOINT '{checkpoint}', WAIT {}, TABLESPACE_MAP true, VERIFY_CHECKSUMS false, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'CRC32C'",
            options.wait
        ));
        if let Some(rate) = options.max_rate {
            write!(command, ", MAX_RATE {rate}").expect("writing to a String cannot fail");
        }
        command.push(')');
    } else {
        command.push_str(&format!("LABEL {label}"));
        for (word, is_said) in [(" FAST", options.fast), (" NOWAIT", !options.wait)] {
            if is_said {
                command.push_str(word);
            }
        }
        if let Some(rate) = options.max_rate {
            write!(command, " MAX_RATE {rate}").expect("writing to a String cannot fail");
        }
        command.push_str(" TABLESPACE_MAP NOVERIFY_CHECKSUMS MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'");
    }
    command
}

impl Replication {
    /// Begins a base backup; the server makes a checkpoint first.
    pub async fn base_backup(
        &mut self,
        cx: &Cx,
        options: &BackupOptions,
    ) -> Result<BaseBackup<'_>, DriverError> {
        let wrong = |what: &str| DriverError::new(ErrorKind::Corrupt, format!("{CONTEXT}: {what}"));
        let major = self.major().ok_or_else(|| wrong("the server does not say its version"))?;
        if !(13..=18).contains(&major) {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("{CONTEXT} of PostgreSQL {major}: 13 to 18 are known"),
            ));
        }
        let command = command(options, major);
        let (begins, lists) = cx
            .run(async {
                self.command(CONTEXT, &command).await?;
                Ok::<_, DriverError>((self.rows(CONTEXT).await?, self.rows(CONTEXT).await?))
            })
            .await??;
        let (from, timeline) =
            position(&begins).ok_or_else(|| wrong("the server does not say where it begins"))?;
        let mut tablespaces = Vec::new();
        let mut order = Vec::new();
        for row in lists {
            let value = |column: usize| row.get(column).cloned().flatten();
            match value(0) {
                None => order.push(None),
                Some(oid) => {
                    let oid = oid.parse().map_err(|_| wrong("a tablespace has no number"))?;
                    let location = value(1).ok_or_else(|| wrong("a tablespace has no place"))?;
                    order.push(Some(oid));
                    tablespaces.push(Tablespace { oid, location });
                }
            }
        }
        Ok(BaseBackup { connection: self, from, timeline, tablespaces, order, stage: Stage::Between(0) })
    }
}

impl BaseBackup<'_> {
    /// What comes next; nothing after its end. Stopped while it waits, it may be asked again.
    pub async fn next(&mut self, cx: &Cx) -> Result<Option<Event>, DriverError> {
        if self.stage == Stage::Over {
            return Ok(None);
        }
        cx.run(self.event()).await?.map(Some)
    }

    async fn event(&mut self) -> Result<Event, DriverError> {
        loop {
            let kind = self.connection.next(CONTEXT).await?;
            match (self.stage, kind) {
                (Stage::Between(0), b'H') if self.connection.major().is_some_and(|major| major >= 15) => {
                    self.stage = Stage::InAll;
                }
                (Stage::Between(count), b'H') => {
                    self.stage = Stage::InOne(count + 1);
                    return match self.order.get(count) {
                        Some(of) => Ok(Event::Archive(*of)),
                        None if count == self.order.len() => Ok(Event::Manifest),
                        None => Err(unexpected(CONTEXT, kind)),
                    };
                }
                (Stage::InOne(_), b'd') => return Ok(Event::Data(std::mem::take(&mut self.connection.body))),
                (Stage::InOne(count), b'c') => self.stage = Stage::Between(count),
                (Stage::InAll, b'd') => {
                    if let Some(event) = self.part()? {
                        return Ok(event);
                    }
                }
                (Stage::InAll, b'c') => self.stage = Stage::Between(self.order.len() + 1),
                (Stage::Between(count), b'T') if count == self.order.len() + 1 => {
                    let rows = self.connection.rows(CONTEXT).await?;
                    self.connection.settle(CONTEXT).await?;
                    let (until, timeline) = position(&rows).ok_or_else(|| {
                        DriverError::new(
                            ErrorKind::Corrupt,
                            format!("{CONTEXT}: the server does not say where it ended"),
                        )
                    })?;
                    self.stage = Stage::Over;
                    return Ok(Event::Ended(Ended { until, timeline }));
                }
                (_, kind) => return Err(unexpected(CONTEXT, kind)),
            }
        }
    }

    /// A part of the one stream of PostgreSQL 15 and newer; nothing where it says nothing.
    fn part(&mut self) -> Result<Option<Event>, DriverError> {
        let mut body = std::mem::take(&mut self.connection.body);
        let malformed = |error| broken(CONTEXT, error);
        match body.first() {
            Some(b'd') => {
                body.advance(1);
                Ok(Some(Event::Data(body)))
            }
            Some(b'm') => Ok(Some(Event::Manifest)),
            // How far it is.
            Some(b'p') => Ok(None),
            Some(b'n') => {
                let mut fields = Fields::of(b'd', &body[1..]);
                let name = fields.text().map_err(malformed)?;
                let stem = name.strip_suffix(b".tar").unwrap_or(name);
                let of = match std::str::from_utf8(stem) {
                    Ok("base") => None,
                    Ok(oid) => Some(oid.parse().map_err(|_| self.stranger(name))?),
                    Err(_) => return Err(self.stranger(name)),
                };
                if self.order.contains(&of) { Ok(Some(Event::Archive(of))) } else { Err(self.stranger(name)) }
            }
            other => Err(unexpected(CONTEXT, other.copied().unwrap_or(0))),
        }
    }

    fn stranger(&self, name: &[u8]) -> DriverError {
        DriverError::new(
            ErrorKind::Corrupt,
            format!(
                "{CONTEXT}: the server sends an archive `{}` that it has not announced",
                name.escape_ascii()
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_spelt_as_each_major_reads_it() {
        let options =
            BackupOptions { label: "it's".to_owned(), fast: true, max_rate: Some(1_024), wait: false };
        assert_eq!(
            command(&options, 15),
            "BASE_BACKUP (LABEL 'it''s', CHECKPOINT 'fast', WAIT false, TABLESPACE_MAP true, VERIFY_CHECKSUMS false, \
             MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', MAX_RATE 1024)"
        );
        assert_eq!(
            command(&options, 14),
            "BASE_BACKUP LABEL 'it''s' FAST NOWAIT MAX_RATE 1024 TABLESPACE_MAP NOVERIFY_CHECKSUMS MANIFEST 'yes' \
             MANIFEST_CHECKSUMS 'CRC32C'"
        );
        let slow = BackupOptions { fast: false, max_rate: None, wait: true, ..options };
        assert!(command(&slow, 17).contains("CHECKPOINT 'spread', WAIT true,"));
        assert!(command(&slow, 13).starts_with("BASE_BACKUP LABEL 'it''s' TABLESPACE_MAP"));
    }
}
