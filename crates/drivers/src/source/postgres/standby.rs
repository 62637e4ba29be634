//! Of which instant a standby is: its own clock goes on when nothing reaches it any more.
//!
//! What it holds is of now where its receiver has just heard from its primary and everything that was announced is replayed. In
//! every other case the last commit that it replayed is all that is known, and that is the date; unknown is never "now". Everybody
//! may read the positions and that commit; what the receiver has heard is told to members of `pg_read_all_stats` only.
//!
//! Not seen from here: a primary that is itself a standby, and stands still while it goes on talking.

use jiff::{SignedDuration, Timestamp};
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::wal::Lsn;

use super::session::{Session, flag, optional, text};

/// Longest silence of a primary that is there, where the receiver's own timeout does not allow for more.
const SILENCE_MAX: SignedDuration = SignedDuration::from_secs(30);
/// How long an answer may take: a receiver that has heard nothing for half of its timeout asks, and is answered.
const ANSWER: SignedDuration = SignedDuration::from_secs(10);
/// How far a standby that is being fed may be behind without a word: it is dated by what it has, and a primary that is used writes
/// more often (a checkpoint, by default, every five minutes).
const BEHIND_MAX: SignedDuration = SignedDuration::from_mins(5);

/// What lets a role see what the receiver has heard.
const GRANT: &str = "GRANT pg_read_all_stats TO <backup role>";

/// What is known of the process that receives the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// There is none: nothing is being received.
    None,
    /// There is one; this role may not see more.
    Hidden,
    /// It has told.
    Seen {
        /// Whether its status is `streaming`.
        is_streaming: bool,
        /// When its last message arrived, by the standby's clock; `None` before the first one.
        heard: Option<Timestamp>,
        /// The end of the log that the primary has announced.
        announced: Option<Lsn>,
    },
}

/// What a standby says of itself, all of it after `now`, and before whatever is dated by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standby {
    /// Its clock.
    pub(super) now: Timestamp,
    /// How far the log was received; `None` where nothing ever was.
    pub(super) received: Option<Lsn>,
    /// How far it was replayed.
    pub(super) replayed: Option<Lsn>,
    /// When the newest commit that was replayed was made, by the primary's clock; `None` where none was since the start.
    pub(super) last_commit: Option<Timestamp>,
    /// The process that receives the log.
    pub(super) receiver: Receiver,
    /// Its timeout; `None` where it waits for ever.
    pub(super) receiver_timeout: Option<SignedDuration>,
}

/// The instant that a standby's content is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dated {
    /// Nothing that was committed before it is missing.
    pub(super) point: Timestamp,
    /// Why it is that old, or not known better.
    pub(super) finding: Option<Finding>,
}

/// A standby of which nobody knows how old its content is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, and it has replayed no commit since it was started")]
pub(super) struct Undated {
    /// Why it is not of now.
    pub(super) reason: &'static str,
    /// What helps.
    pub(super) hint: String,
}

impl Undated {
    /// As the error of an attempt to `attempted`.
    pub(super) fn refusal(self, attempted: &str) -> DriverError {
        let hint = self.hint.clone();
        DriverError::new(ErrorKind::Refused, attempted)
            .because(self)
            .code(FindingCode::StandbyBehind)
            .hint(hint)
    }
}

/// Decides of which instant a standby's content is; `subject` is what a finding is about.
pub(super) fn dated(standby: &Standby, subject: &str) -> Result<Dated, Undated> {
    let Some(reason) = behind(standby) else { return Ok(Dated { point: standby.now, finding: None }) };
    let remedy = match standby.receiver {
        Receiver::Hidden => format!("`{GRANT}` lets this role see it"),
        Receiver::None | Receiver::Seen { .. } => {
            "look at the standby's log and at pg_stat_wal_receiver; is its primary reached?".to_owned()
        }
    };
    let Some(last) = standby.last_commit else { return Err(Undated { reason, hint: remedy }) };
    // A primary whose clock is ahead does not make anything newer than it is.
    let point = last.min(standby.now);
    let age = standby.now.duration_since(point);
    let is_fed = standby.receiver != Receiver::None;
    let finding = (!is_fed || age > BEHIND_MAX).then(|| {
        Finding::new(
            FindingCode::StandbyBehind,
            subject,
            format!(
                "{reason}: the copy is dated by the last commit that was replayed, {} s ago; {remedy}",
                age.as_secs()
            ),
        )
    });
    Ok(Dated { point, finding })
}

