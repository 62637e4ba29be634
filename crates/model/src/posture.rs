//! How the place that a repository lies in is set up, and whether that fits what is expected of it. Pure: facts in, findings out.
//!
//! A fact that could not be learned is unknown, and unknown is never fine: it is a finding of its own, and where nothing at all
//! was learned there is no judgement.

use jiff::SignedDuration;
use serde::Serialize;

use crate::finding::{Finding, FindingCode};
use crate::service::RetentionSpec;

/// A fact, or why it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen<T> {
    /// It was learned.
    Known(T),
    /// It was asked for and not told.
    Unknown(String),
    /// The service has nothing like it, and it is no part of what is judged of it.
    NotApplicable,
}

/// Whether replaced and deleted objects are kept as earlier versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Versioning {
    /// They are.
    Enabled,
    /// They were, and are no longer.
    Suspended,
    /// They are not.
    Off,
}

/// How objects are locked against removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectLock {
    /// Nobody can take it off early: `COMPLIANCE`; else those who have a right to.
    pub is_compliance: bool,
    /// How long each new object is locked; `None` where nothing is locked by itself.
    pub retention: Option<SignedDuration>,
}

/// How public access is kept out, as S3 names the four parts of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PublicAccessBlock {
    /// New lists that open something are refused.
    pub block_acls: bool,
    /// Lists that open something count for nothing.
    pub ignore_acls: bool,
    /// New policies that open something are refused.
    pub block_policy: bool,
    /// Policies that open something are good only inside of the account.
    pub restrict_buckets: bool,
}

impl PublicAccessBlock {
    /// All four.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.block_acls && self.ignore_acls && self.block_policy && self.restrict_buckets
    }
}

/// A rule by which the service itself removes or moves objects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LifecycleRule {
    /// Its name.
    pub id: String,
    /// Whether it is in force.
    pub is_enabled: bool,
    /// Names begin so; empty is all of them.
    pub prefix: String,
    /// It asks for more than a prefix (tags, sizes), so that it may touch less than it seems.
    pub is_narrowed: bool,
    /// Objects are removed after so many days, or on a day, which is 0.
    pub expires_days: Option<u32>,
    /// Earlier versions are removed after so many days.
    pub expires_earlier_days: Option<u32>,
    /// Uploads that were not completed are removed after so many days.
    pub aborts_days: Option<u32>,
    /// Classes that objects, or earlier versions, are moved to.
    pub moves_to: Vec<String>,
}

/// What was learned of one place. Every field was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreFacts {
    /// Earlier versions.
    pub versioning: Seen<Versioning>,
    /// The lock; `None` where the bucket has none.
    pub object_lock: Seen<Option<ObjectLock>>,
    /// Whether deleting a version asks for a second factor.
    pub mfa_delete: Seen<bool>,
    /// What keeps the public out; `None` where nothing is set up.
    pub public_access_block: Seen<Option<PublicAccessBlock>>,
    /// Whether a policy opens the bucket to everybody.
    pub is_public_by_policy: Seen<bool>,
    /// To whom a list of rights opens the bucket that is everybody: their names.
    pub open_to: Seen<Vec<String>>,
    /// Rules of removing and moving.
    pub lifecycle: Seen<Vec<LifecycleRule>>,
    /// What new objects are encrypted with by themselves; `None` where with nothing.
    pub encryption: Seen<Option<String>>,
    /// Where it lies.
    pub region: Seen<String>,
}

/// What a credential that only writes was able to do to an object of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriterFacts {
    /// Whether it replaced it.
    pub may_overwrite: Seen<bool>,
    /// Whether it removed it.
    pub may_delete: Seen<bool>,
    /// Whether it may remove a lock, which it should.
    pub may_delete_locks: Seen<bool>,
}

/// What is expected of a place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Expected {
    /// What is configured as its region.
    pub region: Option<String>,
    /// The prefix of the repository in it, without slashes around it.
    pub prefix: String,
    /// How long the longest-kept copy stays.
    pub longest_kept: Kept,
}

