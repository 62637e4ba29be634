//! The ledger: all receipts in order, and what can be wrong with them. Verified offline from the public key alone.
//!
//! | what was done to the ledger                              | what shows it                                          | code  |
//! |----------------------------------------------------------|--------------------------------------------------------|-------|
//! | a receipt's bytes were altered                           | its signature, or the `previous` of the next           | EV-07 |
//! | receipts were reordered, doubled, or a second chain grown | `sequence` and `previous`                              | EV-07 |
//! | a receipt was written by somebody else                   | no signature by a key that is trusted at that place    | EV-07 |
//! | receipts were taken out of the middle or the beginning   | `sequence`                                             | EV-06 |
//! | the newest receipts were cut off                         | only a head that was kept elsewhere                    | EV-06 |
//! | a newer program wrote a receipt that we cannot read      | its schema or act                                      | EV-08 |
//!
//! Every problem is reported, not only the first. Nothing to verify is itself a finding (EV-01), never silence.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::finding::{Finding, FindingCode, Severity};
use crate::receipt::{Act, CLOCK_STEP, Due, Head, Place, Receipt, ReceiptError, read_parts};
use crate::signature::{Envelope, PublicKey, SignatureError, TrustedKeys};

/// What is known of a ledger beforehand, from outside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The receipts begin after this one: a part of a ledger, or a continuation. From the first where omitted.
    pub after: Option<Head>,
    /// A head that was kept elsewhere: the ledger must contain it. Without one, a cut tail cannot be noticed.
    pub head: Option<Head>,
}

/// What a verification has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Receipts that verified in every respect, their own facts included.
    pub verified: u64,
    /// Receipts looked at.
    pub seen: u64,
    /// The last receipt up to which the chain is whole and authentic. Keep it elsewhere.
    pub head: Option<Head>,
    /// Whether every receipt is authentic, readable and in its place. What a receipt *says* may still be wrong: a pass that
    /// its own facts deny is a finding, and its receipt is evidence.
    pub is_whole: bool,
    /// Slots that were committed and that no receipt ends, in order: runs still under way, or hidden.
    pub open: Vec<(u64, Due)>,
    /// Keys that are trusted after the last receipt.
    pub keys: TrustedKeys,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl ChainReport {
    /// Whether the ledger may be believed: something was verified, all of it in every respect, and nothing critical was found.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.verified > 0
            && self.verified == self.seen
            && self.findings.iter().all(|finding| finding.code.severity() < Severity::Critical)
    }
}

/// Follows a chain, receipt by receipt; see [`verify_chain`].
#[derive(Debug)]
pub struct ChainVerifier {
    keys: TrustedKeys,
    known: Known,
    last: Option<Head>,
    last_at: Option<Timestamp>,
    known_head_seen: bool,
    is_whole: bool,
    seen: u64,
    verified: u64,
    sound_head: Option<Head>,
    open: BTreeMap<u64, Due>,
    findings: Vec<Finding>,
}