/// Why it is not known that a standby holds everything until now; `None` where it is.
fn behind(standby: &Standby) -> Option<&'static str> {
    let has_replayed = |until: Option<Lsn>| until.is_some() && standby.replayed >= until;
    let Receiver::Seen { is_streaming, heard, announced } = standby.receiver else {
        return Some(match standby.receiver {
            Receiver::None => "the standby receives nothing from its primary",
            Receiver::Hidden | Receiver::Seen { .. } => {
                "whether the standby still hears from its primary is hidden from this role"
            }
        });
    };
    let asks_after = standby.receiver_timeout.map(|timeout| (timeout / 2).saturating_add(ANSWER));
    let silence_max = asks_after.map_or(SILENCE_MAX, |after| after.max(SILENCE_MAX));
    let is_heard = heard.is_some_and(|heard| standby.now.duration_since(heard) <= silence_max);
    if !is_streaming || !is_heard {
        Some("the standby has not heard from its primary lately")
    } else if !has_replayed(standby.received) || !has_replayed(announced) {
        Some("the standby has not replayed all that its primary has written")
    } else {
        None
    }
}

/// Asks a server what it says of itself as a standby; `None` of a primary. What is read afterwards holds at least what this says.
pub(super) async fn read(cx: &Cx, session: &Session) -> Result<Option<Standby>, DriverError> {
    const FORM: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";
    // Until its first message a receiver gives the instant of its own start as both times.
    let sql = format!(
        "SELECT pg_is_in_recovery()::text, to_char(statement_timestamp(), {FORM}), pg_last_wal_receive_lsn()::text, \
         pg_last_wal_replay_lsn()::text, to_char(pg_last_xact_replay_timestamp(), {FORM}), \
         (SELECT setting FROM pg_settings WHERE name = 'wal_receiver_timeout'), (r.pid IS NOT NULL)::text, r.status, \
         to_char(CASE WHEN r.last_msg_receipt_time <> r.last_msg_send_time THEN r.last_msg_receipt_time END, {FORM}), \
         r.latest_end_lsn::text FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r ON true"
    );
    let row = session.row(cx, "ask the standby what it has replayed", &sql).await?;
    if !flag(&row, 0)? {
        return Ok(None);
    }
    let unreadable = |found: &str| {
        DriverError::new(ErrorKind::Corrupt, format!("read `{found}`, which a standby says of itself"))
    };
    let instant = |found: Option<String>| -> Result<Option<Timestamp>, DriverError> {
        found.map(|found| found.parse().map_err(|error| unreadable(&found).because(error))).transpose()
    };
    let position = |found: Option<String>| -> Result<Option<Lsn>, DriverError> {
        found.map(|found| found.parse().map_err(|error| unreadable(&found).because(error))).transpose()
    };
    let now = text(&row, 1)?;
    let timeout_ms: Option<i64> = optional(&row, 5)?.and_then(|found| found.parse().ok());
    let receiver = match optional(&row, 7)? {
        _ if !flag(&row, 6)? => Receiver::None,
        None => Receiver::Hidden,
        Some(status) => Receiver::Seen {
            is_streaming: status == "streaming",
            heard: instant(optional(&row, 8)?)?,
            announced: position(optional(&row, 9)?)?,
        },
    };
    Ok(Some(Standby {
        now: now.parse().map_err(|error: jiff::Error| unreadable(&now).because(error))?,
        received: position(optional(&row, 2)?)?,
        replayed: position(optional(&row, 3)?)?,
        last_commit: instant(optional(&row, 4)?)?,
        receiver,
        receiver_timeout: timeout_ms.filter(|timeout| *timeout > 0).map(SignedDuration::from_millis),
    }))
}

