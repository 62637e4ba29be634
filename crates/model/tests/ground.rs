//! What bears on retention is read from receipts alone: marks, holds, approvals, policies, and whose age is known.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::config::{SourceText, parse};
use seaworthy_model::example::{self, About};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, Digest, RepositoryId, SourceName};
use seaworthy_model::point::PointStanding;
use seaworthy_model::receipt::{Act, Backup, Receipt, Replicate, RepositoryRef};
use seaworthy_model::retention::{
    Asked, Decision, Ground, HeldThing, Hold, Listing, Plan, Reason, Retain, RetentionPolicy, Rule, Step,
};
use seaworthy_model::service::{RetentionSpec, Service};

fn hour(n: i64) -> Timestamp {
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(n)
}

/// A ledger of one source.
struct Story {
    ground: Ground,
    sequence: u64,
    copies: BTreeSet<CopyId>,
    service: Service,
    policy: RetentionPolicy,
}

impl Story {
    fn new(keep: RetentionSpec) -> Self {
        let text = "[repositories.r]\nlocation = \"/r\"\npassword = \"env:P\"\n[services.shop]\nowner = \"o\"\n\
                    [services.shop.sources.db]\nkind = \"sqlite\"\npath = \"/shop.db\"\n";
        let parsed = parse(&[SourceText::new("seaworthy.toml", text)]).unwrap();
        Self {
            ground: Ground::default(),
            sequence: 0,
            copies: BTreeSet::new(),
            service: parsed.inventory.services[0].clone(),
            policy: RetentionPolicy::new(Some(keep), "UTC").unwrap(),
        }
    }

    fn seal(&mut self, act: Act, at: Timestamp) -> u64 {
        self.sequence += 1;
        self.ground.apply(&Receipt {
            sequence: self.sequence,
            previous: None,
            at,
            subject: Vec::new(),
            digest: Digest(String::new()),
            act,
        });
        self.sequence
    }

    fn backup(&mut self, n: i64) -> Backup {
        let backup = example::backup(&About::new("shop", "db", hour(n)), None);
        self.copies.insert(backup.copy.clone().unwrap());
        self.seal(Act::Backup(Box::new(backup.clone())), backup.finished);
        backup
    }

    fn plan(&self, n: i64) -> Plan {
        self.plan_of(&example::repository().id, &self.copies, n)
    }

    fn plan_of(&self, repository: &RepositoryId, listed: &BTreeSet<CopyId>, n: i64) -> Plan {
        self.ground.plan(&Asked {
            service: &self.service,
            source: &SourceName::new("db").unwrap(),
            repository,
            policy: &self.policy,
            listing: Listing::Whole(listed),
            now: hour(n),
        })
    }

    /// A replica of that backup, made at this hour.
    fn replicate(&mut self, of: &Backup, known_by: u64, n: i64) -> Replicate {
        let replicate = example::replicate(of, known_by, hour(n));
        self.seal(Act::Replicate(Box::new(replicate.clone())), hour(n));
        replicate
    }

    /// What `retain --apply` seals.
    fn apply(&mut self, n: i64) -> Retain {
        let plan = self.plan(n);
        let run = About::new("shop", "db", hour(n)).run(seaworthy_model::receipt::ActKind::Verify);
        let retain = Retain::of(&plan, run, example::repository(), self.policy.in_force(), "x");
        self.seal(Act::Retain(Box::new(retain.clone())), hour(n));
        retain
    }

    fn step(&self, of: &Backup, n: i64) -> Option<Step> {
        self.decided(of, n).1
    }

    fn decided(&self, of: &Backup, n: i64) -> (Decision, Option<Step>) {
        let plan = self.plan(n);
        let one = plan.decisions.iter().find(|one| Some(&one.copy) == of.copy.as_ref()).unwrap();
        (one.decision.clone(), one.step)
    }
}

fn last(count: u32) -> RetentionSpec {
    RetentionSpec { last: Some(count), ..RetentionSpec::default() }
}

