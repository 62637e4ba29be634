//! The log as a server writes it, as a standby receives it.
//!
//! A server keeps what a slot has not been told of as durable, and nothing else: so only what is durable is ever acknowledged
//! ([`Stream::acknowledge`]), and what was not is sent again after a reconnection.

use bytes::{Buf as _, Bytes};
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::wal::{Lsn, Timeline};

use super::wire::{Fields, message};
use super::{Replication, broken, position, unexpected};

/// Seconds between 1970 and 2000, from where the protocol counts its microseconds.
const EPOCH_S: i64 = 946_684_800;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A piece of the log, right behind the one before it.
    Piece {
        /// Where it begins.
        at: Lsn,
        /// Its bytes.
        bytes: Bytes,
        /// How far the server's own log goes by now.
        end: Lsn,
        /// When the server sent it, in microseconds since 1970 by its clock.
        sent_us: i64,
    },
    /// The server is there, and has nothing new.
    Alive {
        /// How far it has sent its log.
        end: Lsn,
        /// Whether it wants to hear from us at once, before it gives us up.
        asks: bool,
    },
    /// The timeline was left for another one at this position; the stream has ended.
    Left {
        /// The next timeline.
        timeline: Timeline,
        /// Where it begins.
        at: Lsn,
    },
}

/// The log, from a position on. Dropped before its end, the connection is of no use any more.
#[derive(Debug)]
pub struct Stream<'a> {
    connection: &'a mut Replication,
    /// The position that is expected next.
    at: Lsn,
    is_over: bool,
}

const CONTEXT: &str = "receive the log";

fn is_slot(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&name.len()) && name.bytes().all(is_letter)
}

fn slot(name: &str) -> Result<&str, DriverError> {
    if is_slot(name) {
        return Ok(name);
    }
    Err(DriverError::new(ErrorKind::Refused, "name a replication slot")
        .hint("a slot's name has 1 to 63 lower-case letters, digits and underscores"))
}

impl Replication {
    /// Makes a slot that keeps the log from now on, until what was received is acknowledged. A conflict where it exists.
    pub async fn create_slot(&mut self, cx: &Cx, name: &str) -> Result<(), DriverError> {
        let command = format!("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", slot(name)?);
        self.ask(cx, &command).await.map(drop)
    }

    /// Makes a slot that keeps the log from now on, and that ends with this connection.
    pub async fn create_temporary_slot(&mut self, cx: &Cx, name: &str) -> Result<(), DriverError> {
        let command = format!("CREATE_REPLICATION_SLOT {} TEMPORARY PHYSICAL RESERVE_WAL", slot(name)?);
        self.ask(cx, &command).await.map(drop).map_err(|error| {
            if error.hint.is_some() {
                return error;
            }
            error.hint("it needs a free place among `max_replication_slots` while it runs")
        })
    }

    /// Removes a slot: the server keeps nothing for it any more.
    pub async fn drop_slot(&mut self, cx: &Cx, name: &str) -> Result<(), DriverError> {
        self.ask(cx, &format!("DROP_REPLICATION_SLOT {}", slot(name)?)).await.map(drop)
    }

    /// Begins to receive the log of a timeline from a position on.
    pub async fn stream(
        &mut self,
        cx: &Cx,
        through: Option<&str>,
        timeline: Timeline,
        from: Lsn,
    ) -> Result<Stream<'_>, DriverError> {
        let through = through.map(slot).transpose()?.map_or_else(String::new, |name| format!("SLOT {name} "));
        let command = format!("START_REPLICATION {through}PHYSICAL {from} TIMELINE {timeline}");
        let kind = cx
            .run(async {
                self.command(CONTEXT, &command).await?;
                self.next(CONTEXT).await
            })
            .await??;
        match kind {
            b'W' => Ok(Stream { connection: self, at: from, is_over: false }),
            // The timeline ends where we wanted to begin: there is nothing of it, and the next one is told with the answer.
            kind => Err(unexpected(CONTEXT, kind)),
        }
    }
}