/// What a probe says of a standby beforehand: how a copy of it would be dated now, and what this role may not see.
pub(super) fn outlook(standby: &Standby, subject: &str) -> Option<Finding> {
    match dated(standby, subject) {
        _ if standby.receiver == Receiver::Hidden => Some(Finding::new(
            FindingCode::StandbyBehind,
            subject,
            format!(
                "this role may not see whether the standby still hears from its primary, so that a copy is dated by the last commit \
                 that was replayed; `{GRANT}` lets it"
            ),
        )),
        Ok(dated) => dated.finding,
        Err(undated) => Some(Finding::new(
            FindingCode::StandbyBehind,
            subject,
            format!("{undated}: a backup would be refused; {}", undated.hint),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standby_that_is_known_to_hold_everything_is_of_now() {
        let now: Timestamp = "2026-12-01T12:00:00Z".parse().expect("an instant");
        let ago = |seconds| now - SignedDuration::from_secs(seconds);
        let seen = |is_streaming, heard: i64, announced| Receiver::Seen {
            is_streaming,
            heard: Some(ago(heard)),
            announced: Some(Lsn(announced)),
        };
        let healthy = Standby {
            now,
            received: Some(Lsn(100)),
            replayed: Some(Lsn(100)),
            last_commit: Some(ago(7_200)),
            receiver: seen(true, 1, 100),
            receiver_timeout: Some(SignedDuration::from_secs(60)),
        };
        let unheard = Receiver::Seen { is_streaming: true, heard: None, announced: Some(Lsn(100)) };
        // What is changed of a healthy one, how old it then is, and whether a person hears of it.
        let cases = [
            ("healthy, and its primary is idle", healthy, 0, false),
            (
                "the last message is what is to be expected",
                Standby { receiver: seen(true, 31, 100), ..healthy },
                0,
                false,
            ),
            (
                "a longer timeout",
                Standby {
                    receiver: seen(true, 60, 100),
                    receiver_timeout: Some(SignedDuration::from_secs(120)),
                    ..healthy
                },
                0,
                false,
            ),
            (
                "no timeout and a short silence",
                Standby { receiver: seen(true, 29, 100), receiver_timeout: None, ..healthy },
                0,
                false,
            ),
            (
                "no timeout and a long silence",
                Standby { receiver: seen(true, 31, 100), receiver_timeout: None, ..healthy },
                7_200,
                true,
            ),
            ("silent for too long", Standby { receiver: seen(true, 41, 100), ..healthy }, 7_200, true),
            ("connected, and nothing was heard yet", Standby { receiver: unheard, ..healthy }, 7_200, true),
            ("not streaming", Standby { receiver: seen(false, 1, 100), ..healthy }, 7_200, true),
            ("more was announced", Standby { receiver: seen(true, 1, 101), ..healthy }, 7_200, true),
            ("more was received", Standby { received: Some(Lsn(101)), ..healthy }, 7_200, true),
            (
                "more was received, a moment ago",
                Standby { received: Some(Lsn(101)), last_commit: Some(ago(20)), ..healthy },
                20,
                false,
            ),
            ("nothing was ever received", Standby { received: None, ..healthy }, 7_200, true),
            ("nothing receives", Standby { receiver: Receiver::None, ..healthy }, 7_200, true),
            (
                "nothing receives any more",
                Standby { receiver: Receiver::None, last_commit: Some(ago(3)), ..healthy },
                3,
                true,
            ),
            (
                "hidden, in use",
                Standby { receiver: Receiver::Hidden, last_commit: Some(ago(40)), ..healthy },
                40,
                false,
            ),
            ("hidden, not in use", Standby { receiver: Receiver::Hidden, ..healthy }, 7_200, true),
            (
                "a primary whose clock is ahead",
                Standby { receiver: Receiver::Hidden, last_commit: Some(ago(-90)), ..healthy },
                0,
                false,
            ),
        ];
        for (name, standby, age, is_told) in cases {
            let dated = dated(&standby, "shop").expect("it has replayed a commit");
            assert_eq!((dated.point, dated.finding.is_some()), (ago(age), is_told), "{name}");
        }
        // Where nothing was replayed there is nothing to date by, but for one that is of now anyway.
        let fresh = Standby { last_commit: None, ..healthy };
        assert_eq!(dated(&fresh, "shop").map(|dated| dated.point), Ok(now));
        for receiver in [Receiver::None, Receiver::Hidden, seen(true, 1, 101)] {
            let undated = dated(&Standby { receiver, ..fresh }, "shop").expect_err("nothing is known");
            assert_eq!(undated.hint.contains("pg_read_all_stats"), receiver == Receiver::Hidden);
        }
        // A probe names the right that helps before anything is old.
        let hidden = Standby { receiver: Receiver::Hidden, last_commit: Some(ago(1)), ..healthy };
        assert!(outlook(&hidden, "shop").expect("a finding").detail.contains("pg_read_all_stats"));
        assert_eq!(outlook(&healthy, "shop"), None);
    }
}