#[test]
fn a_mark_is_known_by_its_receipt_and_gone_with_the_next_that_takes_it_away() {
    let mut story = Story::new(last(1));
    let (old, _) = (story.backup(0), story.backup(1));
    assert_eq!(story.step(&old, 2), Some(Step::Mark));
    let marked = story.apply(2);
    assert_eq!((marked.kept, marked.marked.len(), marked.removing.len()), (1, 1, 0));
    assert_eq!(marked.marked[0].copy, old.copy.clone().unwrap());
    assert_eq!(story.step(&old, 25), Some(Step::Wait { since: hour(2) }));
    assert_eq!(story.apply(25).waiting, 1);
    assert_eq!(story.step(&old, 26), Some(Step::Delete { since: hour(2) }));
    // A hold that comes after the mark takes it away, and a new day begins when it has ended.
    let about = About::new("shop", "db", hour(26));
    let hold = story.seal(Act::Hold(example::hold(&about)), hour(26));
    assert_eq!(story.step(&old, 27), Some(Step::Unmark));
    let unmarked = story.apply(27);
    assert_eq!((unmarked.unmarked.len(), unmarked.removing.len()), (1, 0));
    assert!(unmarked.unmarked[0].why.contains("held: a dispute"), "{unmarked:?}");
    assert_eq!(story.step(&old, 28), None);
    story.seal(Act::Release(example::release(&about, hold)), hour(28));
    assert_eq!(story.step(&old, 28), Some(Step::Mark));
    story.apply(28);
    assert_eq!(story.step(&old, 40), Some(Step::Wait { since: hour(28) }));
}

#[test]
fn what_was_being_removed_is_owed_until_it_is_said_to_have_gone() {
    let mut story = Story::new(last(1));
    let (old, newer) = (story.backup(0), story.backup(1));
    story.apply(2);
    let removing = story.apply(26);
    assert_eq!(removing.removing.len(), 1);
    assert_eq!(removing.removing[0].newer.copy, newer.copy.clone().unwrap());
    let id = example::repository().id;
    let owed: Vec<CopyId> = story.ground.owed(&id).map(|point| point.copy.clone()).collect();
    assert_eq!(owed, [old.copy.clone().unwrap()]);
    assert_eq!(story.ground.expected(&id).count(), 1);
    // It lacks in the listing: until its receipt is there that is a doubt.
    story.copies.remove(old.copy.as_ref().unwrap());
    assert!(story.plan(27).suspended.iter().any(|one| one.rule == Rule::WholeListing));
    story.seal(Act::Gone(Box::new(example::gone(&old, 1))), hour(27));
    assert_eq!(story.ground.owed(&id).count(), 0);
    assert!(story.plan(28).suspended.is_empty());
    let source = SourceName::new("db").unwrap();
    let mut points = story.ground.points(&story.service.name, &source);
    let point = points.find(|point| Some(&point.copy) == old.copy.as_ref()).unwrap();
    assert!(
        point.mark.is_none() && matches!(point.standing, PointStanding::Gone { was_let_go: true, .. }),
        "{point:?}"
    );
}

#[test]
fn only_the_service_of_a_hold_can_end_it_and_a_point_is_held_everywhere() {
    let mut story = Story::new(last(1));
    let (old, _) = (story.backup(0), story.backup(1));
    let about = About::new("shop", "db", hour(2));
    let mut held = example::hold(&about);
    held.hold =
        Hold { thing: HeldThing::Capture(old.run.clone()), reason: "proof".to_owned(), until: Some(hour(9)) };
    let hold = story.seal(Act::Hold(held), hour(2));
    let is_held = |decision: Decision| matches!(decision, Decision::Keep(reasons) if reasons.contains(&Reason::Held("proof".to_owned())));
    assert!(is_held(story.decided(&old, 3).0));
    let other = About::new("other", "db", hour(3));
    story.seal(Act::Release(example::release(&other, hold)), hour(3));
    story.seal(Act::Release(example::release(&about, hold + 1)), hour(3));
    assert!(is_held(story.decided(&old, 3).0) && story.ground.holds().len() == 1);
    // It ends by itself.
    assert_eq!(story.step(&old, 9), Some(Step::Mark));
    story.seal(Act::Release(example::release(&about, hold)), hour(4));
    assert_eq!((story.step(&old, 5), story.ground.holds().len()), (Some(Step::Mark), 0));
}

