//! What a person reads when a verb cannot be carried out: the chain of causes, once, and what to do.

use std::error::Error;
use std::fmt::Write as _;
use std::io::ErrorKind as ErrorKindIo;

use seaworthy_interface::{DriverError, ErrorKind, Stop};
use seaworthy_model::finding::FindingCode;

use crate::exit::Exit;

/// A verb that could not be carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// The chain, outermost first.
    pub(crate) chain: Vec<String>,
    /// What a person can do about it.
    pub(crate) hint: Option<String>,
}

/// Result of a verb.
pub(crate) type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// A failure in plain words.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, chain: vec![printable(&message.into())], hint: None }
    }

    /// A failure to do `what`, because of `error`.
    pub(crate) fn because(exit: Exit, what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut chain = vec![printable(&what.into())];
        push_chain(&mut chain, error);
        Self { exit, chain, hint: io_hint(error).map(str::to_owned) }
    }

    /// With what a person can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As text for a terminal.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from("error: ");
        let mut chain = self.chain.iter();
        text.push_str(chain.next().map_or("unknown", String::as_str));
        for cause in chain {
            write!(text, "\n  because: {cause}").expect("writing to a String cannot fail");
        }
        if let Some(hint) = &self.hint {
            write!(text, "\nhint: {hint}").expect("writing to a String cannot fail");
        }
        text
    }
}

/// What a person can do about the system's refusal that lies at the end of the chain, where there is one.
fn io_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                ErrorKindIo::StorageFull | ErrorKindIo::QuotaExceeded => {
                    Some("free space there, or move it; what was stored before is untouched")
                }
                ErrorKindIo::ReadOnlyFilesystem => {
                    Some("the file system is mounted read-only: mount it writable, or name another place")
                }
                ErrorKindIo::PermissionDenied => Some("run as the user that owns it, or name another place"),
                _ => None,
            };
        }
        cause = error.source();
    }
    None
}

fn push_chain(chain: &mut Vec<String>, error: &(dyn Error + 'static)) {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let text = printable(&error.to_string());
        if chain.last() != Some(&text) {
            chain.push(text);
        }
        cause = error.source();
    }
}

/// Replaces control characters, so that a name or a server's message cannot forge a line or steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character == '\n' { '\u{2424}' } else { character })
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_unicode().to_string());
            escaped.unwrap_or_else(|| character.to_string()).chars().collect::<Vec<_>>()
        })
        .collect()
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        // What the kind alone says, where the driver named no finding.
        let code = error.code.or(match error.kind {
            ErrorKind::Unreachable => Some(FindingCode::Unreachable),
            ErrorKind::Unauthenticated => Some(FindingCode::AuthDenied),
            _ => None,
        });
        let exit = match error.kind {
            _ if code == Some(FindingCode::LiveTarget) => Exit::Refused,
            ErrorKind::Stopped(Stop::Cancelled) => Exit::Interrupted,
            ErrorKind::Stopped(Stop::DeadlineExceeded) => Exit::Unknown,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Busy => Exit::Locked,
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::Unreachable
            | ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::Conflict
            | ErrorKind::Corrupt
            | ErrorKind::Unsupported
            | ErrorKind::Exhausted
            | ErrorKind::Unfollowable
            | ErrorKind::Other => Exit::Unexpected,
        };
        let hint = error
            .hint
            .clone()
            .or_else(|| code.map(|code| code.remedy().to_owned()))
            .or_else(|| io_hint(&error).map(str::to_owned));
        let mut chain = Vec::new();
        push_chain(&mut chain, &error);
        if let (Some(code), Some(first)) = (code, chain.first_mut()) {
            *first = format!("{first} [{code}]");
        }
        Self { exit, chain, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_forge_a_line() {
        assert_eq!(printable("a\nb\u{1b}[2Jc"), "a\u{2424}b\\u{1b}[2Jc");
    }

    #[test]
    fn each_cause_is_said_once() {
        let error = DriverError::io("open `/x`", std::io::Error::other("no luck"));
        assert_eq!(Failure::from(error).render(), "error: open `/x`\n  because: no luck");
    }
}