/// How long copies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// No service that uses the place says so: as long as anybody wishes.
    #[default]
    Unsaid,
    /// At most so many days.
    Days(u32),
    /// For ever.
    Forever,
}

impl Kept {
    /// The longest that a policy refers to: a copy of the period that goes last. `last` alone counts copies and no time.
    #[must_use]
    pub fn by(spec: &RetentionSpec) -> Self {
        if spec.forever {
            return Self::Forever;
        }
        let within =
            spec.within.map(|within| u32::try_from((within.as_hours().max(0) + 23) / 24).unwrap_or(u32::MAX));
        let of = |count: Option<u32>, days: u32| {
            count.filter(|count| *count > 0).map(|count| count.saturating_mul(days))
        };
        [within, of(spec.daily, 1), of(spec.weekly, 7), of(spec.monthly, 31), of(spec.yearly, 366)]
            .into_iter()
            .flatten()
            .max()
            .map_or(Self::Unsaid, Self::Days)
    }

    /// Whether something that goes after `days` goes too early.
    fn outlasts(self, days: u32) -> bool {
        match self {
            Self::Unsaid | Self::Forever => true,
            Self::Days(kept) => kept > days,
        }
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsaid => f.write_str("for as long as nobody says otherwise"),
            Self::Days(days) => write!(f, "for up to {days} days"),
            Self::Forever => f.write_str("for ever"),
        }
    }
}

/// What a place was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Posture {
    /// What falls short, in order of the codes.
    pub findings: Vec<Finding>,
    /// Of the facts that are judged, how many are known.
    pub known: usize,
    /// And how many were asked for.
    pub asked: usize,
}

impl Posture {
    /// Whether nothing was learned that could be judged.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.known == 0
    }
}

/// Classes out of which nothing can be read before it was thawed, which takes hours: no drill can read them.
const FROZEN: &[&str] = &["GLACIER", "DEEP_ARCHIVE", "ARCHIVE", "Archive"];
/// Days after which an incomplete upload should be gone: longer than any upload of ours takes.
const ABORT_DAYS_MAX: u32 = 30;

/// Judges a place. `subject` names it.
#[must_use]
pub fn judge(subject: &str, facts: &StoreFacts, expected: &Expected) -> Posture {
    let mut round = Round { subject, findings: Vec::new(), unknown: Vec::new(), known: 0, asked: 0 };
    let lock = round.learn("object lock", &facts.object_lock).cloned();
    if let Some(versioning) = round.learn("versioning", &facts.versioning) {
        match versioning {
            Versioning::Enabled => {}
            Versioning::Suspended => round.add(
                FindingCode::StoreVersioning,
                "versioning is suspended: what is replaced or deleted from now on is gone at once",
            ),
            Versioning::Off => {
                round.add(
                    FindingCode::StoreVersioning,
                    "versioning is off: what is replaced or deleted is gone at once",
                );
            }
        }
    }
    if let Some(lock) = &lock {
        judge_lock(&mut round, lock.as_ref(), expected.longest_kept);
    }
    let is_locked = matches!(&lock, Some(Some(lock)) if lock.retention.is_some());
    if let Some(false) = round.learn("MFA delete", &facts.mfa_delete)
        && !is_locked
    {
        round.add(
            FindingCode::StoreMfaDelete,
            "earlier versions can be deleted without a second factor, and no object lock keeps them",
        );
    }
    judge_public(&mut round, facts);
    if let Some(rules) = round.learn("lifecycle rules", &facts.lifecycle) {
        judge_lifecycle(&mut round, rules, expected);
    }
    if let Some(None) = round.learn("default encryption", &facts.encryption) {
        round.add(
            FindingCode::StoreEncryption,
            "new objects are not encrypted by the service; what we store is encrypted by ourselves",
        );
    }
    if let Some(region) = round.learn("region", &facts.region)
        && let Some(wanted) = &expected.region
        && !region.eq_ignore_ascii_case(wanted)
    {
        round.add(FindingCode::StoreRegion, &format!("it lies in {region}; configured is {wanted}"));
    }
    round.end()
}