#[test]
fn an_exchanged_policy_is_heeded_for_three_days_after_a_receipt_has_seen_the_new_one() {
    let mut story = Story::new(last(5));
    let old = story.backup(0);
    for n in 1..4 {
        story.backup(n);
    }
    story.apply(4);
    story.policy = RetentionPolicy::new(Some(last(3)), "UTC").unwrap();
    let cooling = |story: &Story, n| {
        matches!(story.decided(&old, n).0, Decision::Refused { rule: Rule::CoolingOff, .. })
    };
    // Nobody has seen the new one yet, however long ago it was written.
    assert!(cooling(&story, 5) && cooling(&story, 40));
    story.apply(6);
    assert!(cooling(&story, 7) && story.apply(8).refused[0].rule == Rule::CoolingOff);
    story.backup(77);
    assert!(cooling(&story, 77));
    assert!(!cooling(&story, 78), "{:?}", story.decided(&old, 78));
    // Back and forth is an exchange each time.
    story.policy = RetentionPolicy::new(Some(last(2)), "UTC").unwrap();
    story.apply(79);
    story.policy = RetentionPolicy::new(Some(last(3)), "UTC").unwrap();
    assert!(matches!(story.decided(&old, 80).0, Decision::Expire(_)));
}

#[test]
fn an_approval_is_of_one_plan_and_lets_all_of_it_go() {
    let mut story = Story::new(last(1));
    for n in 0..6 {
        story.backup(n);
    }
    let plan = story.plan(7);
    assert_eq!((plan.marks(hour(7)).len(), plan.awaiting_approval().count()), (1, 4));
    let about = About::new("shop", "db", hour(7));
    let mut approval = example::approve(&about);
    story.seal(Act::Approve(Box::new(approval.clone())), hour(7));
    assert_eq!(story.plan(7).marks(hour(7)).len(), 1, "it is of another plan");
    approval.plan = plan.digest();
    story.seal(Act::Approve(Box::new(approval)), hour(7));
    let approved = story.apply(8);
    assert_eq!((approved.marked.len(), approved.is_approved, approved.plan), (5, true, plan.digest()));
    assert_eq!(story.apply(33).removing.len(), 5);
}

/// What is decided of one replica alone, where it lies.
fn decided_there(story: &Story, replica: &Replicate, n: i64) -> Decision {
    let listed = BTreeSet::from([replica.copy.clone().unwrap()]);
    let plan = story.plan_of(&replica.repository.id, &listed, n);
    let one = plan.decisions.iter().find(|one| Some(&one.copy) == replica.copy.as_ref()).unwrap();
    one.decision.clone()
}

fn is_kept_for(decision: &Decision, reason: &Reason) -> bool {
    matches!(decision, Decision::Keep(reasons) if reasons.contains(reason))
}

#[test]
fn a_replica_of_a_copy_that_was_found_is_one_that_was_found() {
    let mut story = Story::new(last(1));
    let original = example::backup(&About::new("shop", "db", hour(0)), None);
    let found = story.seal(Act::Found(Box::new(example::found(&original))), hour(1));
    let replica = story.replicate(&original, found, 2);
    let decision = decided_there(&story, &replica, 3);
    assert!(is_kept_for(&decision, &Reason::FoundUnproven), "{decision:?}");
    // And so is a replica of that.
    let second = Replicate {
        from: replica.repository.clone(),
        original: replica.copy.clone().unwrap(),
        repository: RepositoryRef { id: RepositoryId("3".repeat(64)), ..replica.repository.clone() },
        copy: Some(example::copy_id("the replica's replica")),
        ..replica.clone()
    };
    story.seal(Act::Replicate(Box::new(second.clone())), hour(3));
    assert!(is_kept_for(&decided_there(&story, &second, 4), &Reason::FoundUnproven));
    // One whose making was seen is none.
    let made = story.backup(4);
    let replica = story.replicate(&made, 4, 5);
    let decision = decided_there(&story, &replica, 6);
    assert!(!is_kept_for(&decision, &Reason::FoundUnproven), "{decision:?}");
}