impl Stream<'_> {
    /// What comes next; nothing after the end of the timeline. Waits for as long as nothing comes; stopped meanwhile, it may be asked
    /// again.
    pub async fn next(&mut self, cx: &Cx) -> Result<Option<Received>, DriverError> {
        if self.is_over {
            return Ok(None);
        }
        cx.run(self.received()).await?.map(Some)
    }

    async fn received(&mut self) -> Result<Received, DriverError> {
        let kind = self.connection.next(CONTEXT).await?;
        match kind {
            b'd' => self.piece(),
            b'c' => self.left().await,
            kind => Err(unexpected(CONTEXT, kind)),
        }
    }

    fn piece(&mut self) -> Result<Received, DriverError> {
        let malformed = |error| broken(CONTEXT, error);
        let mut body = std::mem::take(&mut self.connection.body);
        let mut fields = Fields::of(b'd', &body);
        match fields.u8().map_err(malformed)? {
            b'w' => {
                let (at, end) =
                    (Lsn(fields.u64().map_err(malformed)?), Lsn(fields.u64().map_err(malformed)?));
                let sent = fields.u64().map_err(malformed)?.cast_signed();
                if at != self.at {
                    return Err(DriverError::new(
                        ErrorKind::Corrupt,
                        format!("{CONTEXT}: the server goes on at {at}, and {} is expected", self.at),
                    )
                    .code(FindingCode::ObjectMissing));
                }
                // Behind its kind, three numbers of eight bytes.
                body.advance(25);
                self.at = Lsn(at.0.saturating_add(body.len() as u64));
                let sent_us = sent.saturating_add(EPOCH_S * 1_000_000);
                Ok(Received::Piece { at, bytes: body, end, sent_us })
            }
            b'k' => {
                let end = Lsn(fields.u64().map_err(malformed)?);
                fields.u64().map_err(malformed)?;
                Ok(Received::Alive { end, asks: fields.u8().map_err(malformed)? != 0 })
            }
            other => Err(unexpected(CONTEXT, other)),
        }
    }

    /// The server has sent all of the timeline.
    async fn left(&mut self) -> Result<Received, DriverError> {
        self.connection.send(CONTEXT, b'c', &[]).await?;
        let rows = loop {
            match self.connection.next(CONTEXT).await? {
                b'T' => break self.connection.rows(CONTEXT).await?,
                b'C' => {}
                kind => return Err(unexpected(CONTEXT, kind)),
            }
        };
        self.connection.settle(CONTEXT).await?;
        self.is_over = true;
        // Here the timeline comes first.
        let swapped: Vec<Vec<Option<String>>> =
            rows.into_iter().map(|row| row.into_iter().rev().collect()).collect();
        let (at, timeline) = position(&swapped).ok_or_else(|| {
            DriverError::new(
                ErrorKind::Corrupt,
                format!("{CONTEXT}: the server does not say which timeline is next"),
            )
        })?;
        Ok(Received::Left { timeline, at })
    }

    /// Tells the server that everything before `durable` is safe: it may let go of it. Nothing else may be said here. It answers at once where it
    /// is asked to.
    pub async fn acknowledge(
        &mut self,
        cx: &Cx,
        durable: Lsn,
        now_us: i64,
        asks: bool,
    ) -> Result<(), DriverError> {
        let mut body = vec![b'r'];
        // Written and flushed; nothing is ever applied here.
        for number in [durable.0, durable.0, 0] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(&now_us.saturating_sub(EPOCH_S * 1_000_000).to_be_bytes());
        body.push(u8::from(asks));
        let sent = message(b'd', &body);
        cx.run(self.connection.send_raw(CONTEXT, &sent)).await?
    }

    /// The position behind everything that was received.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slots_are_names_and_never_a_command() {
        for name in ["a", "seaworthy_1", &"x".repeat(63)] {
            assert_eq!(slot(name).unwrap(), name);
        }
        for name in ["", "A", "a b", "a;b", "a\"b", "é", &"x".repeat(64)] {
            assert!(slot(name).is_err(), "{name}");
        }
    }
}