impl ChainVerifier {
    /// Begins after what is known.
    #[must_use]
    pub fn new(keys: TrustedKeys, known: Known) -> Self {
        let after = known.after.clone();
        let known_head_seen = known.head.is_some() && known.head == known.after;
        Self {
            keys,
            known,
            last: after.clone(),
            last_at: None,
            known_head_seen,
            is_whole: true,
            seen: 0,
            verified: 0,
            sound_head: after,
            open: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    /// Looks at the next receipt, and returns it where it is authentic, readable and in its place.
    pub fn next(&mut self, envelope: &Envelope) -> Option<Receipt> {
        self.seen += 1;
        let position = format!("receipt in position {}", self.seen);
        // A signature that is wrong does not keep us from following the chain: one bad receipt is one finding.
        let (payload, signature) = match envelope.verified_payload(&self.keys) {
            Ok((payload, _)) => (payload, Ok(())),
            Err(error) => match envelope.payload_unverified() {
                Ok(payload) => (payload, Err(error)),
                Err(_) => return self.altered(&position, &error),
            },
        };
        let (place, receipt) = match read_parts(&payload) {
            Ok(parts) => parts,
            Err(error) => {
                let detail = match &signature {
                    Ok(()) => error.to_string(),
                    Err(signature) => format!("{signature}; {error}"),
                };
                return self.wrong(FindingCode::ReceiptAltered, &position, detail);
            }
        };
        let subject = format!("receipt {}", place.sequence);
        let before = self.findings.len();
        if let Err(error) = &signature {
            self.altered(&subject, error);
        }
        self.link(&subject, &place);
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(error) => {
                let code = match &error {
                    ReceiptError::TooNew { .. } => FindingCode::ToolRefused,
                    ReceiptError::Signature(_)
                    | ReceiptError::NotAReceipt(_)
                    | ReceiptError::NotCanonical => FindingCode::ReceiptAltered,
                };
                return self.wrong(code, &subject, error.to_string());
            }
        };
        if self.findings[before..].iter().any(|finding| finding.code.severity() == Severity::Critical) {
            return None;
        }
        if !self.apply(&subject, &receipt) {
            return None;
        }
        if self.is_whole {
            self.sound_head = Some(receipt.head());
        }
        let contradictions = receipt.act.contradictions();
        if contradictions.is_empty() {
            self.verified += 1;
        }
        self.findings.extend(contradictions);
        Some(receipt)
    }

    /// Counts bytes that are not even an envelope as a receipt that was altered.
    pub fn next_unreadable(&mut self, error: &SignatureError) {
        self.seen += 1;
        let position = format!("receipt in position {}", self.seen);
        self.altered(&position, error);
    }

    /// The gravest thing that was found so far, in words; `None` where nothing was.
    #[must_use]
    pub fn worst(&self) -> Option<String> {
        self.findings.iter().max_by_key(|finding| finding.code.severity()).map(ToString::to_string)
    }

    /// Says what was found, and compares with the head that was known.
    #[must_use]
    pub fn end(mut self) -> ChainReport {
        if self.seen == 0 {
            self.findings.push(Finding::new(
                FindingCode::NothingChecked,
                "ledger",
                "there is no receipt in it",
            ));
        }
        if let Some(head) = &self.known.head
            && !self.known_head_seen
        {
            let last = self.last.as_ref().map_or(0, |last| last.sequence);
            if last < head.sequence {
                self.is_whole = false;
                self.findings.push(Finding::new(
                    FindingCode::LedgerCut,
                    "ledger",
                    format!("it ends with receipt {last}; receipt {} is known to exist", head.sequence),
                ));
            } else {
                self.is_whole = false;
                self.findings.push(Finding::new(
                    FindingCode::LedgerCut,
                    format!("receipt {}", head.sequence),
                    format!("the receipt that is known to exist, {}, is not in it", head.digest),
                ));
            }
        }
        ChainReport {
            verified: self.verified,
            seen: self.seen,
            head: self.sound_head,
            is_whole: self.is_whole,
            open: self.open.into_iter().collect(),
            keys: self.keys,
            findings: self.findings,
        }
    }

    /// Compares a receipt's place with that of the one before, and steps onto it.
    fn link(&mut self, subject: &str, place: &Place) {
        let expected = self.last.as_ref().map_or(1, |last| last.sequence.saturating_add(1));
        if place.sequence > expected {
            let missing = if place.sequence - expected == 1 {
                format!("receipt {expected} is missing")
            } else {
                format!("receipts {expected} to {} are missing", place.sequence - 1)
            };
            self.wrong(FindingCode::LedgerCut, subject, missing);
        } else if place.sequence < expected {
            self.wrong(
                FindingCode::ReceiptAltered,
                subject,
                format!("it stands where receipt {expected} belongs: doubled, reordered or of another chain"),
            );
        } else if place.previous != self.last.as_ref().map(|last| last.digest.clone()) {
            self.wrong(
                FindingCode::ReceiptAltered,
                subject,
                "it does not follow the receipt before it: one of the two was altered, or is of another chain"
                    .to_owned(),
            );
        }
        if self.last_at.is_some_and(|last| last.duration_since(place.at) > CLOCK_STEP) {
            self.findings.push(Finding::new(
                FindingCode::ClockSkew,
                subject,
                format!("sealed at {}, which is before the receipt that it follows", place.at),
            ));
        }
        if let Some(head) = &self.known.head
            && head.sequence == place.sequence
        {
            if head.digest == place.digest {
                self.known_head_seen = true;
            } else {
                let detail = format!("it is {}, known is {}: another chain", place.digest, head.digest);
                self.wrong(FindingCode::ReceiptAltered, subject, detail);
            }
        }
        // Stay with the longest chain seen, so that a doubled receipt is one finding and not one for each that follows.
        if self.last.as_ref().is_none_or(|last| place.sequence > last.sequence) {
            self.last = Some(Head { sequence: place.sequence, digest: place.digest.clone() });
            self.last_at = Some(place.at);
        }
    }

    /// Remembers what later receipts refer to. `false` where that is impossible.
    fn apply(&mut self, subject: &str, receipt: &Receipt) -> bool {
        if let Act::Due(due) = &receipt.act {
            self.open.insert(receipt.sequence, due.clone());
        }
        if let Some(slot) = receipt.act.ends() {
            match self.open.get(&slot) {
                Some(due) if receipt.act.run() == Some(&due.run) => {
                    self.open.remove(&slot);
                }
                // The slot lies before the part that is verified here.
                None if self.known.after.as_ref().is_some_and(|after| slot <= after.sequence) => {}
                Some(_) | None => {
                    let detail = format!("it ends slot {slot}, which is not open or is another run's");
                    self.wrong(FindingCode::ReceiptAltered, subject, detail);
                    return false;
                }
            }
        }
        if let Act::KeyChange(change) = &receipt.act {
            match PublicKey::from_pem(&change.public_key) {
                Ok(key) if key.id() == change.introduces => self.keys.trust(key),
                Ok(_) | Err(_) => {
                    self.wrong(
                        FindingCode::ReceiptAltered,
                        subject,
                        format!("it introduces {}, and holds no such key", change.introduces),
                    );
                    return false;
                }
            }
            if let Some(retired) = &change.retires {
                self.keys.distrust(retired);
            }
        }
        true
    }

    fn altered(&mut self, subject: &str, error: &SignatureError) -> Option<Receipt> {
        self.wrong(FindingCode::ReceiptAltered, subject, error.to_string())
    }

    fn wrong(&mut self, code: FindingCode, subject: &str, detail: String) -> Option<Receipt> {
        self.is_whole = false;
        self.findings.push(Finding::new(code, subject, detail));
        None
    }
}

/// Verifies receipts as a chain and reports everything that is wrong with it.
#[must_use]
pub fn verify_chain<'a>(
    envelopes: impl IntoIterator<Item = &'a Envelope>,
    keys: &TrustedKeys,
    known: &Known,
) -> ChainReport {
    let mut verifier = ChainVerifier::new(keys.clone(), known.clone());
    for envelope in envelopes {
        verifier.next(envelope);
    }
    verifier.end()
}

/// Verifies an exported ledger: one envelope in each line. Empty lines are skipped; any other line must be an envelope.
#[must_use]
pub fn verify_export(lines: &str, keys: &TrustedKeys, known: &Known) -> ChainReport {
    let mut verifier = ChainVerifier::new(keys.clone(), known.clone());
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        match Envelope::from_json(line.as_bytes()) {
            Ok(envelope) => {
                verifier.next(&envelope);
            }
            Err(error) => verifier.next_unreadable(&error),
        }
    }
    verifier.end()
}