fn judge_lock(round: &mut Round<'_>, lock: Option<&ObjectLock>, kept: Kept) {
    match lock {
        None => round.add(
            FindingCode::StoreLock,
            "there is no object lock: whoever has the right credential can delete every copy",
        ),
        Some(ObjectLock { retention: None, .. }) => round.add(
            FindingCode::StoreLock,
            "object lock is on, and locks nothing by itself: there is no default retention",
        ),
        Some(ObjectLock { is_compliance, retention: Some(retention) }) => {
            let days = u32::try_from(retention.as_hours() / 24).unwrap_or(u32::MAX);
            // Of what is kept for ever no lock is long enough; what is asked of it is that it is there.
            if let Kept::Days(wanted) = kept
                && days < wanted
            {
                round.add(
                    FindingCode::StoreLock,
                    &format!("objects are locked for {days} days, and copies are kept for up to {wanted}"),
                );
            }
            if !is_compliance {
                round.add(
                    FindingCode::StoreLockGovernance,
                    &format!("objects are locked for {days} days in mode GOVERNANCE: who has a right to can take the lock off"),
                );
            }
        }
    }
}

fn judge_public(round: &mut Round<'_>, facts: &StoreFacts) {
    let is_open = round.learn("policy status", &facts.is_public_by_policy) == Some(&true);
    if is_open {
        round.add(FindingCode::StorePublic, "its policy opens it to everybody");
    }
    let open_to = round.learn("access list", &facts.open_to).cloned().unwrap_or_default();
    if !open_to.is_empty() {
        round.add(FindingCode::StorePublic, &format!("its access list opens it to {}", open_to.join(", ")));
    }
    if let Some(block) = round.learn("public access block", &facts.public_access_block)
        && !block.is_some_and(PublicAccessBlock::is_whole)
    {
        let detail = match block {
            None => "nothing blocks public access: one mistaken policy or access list opens it".to_owned(),
            Some(block) => {
                let parts = [
                    (block.block_acls, "BlockPublicAcls"),
                    (block.ignore_acls, "IgnorePublicAcls"),
                    (block.block_policy, "BlockPublicPolicy"),
                    (block.restrict_buckets, "RestrictPublicBuckets"),
                ];
                let off: Vec<&str> =
                    parts.iter().filter(|(is_on, _)| !is_on).map(|(_, name)| *name).collect();
                format!("public access is not blocked in full: {} is off", off.join(", "))
            }
        };
        round.add(FindingCode::StoreAccessBlock, &detail);
    }
}

/// Whether a rule touches objects below a prefix.
fn touches(rule: &LifecycleRule, prefix: &str) -> bool {
    let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    rule.is_enabled && (rule.prefix.starts_with(&below) || below.starts_with(&rule.prefix))
}

fn judge_lifecycle(round: &mut Round<'_>, rules: &[LifecycleRule], expected: &Expected) {
    let here: Vec<&LifecycleRule> = rules.iter().filter(|rule| touches(rule, &expected.prefix)).collect();
    let kept = expected.longest_kept;
    for rule in &here {
        let perhaps =
            if rule.is_narrowed { " (of some objects: it asks for more than a prefix)" } else { "" };
        if let Some(days) = rule.expires_days {
            // Packs are shared: also one that is older than every copy may hold what the newest one needs.
            round.add(
                FindingCode::StoreExpires,
                &format!("rule `{}` removes objects after {days} days{perhaps}, also those that the newest copy needs", rule.id),
            );
        }
        if let Some(days) = rule.expires_earlier_days
            && kept.outlasts(days)
        {
            round.add(
                FindingCode::StoreExpiresEarlier,
                &format!(
                    "rule `{}` removes earlier versions after {days} days{perhaps}; copies are kept {kept}",
                    rule.id
                ),
            );
        }
        let frozen: Vec<&str> =
            rule.moves_to.iter().map(String::as_str).filter(|class| FROZEN.contains(class)).collect();
        if !frozen.is_empty() {
            round.add(
                FindingCode::StoreFrozen,
                &format!(
                    "rule `{}` moves objects to {}{perhaps}, out of which nothing can be read at once",
                    rule.id,
                    frozen.join(", ")
                ),
            );
        }
    }
    let aborts = here.iter().filter(|rule| !rule.is_narrowed).filter_map(|rule| rule.aborts_days).min();
    if aborts.is_none_or(|days| days > ABORT_DAYS_MAX) {
        round.add(
            FindingCode::StoreIncomplete,
            "uploads that were cut off stay, and are paid for: no rule removes them within 30 days",
        );
    }
}