#[test]
fn a_replica_of_a_copy_of_an_unknown_age_is_of_an_unknown_age() {
    let mut story = Story::new(last(1));
    let ahead = story.backup(9_000);
    story.backup(2);
    let replica = story.replicate(&ahead, 1, 3);
    let decision = decided_there(&story, &replica, 4);
    assert!(is_kept_for(&decision, &Reason::Doubted), "{decision:?}");
    let sure = story.backup(4);
    let replica = story.replicate(&sure, 4, 5);
    assert!(!is_kept_for(&decided_there(&story, &replica, 6), &Reason::Doubted));
}

#[test]
fn a_capture_that_is_shown_to_be_wrong_is_bad_in_every_repository() {
    let mut story = Story::new(last(7));
    let pairs: Vec<(Backup, Replicate)> = (0..8)
        .map(|n| {
            let backup = story.backup(n);
            let replica = story.replicate(&backup, story.sequence, n);
            (backup, replica)
        })
        .collect();
    let place = pairs[0].1.repository.id.clone();
    let listed: BTreeSet<CopyId> = pairs.iter().filter_map(|(_, replica)| replica.copy.clone()).collect();
    let of_first = |story: &Story| {
        let plan = story.plan_of(&place, &listed, 9);
        plan.decisions.into_iter().find(|one| Some(&one.copy) == pairs[0].1.copy.as_ref()).unwrap().decision
    };
    assert!(matches!(of_first(&story), Decision::Expire(_)), "the premise: without a drill it goes");
    let about = |n| About::new("shop", "db", hour(n));
    // Damage of stored bytes is one copy's own.
    let mut damaged = example::failed_drill(&about(8), None, &pairs[7].0, None);
    damaged.findings = vec![Finding::new(FindingCode::ObjectDamaged, "pack", "its SHA-256 is not its name")];
    story.seal(Act::Drill(Box::new(damaged)), hour(8));
    assert!(matches!(of_first(&story), Decision::Expire(_)));
    for (original, _) in &pairs[1..] {
        let drill = example::failed_drill(&about(8), None, original, None);
        assert_eq!(drill.findings[0].code, FindingCode::RowCount);
        story.seal(Act::Drill(Box::new(drill)), hour(8));
    }
    assert!(!matches!(of_first(&story), Decision::Expire(_)), "{:?}", of_first(&story));
    // Nor does it go when the originals that showed it have gone.
    for (original, _) in &pairs[1..] {
        story.seal(Act::Gone(Box::new(example::gone(original, 1))), hour(8));
    }
    assert!(!matches!(of_first(&story), Decision::Expire(_)), "{:?}", of_first(&story));
    // A restore of the replica that works answers it, of that capture.
    for (original, replica) in &pairs[1..] {
        let (repository, copy) = (replica.repository.clone(), replica.copy.clone());
        let there = Backup { repository, copy, ..original.clone() };
        story.seal(Act::Drill(Box::new(example::drill(&about(8), None, &there, None))), hour(8));
    }
    assert!(matches!(of_first(&story), Decision::Expire(_)), "{:?}", of_first(&story));
}

#[test]
fn what_a_clock_that_ran_ahead_has_dated_is_kept_and_stops_nothing_once_it_is_set_right() {
    let mut story = Story::new(last(1));
    let old = story.backup(0);
    let ahead = story.backup(9_000);
    assert!(story.plan(2).suspended.iter().any(|one| one.rule == Rule::BelievedClock));
    // Set right: what is dated in the future is of an unknown age, and what came before and after is not.
    story.backup(2);
    let plan = story.plan(3);
    assert!(plan.suspended.is_empty(), "{:?}", plan.suspended);
    assert!(
        matches!(&story.decided(&ahead, 3).0, Decision::Keep(reasons) if reasons.contains(&Reason::Doubted))
    );
    assert_eq!(story.step(&old, 3), Some(Step::Mark));
    assert_eq!(plan.stuck().count(), 1);
}
