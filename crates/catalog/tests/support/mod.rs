//! A ledger to test with: sealed receipts, in order.

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::example::{self, About};
use seaworthy_model::receipt::{Act, ActKind, Head, read_unverified, seal};
use seaworthy_model::signature::{SigningKey, TrustedKeys};

/// Seals receipts one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Scribe {
    pub(crate) key: SigningKey,
    pub(crate) head: Option<Head>,
    pub(crate) clock: Timestamp,
}

impl Scribe {
    pub(crate) fn new() -> Self {
        Self {
            key: SigningKey::from_random(&[3; 32]),
            head: None,
            clock: "2026-11-01T00:00:00Z".parse().unwrap(),
        }
    }

    pub(crate) fn trusted(&self) -> TrustedKeys {
        TrustedKeys::of([self.key.public()])
    }

    /// The next receipt as a line, a minute after the one before.
    pub(crate) fn seal(&mut self, act: &Act) -> String {
        self.clock += SignedDuration::from_mins(1);
        let envelope = seal(act, self.clock, self.head.as_ref(), &self.key).unwrap();
        self.head = Some(read_unverified(&envelope).unwrap().head());
        envelope.to_json()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.sequence)
    }

    /// A slot and its backup; a slot and the backup's drill.
    pub(crate) fn cycle(&mut self, service: &str, source: &str) -> Vec<String> {
        let about = About::new(service, source, self.clock);
        let mut lines = vec![self.seal(&Act::Due(example::due(&about, ActKind::Backup)))];
        let backup = example::backup(&about, Some(self.sequence()));
        lines.push(self.seal(&Act::Backup(Box::new(backup.clone()))));
        let stored = self.sequence();
        let about = About::new(service, source, self.clock);
        lines.push(self.seal(&Act::Due(example::due(&about, ActKind::Drill))));
        let drill = example::drill(&about, Some(self.sequence()), &backup, Some(stored));
        lines.push(self.seal(&Act::Drill(Box::new(drill))));
        lines
    }
}