/// Judges what a credential could do; the statement that would forbid it is the caller's to print.
#[must_use]
pub fn judge_writer(subject: &str, facts: &WriterFacts) -> Posture {
    let mut round = Round { subject, findings: Vec::new(), unknown: Vec::new(), known: 0, asked: 0 };
    let mut can = Vec::new();
    if round.learn("overwriting", &facts.may_overwrite) == Some(&true) {
        can.push("replace");
    }
    if round.learn("deleting", &facts.may_delete) == Some(&true) {
        can.push("delete");
    }
    if !can.is_empty() {
        round.add(
            FindingCode::StoreWriter,
            &format!("the credential that backs up may {} what it has stored", can.join(" and ")),
        );
    }
    if round.learn("deleting locks", &facts.may_delete_locks) == Some(&false) {
        round.add(
            FindingCode::StoreLocks,
            "the credential may not remove locks: those of runs that have ended stay, and are passed over only on the host that made them",
        );
    }
    round.end()
}

struct Round<'a> {
    subject: &'a str,
    findings: Vec<Finding>,
    unknown: Vec<String>,
    known: usize,
    asked: usize,
}

impl Round<'_> {
    fn learn<'b, T>(&mut self, name: &str, seen: &'b Seen<T>) -> Option<&'b T> {
        match seen {
            Seen::Known(fact) => {
                self.asked += 1;
                self.known += 1;
                Some(fact)
            }
            Seen::Unknown(why) => {
                self.asked += 1;
                self.unknown.push(format!("{name} ({why})"));
                None
            }
            Seen::NotApplicable => None,
        }
    }

    fn add(&mut self, code: FindingCode, detail: &str) {
        self.findings.push(Finding::new(code, self.subject, detail));
    }

    fn end(mut self) -> Posture {
        if !self.unknown.is_empty() {
            let detail = format!(
                "{} of {} could not be learned: {}",
                self.unknown.len(),
                self.asked,
                self.unknown.join("; ")
            );
            self.add(FindingCode::StoreUnknown, &detail);
        }
        Posture { findings: self.findings, known: self.known, asked: self.asked }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A bucket in which nothing is wrong.
    fn healthy() -> StoreFacts {
        StoreFacts {
            versioning: Seen::Known(Versioning::Enabled),
            object_lock: Seen::Known(Some(ObjectLock {
                is_compliance: true,
                retention: Some(SignedDuration::from_hours(24 * 100)),
            })),
            mfa_delete: Seen::Known(false),
            public_access_block: Seen::Known(Some(PublicAccessBlock {
                block_acls: true,
                ignore_acls: true,
                block_policy: true,
                restrict_buckets: true,
            })),
            is_public_by_policy: Seen::Known(false),
            open_to: Seen::Known(Vec::new()),
            lifecycle: Seen::Known(vec![abort()]),
            encryption: Seen::Known(Some("AES256".to_owned())),
            region: Seen::Known("eu-central-1".to_owned()),
        }
    }

    fn abort() -> LifecycleRule {
        LifecycleRule {
            id: "abort".to_owned(),
            is_enabled: true,
            aborts_days: Some(7),
            ..LifecycleRule::default()
        }
    }

    fn expected() -> Expected {
        Expected {
            region: Some("eu-central-1".to_owned()),
            prefix: "ships/one".to_owned(),
            longest_kept: Kept::Days(90),
        }
    }

    fn codes(facts: &StoreFacts, expected: &Expected) -> Vec<&'static str> {
        judge("far", facts, expected).findings.iter().map(|finding| finding.code.as_str()).collect()
    }

    fn with(change: impl FnOnce(&mut StoreFacts)) -> Vec<&'static str> {
        let mut facts = healthy();
        change(&mut facts);
        codes(&facts, &expected())
    }

    fn rule(change: impl FnOnce(&mut LifecycleRule)) -> Vec<&'static str> {
        let mut rule = LifecycleRule { id: "r".to_owned(), is_enabled: true, ..LifecycleRule::default() };
        change(&mut rule);
        with(|facts| facts.lifecycle = Seen::Known(vec![abort(), rule]))
    }

    #[test]
    fn a_healthy_place_is_silent() {
        let posture = judge("far", &healthy(), &expected());
        assert_eq!((posture.findings, posture.known, posture.asked), (Vec::new(), 9, 9));
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_by_its_own_code() {
        assert_eq!(with(|facts| facts.versioning = Seen::Known(Versioning::Off)), ["ST-01"]);
        assert_eq!(with(|facts| facts.versioning = Seen::Known(Versioning::Suspended)), ["ST-01"]);
        assert_eq!(with(|facts| facts.object_lock = Seen::Known(None)), ["ST-02", "ST-11"]);
        let lock = |is_compliance, days: Option<i64>| {
            let retention = days.map(|days| SignedDuration::from_hours(24 * days));
            with(|facts| facts.object_lock = Seen::Known(Some(ObjectLock { is_compliance, retention })))
        };
        assert_eq!(lock(true, None), ["ST-02", "ST-11"]);
        assert_eq!(lock(true, Some(89)), ["ST-02"]);
        assert!(lock(true, Some(90)).is_empty());
        assert_eq!(lock(false, Some(90)), ["ST-03"]);
        assert_eq!(with(|facts| facts.is_public_by_policy = Seen::Known(true)), ["ST-04"]);
        assert_eq!(with(|facts| facts.open_to = Seen::Known(vec!["AllUsers".to_owned()])), ["ST-04"]);
        assert_eq!(with(|facts| facts.public_access_block = Seen::Known(None)), ["ST-05"]);
        assert_eq!(
            with(|facts| facts.public_access_block = Seen::Known(Some(PublicAccessBlock::default()))),
            ["ST-05"]
        );
        assert_eq!(with(|facts| facts.lifecycle = Seen::Known(Vec::new())), ["ST-09"]);
        assert_eq!(with(|facts| facts.encryption = Seen::Known(None)), ["ST-10"]);
        assert_eq!(with(|facts| facts.region = Seen::Known("us-east-1".to_owned())), ["ST-12"]);
    }

    #[test]
    fn rules_that_remove_or_freeze_are_found_where_they_touch_the_repository() {
        assert_eq!(rule(|rule| rule.expires_days = Some(3_650)), ["ST-06"]);
        assert_eq!(rule(|rule| rule.expires_earlier_days = Some(89)), ["ST-07"]);
        assert!(rule(|rule| rule.expires_earlier_days = Some(90)).is_empty());
        assert_eq!(
            rule(|rule| rule.moves_to = vec!["STANDARD_IA".to_owned(), "GLACIER".to_owned()]),
            ["ST-08"]
        );
        assert!(rule(|rule| rule.moves_to = vec!["GLACIER_IR".to_owned()]).is_empty());
        for (prefix, is_touched) in [
            ("", true),
            ("ships/", true),
            ("ships/one/", true),
            ("ships/one/data", true),
            ("logs/", false),
            ("ships/two", false),
            ("ships/one-more/", false),
        ] {
            let found = rule(|rule| (rule.expires_days, rule.prefix) = (Some(1), prefix.to_owned()));
            assert_eq!(found == ["ST-06"], is_touched, "{prefix}");
        }
        assert!(rule(|rule| (rule.expires_days, rule.is_enabled) = (Some(1), false)).is_empty());
        // What is kept for ever, or for an unsaid time, outlasts every rule; no lock is asked to.
        for kept in [Kept::Forever, Kept::Unsaid] {
            let mut facts = healthy();
            let rule = LifecycleRule {
                expires_earlier_days: Some(9_999),
                is_enabled: true,
                ..LifecycleRule::default()
            };
            facts.lifecycle = Seen::Known(vec![abort(), rule]);
            assert_eq!(codes(&facts, &Expected { longest_kept: kept, ..expected() }), ["ST-07"]);
        }
        // One that removes uploads of some objects only removes not all of them.
        let narrowed = LifecycleRule { is_narrowed: true, ..abort() };
        assert_eq!(with(|facts| facts.lifecycle = Seen::Known(vec![narrowed])), ["ST-09"]);
    }

    #[test]
    fn what_is_not_known_is_never_fine_and_says_why() {
        let unknown = || "HTTP 403, AccessDenied".to_owned();
        assert_eq!(with(|facts| facts.versioning = Seen::Unknown(unknown())), ["ST-15"]);
        assert_eq!(with(|facts| facts.lifecycle = Seen::Unknown(unknown())), ["ST-15"]);
        // Without knowing the lock nobody can say that a second factor is not needed.
        assert_eq!(with(|facts| facts.object_lock = Seen::Unknown(unknown())), ["ST-11", "ST-15"]);
        let facts = StoreFacts {
            versioning: Seen::Unknown(unknown()),
            object_lock: Seen::Unknown(unknown()),
            mfa_delete: Seen::Unknown(unknown()),
            public_access_block: Seen::Unknown(unknown()),
            is_public_by_policy: Seen::Unknown(unknown()),
            open_to: Seen::Unknown(unknown()),
            lifecycle: Seen::Unknown(unknown()),
            encryption: Seen::Unknown(unknown()),
            region: Seen::NotApplicable,
        };
        let posture = judge("far", &facts, &expected());
        assert!(posture.is_unknown() && posture.asked == 8);
        assert!(
            posture.findings[0].detail.contains("8 of 8")
                && posture.findings[0].detail.contains("AccessDenied")
        );
    }

    #[test]
    fn a_credential_is_to_add_and_to_remove_locks_and_nothing_else() {
        let facts = |overwrite, delete, locks| WriterFacts {
            may_overwrite: Seen::Known(overwrite),
            may_delete: Seen::Known(delete),
            may_delete_locks: Seen::Known(locks),
        };
        let codes = |facts: &WriterFacts| -> BTreeSet<&str> {
            judge_writer("far", facts).findings.iter().map(|finding| finding.code.as_str()).collect()
        };
        assert!(codes(&facts(false, false, true)).is_empty());
        assert_eq!(codes(&facts(true, false, true)), BTreeSet::from(["ST-13"]));
        assert_eq!(codes(&facts(false, true, true)), BTreeSet::from(["ST-13"]));
        assert_eq!(codes(&facts(false, false, false)), BTreeSet::from(["ST-14"]));
        let unknown =
            WriterFacts { may_delete: Seen::Unknown("HTTP 500".to_owned()), ..facts(false, false, true) };
        assert_eq!(codes(&unknown), BTreeSet::from(["ST-15"]));
    }

    #[test]
    fn the_longest_kept_copy_is_that_of_the_longest_rung() {
        let spec = |change: fn(&mut RetentionSpec)| {
            let mut spec = RetentionSpec::default();
            change(&mut spec);
            Kept::by(&spec)
        };
        assert_eq!(spec(|_| ()), Kept::Unsaid);
        assert_eq!(spec(|spec| spec.last = Some(7)), Kept::Unsaid);
        assert_eq!(spec(|spec| spec.within = Some(SignedDuration::from_hours(25))), Kept::Days(2));
        assert_eq!(spec(|spec| (spec.daily, spec.weekly) = (Some(30), Some(8))), Kept::Days(56));
        assert_eq!(spec(|spec| (spec.monthly, spec.yearly) = (Some(12), Some(7))), Kept::Days(2_562));
        assert_eq!(spec(|spec| (spec.yearly, spec.forever) = (Some(7), true)), Kept::Forever);
        assert_eq!(spec(|spec| spec.daily = Some(0)), Kept::Unsaid);
        assert!(Kept::Unsaid < Kept::Days(9) && Kept::Days(9) < Kept::Forever);
    }
}
