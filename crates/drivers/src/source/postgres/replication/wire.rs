//! Messages of PostgreSQL's protocol, version 3, as far as replication needs them ("Frontend/Backend Protocol" in its documentation).
//!
//! What is read is never trusted: a length that cannot be, a message cut off, a field without its end are errors, not panics.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest message that is read into memory. A server sends the pieces of a backup in messages of some 32 KiB, of a log in less than
/// 128 KiB; an error or a row of what replication commands answer is small.
const MESSAGE_MAX: usize = 16 << 20;
/// Read at once: several messages of a backup.
const AT_ONCE: usize = 256 << 10;

/// What can be wrong with a stream of messages.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// It broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// A message is longer than any that is sent.
    #[error("a message of kind {0:?} says that it has {1} bytes")]
    Length(char, u32),
    /// A message does not hold what its kind must.
    #[error("a message of kind {0:?} is cut off, or holds something else")]
    Malformed(char),
}

/// What has come and was not taken yet. Whoever stops waiting loses nothing of it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    came: BytesMut,
}

impl Inbox {
    /// Waits for more.
    pub(super) async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), WireError> {
        self.came.reserve(AT_ONCE);
        match stream.read_buf(&mut self.came).await? {
            0 => {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the server has closed the connection")
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// The next message, where all of it has come: its kind and its body.
    pub(super) fn take(&mut self) -> Result<Option<(u8, Bytes)>, WireError> {
        let Some((head, _)) = self.came.split_first_chunk::<5>() else { return Ok(None) };
        let (kind, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
        let size = length as usize;
        if !(4..=MESSAGE_MAX).contains(&size) {
            return Err(WireError::Length(char::from(kind), length));
        }
        if self.came.len() <= size {
            return Ok(None);
        }
        self.came.advance(5);
        Ok(Some((kind, self.came.split_to(size - 4).freeze())))
    }
}

/// A message to be sent: its kind (0 for the first one, which has none) and its body.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    if kind != 0 {
        bytes.push(kind);
    }
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Takes a message's body apart, from its beginning.
pub(super) struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(kind: u8, body: &'a [u8]) -> Self {
        Self { kind, rest: body }
    }

    fn malformed(&self) -> WireError {
        WireError::Malformed(char::from(self.kind))
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireError> {
        let bytes = self.bytes(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        let bytes = self.bytes(8)?;
        let mut number = [0; 8];
        number.copy_from_slice(bytes);
        Ok(u64::from_be_bytes(number))
    }

    /// Bytes up to the next zero, which is passed over.
    pub(super) fn text(&mut self) -> Result<&'a [u8], WireError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.malformed())?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Ok(text)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The values of a row; `None` is NULL.
    pub(super) fn row(mut self) -> Result<Vec<Option<String>>, WireError> {
        let count = self.u16()?;
        let mut values = Vec::new();
        for _ in 0..count {
            let length = self.i32()?;
            values.push(match usize::try_from(length) {
                Ok(length) => Some(String::from_utf8_lossy(self.bytes(length)?).into_owned()),
                Err(_) if length == -1 => None,
                Err(_) => return Err(self.malformed()),
            });
        }
        Ok(values)
    }
}

/// What a server says is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {state})")]
pub(super) struct Said {
    pub(super) severity: String,
    pub(super) message: String,
    pub(super) state: String,
    pub(super) hint: Option<String>,
}

impl Said {
    /// Reads an error's or a notice's fields.
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, WireError> {
        let mut said = Self::default();
        loop {
            let field = fields.u8()?;
            if field == 0 {
                return Ok(said);
            }
            let text = String::from_utf8_lossy(fields.text()?).into_owned();
            match field {
                // The one that no locale translates, where there is one.
                b'V' => said.severity = text,
                b'S' if said.severity.is_empty() => said.severity = text,
                b'M' => said.message = text,
                b'C' => said.state = text,
                b'H' => said.hint = Some(text),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that is read of bytes that come in pieces.
    async fn read_all(pieces: &[&[u8]]) -> Vec<Result<(u8, Vec<u8>), String>> {
        let (mut inbox, mut told) = (Inbox::default(), Vec::new());
        for mut piece in pieces.iter().copied().chain([&[][..]]) {
            if let Err(error) = inbox.more(&mut piece).await {
                told.push(Err(error.to_string()));
                return told;
            }
            loop {
                match inbox.take() {
                    Ok(Some((kind, body))) => told.push(Ok((kind, body.to_vec()))),
                    Ok(None) => break,
                    Err(error) => {
                        told.push(Err(error.to_string()));
                        return told;
                    }
                }
            }
        }
        told
    }

    #[tokio::test]
    async fn messages_are_read_one_after_the_other_however_they_come() {
        let bytes = [message(b'd', b"abc"), message(b'c', b""), message(b'd', b"d")].concat();
        let whole = [
            Ok((b'd', b"abc".to_vec())),
            Ok((b'c', Vec::new())),
            Ok((b'd', b"d".to_vec())),
            Err("the connection broke".to_owned()),
        ];
        assert_eq!(read_all(&[&bytes]).await, whole);
        for at in 1..bytes.len() {
            assert_eq!(read_all(&[&bytes[..at], &bytes[at..]]).await, whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read_all(&single).await, whole);
        let cut = read_all(&[&bytes[..bytes.len() - 1]]).await;
        assert_eq!(cut, [whole[0].clone(), whole[1].clone(), whole[3].clone()]);
        let long = read_all(&[&[b'd', 0x7f, 0xff, 0xff, 0xff]]).await;
        assert_eq!(long, [Err("a message of kind 'd' says that it has 2147483647 bytes".to_owned())]);
        let short = read_all(&[&[b'd', 0, 0, 0, 3]]).await;
        assert_eq!(short, [Err("a message of kind 'd' says that it has 3 bytes".to_owned())]);
        assert_eq!(message(0, &[1]), [0, 0, 0, 5, 1]);
    }

    #[test]
    fn errors_and_rows_are_taken_apart() {
        let error = b"SFEHLER\0VFATAL\0C28P01\0Mno\0Hask\0Fauth.c\0\0";
        let said = Said::read(Fields::of(b'E', error)).unwrap();
        assert_eq!(said.to_string(), "FATAL: no (SQLSTATE 28P01)");
        assert_eq!(said.hint.as_deref(), Some("ask"));
        assert!(Said::read(Fields::of(b'E', &error[..error.len() - 1])).is_err());
        let row = [0, 2, 0, 0, 0, 3, b'0', b'/', b'1', 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Fields::of(b'D', &row).row().unwrap(), [Some("0/1".to_owned()), None]);
        assert!(Fields::of(b'D', &row[..8]).row().is_err());
        assert!(Fields::of(b'D', &[0, 1, 0xff, 0xff, 0xff, 0xfe]).row().is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>) {
            drop(Said::read(Fields::of(b'E', &bytes)));
            drop(Fields::of(b'D', &bytes).row());
            let mut inbox = Inbox { came: BytesMut::from(bytes.as_slice()) };
            while let Ok(Some(_)) = inbox.take() {}
            let mut fields = Fields::of(b'x', &bytes);
            drop(fields.text());
            drop(fields.i32());
        }
    }
}
