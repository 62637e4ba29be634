//! Years of an estate in seconds, with everything that happens to one: schedules in many time zones, outages, tools that lie,
//! media that rot, people who delete, processes that die, clocks that step, keys that change. What is simulated is the world;
//! runs, verdicts, receipts, points and judgements are the product's own. After every event the claims are compared with the
//! truth, which the product cannot see.
//!
//! One seed is one estate. `SEAWORTHY_SEED`, `SEAWORTHY_SEEDS`, `SEAWORTHY_YEARS` and `SEAWORTHY_SERVICES` choose;
//! `cargo xtask simulate` is the long form.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]

mod oracle;
mod world;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seaworthy_catalog::{Catalog as _, OpenMode, PointQuery, SqliteCatalog};
use seaworthy_engine::act::survey::Survey;
use seaworthy_engine::{BackupDone, BackupRequest, DrillJob, Executor, KnownPlace, Notary, Runner, Subject};
use seaworthy_interface::{Captured, Cx, DriverError, ErrorKind};
use seaworthy_model::assess::{Facts, Policy, ServiceAssessment, SourceHistory, Standing, assess};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::{Finding, FindingCode, Severity};
use seaworthy_model::id::{CheckName, CopyId, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use seaworthy_model::ledger::{Known, verify_chain};
use seaworthy_model::objective::{Objective, RecoveryObjective};
use seaworthy_model::point::{PointRule, RecoveryPoint, select};
use seaworthy_model::receipt::{
    Act, Found, KeyChange, Outcome, RepositoryRef, Seed, SourceRef, VerifiedCopy, Verify,
};
use seaworthy_model::service::ScheduleSpec;
use seaworthy_model::signature::{Envelope, SigningKey, TrustedKeys, sha256};
use seaworthy_model::verdict::{Assurance, Verdict};
use seaworthy_testkit::estate::Dice;
use tokio_util::sync::CancellationToken;

use crate::oracle::{Happened, KnownCopy, STEP, Story, When, name};
use crate::world::{Double, Harm, Pages, Place, Reader, Stored, WallClock, Weather, witness};

/// Where the schedules' wall clocks hang: with and without summer time, of half an hour too, and one that lost a day.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "UTC",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "Africa/Casablanca",
];

/// Longest drill.
const DEADLINE: Duration = Duration::from_secs(6 * 3600);

struct ServiceSim {
    name: ServiceName,
    policy: Policy,
    sources: Vec<usize>,
}

struct SourceSim {
    service: usize,
    name: SourceName,
    checks: Vec<UserCheck>,
    backups: ScheduleSpec,
    drills: ScheduleSpec,
    story: Story,
    /// Until then nothing that is due is done.
    asleep_until: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Backup(usize),
    Drill(usize),
    Rot,
    Delete,
    Survey(usize),
    Verify(usize),
    Rotate,
    Step,
    Jump,
    JumpBack,
    Sleep,
    Vanish(usize),
    Return(usize),
    Checkpoint,
}

struct Estate {
    seed: u64,
    dice: Dice,
    clock: Arc<WallClock>,
    pages: Arc<Pages>,
    genesis: TrustedKeys,
    keys: u8,
    runner: Runner,
    services: Vec<ServiceSim>,
    sources: Vec<SourceSim>,
    places: Arc<Mutex<Vec<Place>>>,
    /// What a place held before it seemed to be empty.
    hidden: [Vec<Stored>; 2],
    /// Copies that were ever made.
    made: u64,
    queue: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    tie: u64,
    counts: BTreeMap<&'static str, u64>,
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_random(&[number; 32])
}

fn runner(pages: &Arc<Pages>, clock: &Arc<WallClock>, number: u8) -> Runner {
    let clock = Arc::clone(clock);
    let ledger: Arc<Pages> = Arc::clone(pages);
    let executor = Executor {
        name: "backup@host".to_owned(),
        host: "host".to_owned(),
        program: "seaworthy 0.1.0".to_owned(),
    };
    Runner::with_clock(Notary::new(ledger, Arc::new(key(number))), executor, Arc::new(move || clock.now()))
}

fn place_of(place: usize) -> RepositoryRef {
    RepositoryRef {
        id: RepositoryId(format!("{place:064x}")),
        name: RepositoryName::new(format!("vault-{place}")).unwrap(),
        medium: None,
        site: None,
    }
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

impl Estate {
    fn new(seed: u64, services: usize) -> Self {
        let mut dice = Dice::new(seed);
        let clock = Arc::new(WallClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let pages = Arc::new(Pages::default());
        let mut estate = Self {
            seed,
            runner: runner(&pages, &clock, 1),
            genesis: TrustedKeys::of([key(1).public()]),
            keys: 1,
            clock,
            pages,
            services: Vec::new(),
            sources: Vec::new(),
            places: Arc::new(Mutex::new(vec![Place::default(), Place::default()])),
            hidden: Default::default(),
            made: 0,
            queue: BinaryHeap::new(),
            tie: 0,
            counts: BTreeMap::new(),
            dice: Dice::new(0),
        };
        for service in 0..services {
            let hours = SignedDuration::from_hours;
            let mut sources = Vec::new();
            for part in 0..1 + dice.below(2) {
                sources.push(estate.sources.len());
                let zone = ZONES[usize::try_from(dice.below(ZONES.len() as u64)).unwrap()].to_owned();
                let check = UserCheck {
                    name: CheckName::new("bookings").unwrap(),
                    question: Question::MinimumRows { table: "booking".to_owned(), rows: 1 },
                    timeout: SignedDuration::from_secs(60),
                };
                let (hour, minute) = (dice.below(24), dice.below(60));
                estate.sources.push(SourceSim {
                    service,
                    name: SourceName::new(format!("source-{part}")).unwrap(),
                    checks: if dice.below(2) == 0 { vec![check] } else { Vec::new() },
                    backups: ScheduleSpec { cron: format!("{minute} {hour} * * *"), zone: zone.clone() },
                    drills: ScheduleSpec { cron: format!("30 {hour} * * {}", dice.below(7)), zone },
                    story: Story::default(),
                    asleep_until: Timestamp::MIN,
                });
            }
            let rpo = if dice.below(4) == 0 {
                Objective::NotApplicable
            } else {
                Objective::Within(hours(25 + i64::try_from(dice.below(30)).unwrap()))
            };
            estate.services.push(ServiceSim {
                name: ServiceName::new(format!("service-{service}")).unwrap(),
                policy: Policy {
                    objective: RecoveryObjective { rpo, rto: Objective::Within(hours(2)) },
                    stale_after: hours(26 + i64::try_from(dice.below(48)).unwrap()),
                    proof_valid: hours(24 * (8 + i64::try_from(dice.below(30)).unwrap())),
                },
                sources,
            });
        }
        estate.dice = dice;
        for source in 0..estate.sources.len() {
            estate.schedule(Event::Backup(source));
            estate.schedule(Event::Drill(source));
        }
        for event in [
            Event::Rot,
            Event::Delete,
            Event::Survey(0),
            Event::Survey(1),
            Event::Verify(0),
            Event::Verify(1),
            Event::Rotate,
            Event::Step,
            Event::Jump,
            Event::Sleep,
            Event::Vanish(0),
            Event::Vanish(1),
            Event::Checkpoint,
        ] {
            estate.schedule(event);
        }
        estate
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Whether what happens so many times in a thousand happens now.
    fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.dice.below(1_000) < in_a_thousand
    }

    fn within(&mut self, span: Duration) -> Duration {
        Duration::from_secs(self.dice.below(span.as_secs().max(1)))
    }

    /// Puts the next event of a kind into the queue.
    fn schedule(&mut self, event: Event) {
        let days = |dice: &mut Dice, mean: u64| {
            SignedDuration::from_hours(i64::try_from(1 + dice.below(mean * 48)).unwrap())
        };
        let now = self.clock.now();
        let on_the_wall = match event {
            Event::Backup(source) => self.sources[source].backups.next_after(now).unwrap(),
            Event::Drill(source) => self.sources[source].drills.next_after(now).unwrap(),
            Event::Rot => now + days(&mut self.dice, 10),
            Event::Delete => now + days(&mut self.dice, 30),
            Event::Survey(_) | Event::Verify(_) => now + days(&mut self.dice, 30),
            Event::Rotate => now + days(&mut self.dice, 300),
            Event::Step => now + days(&mut self.dice, 30),
            Event::Jump => now + days(&mut self.dice, 240),
            Event::JumpBack | Event::Return(_) => now + days(&mut self.dice, 2),
            Event::Sleep => now + days(&mut self.dice, 60),
            Event::Vanish(_) => now + days(&mut self.dice, 200),
            Event::Checkpoint => now + SignedDuration::from_hours(24 * 182),
        };
        self.tie += 1;
        self.queue.push(Reverse((on_the_wall - self.clock.skew(), self.tie, event)));
    }

    fn subject(&self, source: usize, double: &Double) -> Subject {
        let one = &self.sources[source];
        let service = &self.services[one.service].name;
        Subject {
            service: service.clone(),
            source: one.name.clone(),
            kind: "sqlite".to_owned(),
            driver: Arc::new(double.clone()),
            paths: vec![format!("/{service}/{}", one.name)],
        }
    }

    fn source_of(&self, of: &SourceRef) -> usize {
        (0..self.sources.len())
            .find(|source| {
                let one = &self.sources[*source];
                one.name == of.source && self.services[one.service].name == of.service
            })
            .unwrap()
    }

    fn points(&self, wanted: impl Fn(&RecoveryPoint) -> bool) -> Vec<RecoveryPoint> {
        self.pages.kept.lock().unwrap().facts.points.values().filter(|point| wanted(point)).cloned().collect()
    }

    fn tell(&mut self, source: usize, happened: Happened) {
        self.sources[source].story.told.push(happened);
    }

    fn now(&self) -> When {
        When { wall: self.clock.now(), truth: self.clock.truth() }
    }

    /// A step of the clock in the middle of a run: of seconds, or of days until it is set right.
    fn steps_to(&mut self) -> Option<i64> {
        let is_jumping = self.clock.skew().abs() > STEP;
        if is_jumping || !self.happens(5) {
            return None;
        }
        self.count("clock changes in the middle of a run");
        if self.happens(800) {
            return Some(i64::try_from(self.dice.below(100)).unwrap() - 50);
        }
        self.schedule(Event::JumpBack);
        Some((1 + i64::try_from(self.dice.below(40)).unwrap()) * 86_400)
    }

    async fn commit(&self, act: &Act) -> (u64, Timestamp) {
        let receipt = self.runner.notary().commit(act, self.clock.now()).await.unwrap();
        (receipt.sequence, receipt.at)
    }

    /// What the next start does after a process has died.
    async fn heal(&mut self) {
        let histories: Vec<SourceHistory> =
            self.pages.kept.lock().unwrap().facts.histories.values().cloned().collect();
        for history in histories {
            let source = self
                .source_of(&SourceRef { service: history.service.clone(), source: history.source.clone() });
            for abandoned in history.cut_off() {
                let act = abandoned.act;
                self.commit(&Act::Abandoned(abandoned)).await;
                self.tell(source, Happened::Abandoned { act });
            }
        }
        let kept = self.pages.kept.lock().unwrap();
        assert!(kept.facts.histories.values().all(|history| history.open.is_empty()));
    }

    async fn back_up(&mut self, source: usize) {
        let place = usize::try_from(self.dice.below(5) / 4).unwrap();
        let is_out = self.happens(20);
        let is_complete = !self.happens(10);
        let is_future_dated = self.happens(2);
        let lie = self.happens(15).then(|| Harm::LIES[usize::try_from(self.dice.below(3)).unwrap()]);
        let takes = minutes(5) + self.within(minutes(40));
        let dies_after = match (self.happens(15), self.happens(500)) {
            (false, _) => None,
            (true, false) => Some(self.within(takes)),
            // Between the copy and its receipt.
            (true, true) => Some(takes + Duration::from_millis(500)),
        };
        if self.happens(20) {
            self.pages.contention.store(1 + self.dice.below(3), Ordering::SeqCst);
        }
        let copy = CopyId(sha256(&self.dice.roll().to_le_bytes()).0.trim_start_matches("sha256:").to_owned());
        let (clock, places) = (Arc::clone(&self.clock), Arc::clone(&self.places));
        let steps_to = self.steps_to();
        self.made += 1;
        let made = self.made;
        let act = async |request: &BackupRequest| {
            if is_out {
                return Err(DriverError::new(ErrorKind::Unreachable, "connect"));
            }
            let now = clock.now();
            let point = if is_future_dated { now + SignedDuration::from_hours(24 * 40) } else { now };
            let truth = witness(
                100 + u64::try_from(now.as_second()).unwrap() / 3600,
                u128::from(Dice::new(u64::try_from(now.as_second()).unwrap()).roll()),
            );
            let truth_at = clock.truth();
            tokio::time::sleep(takes / 2).await;
            if let Some(seconds) = steps_to {
                clock.set_skew(seconds);
            }
            tokio::time::sleep(takes - takes / 2).await;
            let stored = Stored {
                copy: copy.clone(),
                source,
                run: request.run.clone(),
                made,
                point,
                truth: truth_at,
                finished: clock.now(),
                done: clock.truth(),
                is_complete,
                witness: truth.clone(),
                harm: lie,
            };
            let digest = stored.witness_digest();
            places.lock().unwrap()[place].copies.push(stored);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(BackupDone {
                copy: copy.clone(),
                captured: Captured {
                    point,
                    witness: truth,
                    findings: Vec::new(),
                    is_complete,
                    size_bytes: 4096,
                    witness_took: Duration::ZERO,
                    released: None,
                },
                witness: digest,
                read_bytes: 4096,
                added_bytes: 4096,
                stored_bytes: 2048,
                items: 1,
                phases: Vec::new(),
            })
        };
        let clock = Arc::clone(&self.clock);
        let double = Double { weather: Weather::default(), stored: None, clock, steps_to: None };
        let subject = self.subject(source, &double);
        let cx = Cx::unbounded();
        let sealed = {
            let running = self.runner.backup_by(&cx, &subject, place_of(place), KnownPlace::default(), act);
            tokio::select! {
                biased;
                sealed = running => Some(sealed.unwrap()),
                () = tokio::time::sleep(dies_after.unwrap_or_default()), if dies_after.is_some() => None,
            }
        };
        let Some(sealed) = sealed else {
            self.count("backups killed");
            return self.heal().await;
        };
        let wanted = match (is_out, is_complete) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Complete,
            (false, false) => Outcome::Incomplete,
        };
        assert_eq!(sealed.body.outcome, wanted, "seed {}", self.seed);
        let is_clean = wanted == Outcome::Complete;
        self.tell(source, Happened::BackedUp { is_clean });
        if is_clean {
            self.count("complete backups");
            let stored =
                self.places.lock().unwrap()[place].copies.iter().rfind(|one| one.made == made).cloned();
            let stored = stored.unwrap();
            // A copy that the source dates after its receipt is taken to be as old as the start of its run.
            let ended = sealed.body.finished.min(sealed.receipt.at);
            let is_future_dated = stored.point.duration_since(ended) > STEP;
            let wall = if is_future_dated {
                sealed.body.started.min(sealed.receipt.at)
            } else {
                stored.point.min(ended)
            };
            self.tell(
                source,
                Happened::Known(KnownCopy {
                    place,
                    copy: name(&copy),
                    made,
                    point: When { wall, truth: stored.truth },
                    finished: When { wall: sealed.body.finished, truth: stored.done },
                    is_future_dated,
                    was_found: false,
                }),
            );
        } else {
            self.count("backups that failed or are incomplete");
            if sealed.body.copy.is_some() {
                self.tell(source, Happened::Part { copy: name(&copy), made });
            }
        }
    }

    /// What a drill of this copy must come to.
    fn truth_of(&self, source: usize, stored: Option<&Stored>, weather: &Weather) -> Verdict {
        let has_checks = !self.sources[source].checks.is_empty();
        let harm = match stored {
            _ if weather.no_sandbox => return Verdict::Inconclusive,
            None => return Verdict::Fail,
            Some(stored) => stored.harm,
        };
        match harm {
            Some(Harm::OtherWitness) => return Verdict::Fail,
            _ if weather.takes >= DEADLINE => return Verdict::Inconclusive,
            Some(Harm::Unreadable | Harm::RestUnreadable) => return Verdict::Fail,
            _ if has_checks && weather.question_fails => return Verdict::Fail,
            Some(_) if !weather.engine_is_gone => return Verdict::Fail,
            _ if weather.is_foul() => return Verdict::Inconclusive,
            Some(_) => return Verdict::Inconclusive,
            None => {}
        }
        let is_fast = weather.takes <= minutes(120);
        Verdict::Pass(if has_checks && is_fast { Assurance::A5 } else { Assurance::A4 })
    }

    async fn drill(&mut self, source: usize) {
        let now = self.clock.now();
        let place = usize::try_from(self.dice.below(5) / 4).unwrap();
        let (service, name) = {
            let one = &self.sources[source];
            (self.services[one.service].name.clone(), one.name.clone())
        };
        let here = place_of(place);
        let points = self.points(|point| {
            (&point.service, &point.source, &point.repository.id) == (&service, &name, &here.id)
        });
        let rule = match self.dice.below(10) {
            0 => PointRule::LatestProven,
            1..4 => PointRule::Random {
                within: SignedDuration::from_hours(24 * 30),
                seed: Seed(self.dice.roll()),
            },
            _ => PointRule::Latest,
        };
        let Ok(selected) = select(&points, &rule, now) else {
            self.count("drills without a point");
            return;
        };
        let point = selected.point.clone();
        assert!(point.outcome == Outcome::Complete && !point.is_gone());
        let stored =
            self.places.lock().unwrap()[place].copies.iter().find(|one| one.copy == point.copy).cloned();
        let mut weather = Weather { takes: minutes(2) + self.within(minutes(50)), ..Weather::default() };
        if self.happens(20) {
            weather.takes = minutes(110) + self.within(minutes(60 * 6));
        }
        weather.no_sandbox = self.happens(10);
        weather.teardown_fails = self.happens(5);
        weather.is_blind = self.happens(5);
        weather.engine_is_gone = self.happens(10);
        weather.question_fails = self.happens(5);
        let dies_after = self.happens(15).then(|| self.within(weather.takes));
        let stops_after = self.happens(5).then(|| self.within(weather.takes));

        // As the product reads a copy's witness: it must be there, and the one that the receipt names.
        let (known, findings) = match &stored {
            None => (None, vec![Finding::new(FindingCode::ObjectMissing, "witness", "not there")]),
            Some(stored) if stored.harm == Some(Harm::OtherWitness) => {
                (None, vec![Finding::new(FindingCode::WitnessNotOurs, "witness", "another one")])
            }
            Some(stored) => {
                let digest = stored.witness_digest();
                assert_eq!(point.witness.as_ref(), Some(&digest));
                (Some((stored.witness.clone(), digest)), Vec::new())
            }
        };
        let token = CancellationToken::new();
        let cx = Cx::new(token.clone(), Arc::new(|_| {}));
        let steps_to = self.steps_to();
        let clock = Arc::clone(&self.clock);
        let double = Double { weather: weather.clone(), stored: stored.clone(), clock, steps_to };
        let one = &self.sources[source];
        let reader = stored.clone().unwrap_or_else(|| Stored {
            copy: point.copy.clone(),
            source,
            run: RunId("none".to_owned()),
            made: 0,
            point: point.point,
            truth: point.point,
            finished: point.finished,
            done: point.finished,
            is_complete: true,
            witness: witness(1, 1),
            harm: None,
        });
        let policy = self.services[one.service].policy;
        let job = DrillJob {
            onward: None,
            copy: point.copy.clone(),
            backup: Some(point.sequence),
            point: point.point,
            selection: selected.selection,
            witness: known,
            witness_findings: findings,
            checks: one.checks.clone(),
            objective: policy.objective,
            deadline: DEADLINE,
            needed_bytes: 4096,
            source_identity: Some("live".to_owned()),
            reader: Arc::new(Reader(reader)),
            control_seed: self.dice.roll(),
            doubts_checks: false,
            next_due: one.drills.next_after(now),
            proof_valid: policy.proof_valid,
        };
        let subject = self.subject(source, &double);
        let stop = async {
            tokio::time::sleep(stops_after.unwrap_or_default()).await;
            token.cancel();
            std::future::pending::<()>().await;
        };
        let sealed = tokio::select! {
            biased;
            sealed = self.runner.drill(&cx, &subject, &double, here, job) => Some(sealed.unwrap()),
            () = tokio::time::sleep(dies_after.unwrap_or_default()), if dies_after.is_some() => None,
            () = stop, if stops_after.is_some() => None,
        };
        let Some(sealed) = sealed else {
            self.count("drills killed");
            return self.heal().await;
        };
        let truth = self.truth_of(source, stored.as_ref(), &weather);
        let verdict = sealed.body.verdict;
        let is_cut = token.is_cancelled() && verdict == Verdict::Inconclusive;
        assert!(
            is_cut || verdict == truth,
            "seed {}: {verdict:?} of {:?} in {weather:?}, in truth {truth:?}\n{:#?}",
            self.seed,
            stored.map(|stored| stored.harm),
            sealed.body
        );
        let copy = oracle::name(&point.copy);
        match verdict {
            Verdict::Pass(level) => {
                self.count("drills passed");
                let rto_ms = u64::try_from(weather.takes.as_millis()).unwrap();
                let wall = sealed.body.finished.min(sealed.receipt.at);
                let at = When { wall, truth: self.clock.truth() };
                self.tell(source, Happened::Proven { copy, level, at, rto_ms });
            }
            Verdict::Fail => {
                self.count("drills failed");
                self.tell(source, Happened::Bad { copy, by_drill: true });
            }
            Verdict::Inconclusive => {
                self.count(if is_cut { "drills stopped" } else { "drills undecided" });
                self.tell(source, Happened::Undecided);
            }
        }
    }

    /// Media lose bits, or somebody edits what lies there.
    fn rot(&mut self) {
        let mut places = self.places.lock().unwrap();
        let place = &mut places[usize::try_from(self.dice.below(2)).unwrap()];
        // The newest ones are those that somebody looks at.
        let span = u64::try_from(place.copies.len().min(30)).unwrap();
        if span == 0 {
            return;
        }
        let index = place.copies.len() - 1 - usize::try_from(self.dice.below(span)).unwrap();
        let harm = Harm::ROT[usize::try_from(self.dice.below(3)).unwrap()];
        place.copies[index].harm.get_or_insert(harm);
        drop(places);
        self.count("copies that rot");
    }

    /// Somebody removes what is old; now and then what is not, and once in a while everything.
    fn delete(&mut self) {
        let now = self.clock.now();
        let (place, source) = (
            usize::try_from(self.dice.below(2)).unwrap(),
            usize::try_from(self.dice.below(self.sources.len() as u64)).unwrap(),
        );
        let what = self.dice.below(20);
        let mut places = self.places.lock().unwrap();
        let before: usize = places.iter().map(|place| place.copies.len()).sum();
        match what {
            0 => places.iter_mut().for_each(|place| place.copies.retain(|one| one.source != source)),
            1 | 2 => {
                let newest = places[place].copies.iter().rposition(|one| one.source == source);
                if let Some(newest) = newest {
                    places[place].copies.remove(newest);
                }
            }
            _ => {
                let keep = SignedDuration::from_hours(24 * 40);
                places[place].copies.retain(|one| now.duration_since(one.finished) <= keep);
            }
        }
        let after: usize = places.iter().map(|place| place.copies.len()).sum();
        drop(places);
        *self.counts.entry("copies deleted").or_default() += u64::try_from(before - after).unwrap();
    }

    /// `catalogue rebuild`: what lies in a repository, against what is known of it.
    async fn survey(&mut self, place: usize) {
        let here = place_of(place);
        let before = self.points(|point| point.repository.id == here.id);
        let lying: Vec<Stored> = self.places.lock().unwrap()[place].copies.clone();
        let survey =
            Survey { present: lying.iter().map(|one| one.copy.clone()).collect(), ..Survey::default() };
        for stored in &lying {
            if before.iter().any(|point| point.copy == stored.copy && !point.is_gone()) {
                continue;
            }
            let one = &self.sources[stored.source];
            let found = Found {
                service: self.services[one.service].name.clone(),
                source: one.name.clone(),
                run: stored.run.clone(),
                repository: here.clone(),
                copy: stored.copy.clone(),
                point: stored.point,
                finished: stored.finished,
                outcome: if stored.is_complete { Outcome::Complete } else { Outcome::Incomplete },
                restore_bytes: 4096,
                stored_bytes: 2048,
                witness: Some(stored.witness_digest()),
                source_identity: None,
                executor: "x".to_owned(),
            };
            let (_, at) = self.commit(&Act::Found(Box::new(found))).await;
            self.count("copies found");
            if stored.is_complete {
                let wall = stored.point.min(stored.finished).min(at);
                let happened = Happened::Known(KnownCopy {
                    place,
                    copy: name(&stored.copy),
                    made: stored.made,
                    point: When { wall, truth: stored.truth },
                    finished: When { wall: stored.finished.min(at), truth: stored.done },
                    is_future_dated: stored.point.duration_since(wall) > STEP,
                    was_found: true,
                });
                self.tell(stored.source, happened);
            } else {
                self.tell(stored.source, Happened::Part { copy: name(&stored.copy), made: stored.made });
            }
        }
        for gone in survey.gone(&here, &before, &self.points(|_| true), "x") {
            let source =
                self.source_of(&SourceRef { service: gone.service.clone(), source: gone.source.clone() });
            let copy = name(&gone.copy);
            self.commit(&Act::Gone(Box::new(gone))).await;
            self.count("copies gone");
            self.tell(source, Happened::Gone { place, copy });
        }
        let known: BTreeSet<CopyId> = self
            .points(|point| point.repository.id == here.id && !point.is_gone())
            .into_iter()
            .map(|point| point.copy)
            .collect();
        assert_eq!(known, survey.present, "seed {}: what is known is not what is there", self.seed);
    }

    /// `check --read-data`: every byte of a repository.
    async fn verify(&mut self, place: usize) {
        let here = place_of(place);
        let started = self.clock.now();
        tokio::time::sleep(minutes(30)).await;
        let points = self.points(|point| point.repository.id == here.id && !point.is_gone());
        let lying: BTreeMap<CopyId, Option<Harm>> = self.places.lock().unwrap()[place]
            .copies
            .iter()
            .map(|one| (one.copy.clone(), one.harm))
            .collect();
        let mut copies = Vec::new();
        let mut bad: Vec<(usize, u64)> = Vec::new();
        let mut good: BTreeSet<usize> = BTreeSet::new();
        for point in points {
            let Some(harm) = lying.get(&point.copy) else { continue };
            let of = SourceRef { service: point.service.clone(), source: point.source.clone() };
            let source = self.source_of(&of);
            let intact = !harm.is_some_and(Harm::is_in_the_bytes);
            if intact {
                good.insert(source);
            } else {
                bad.push((source, name(&point.copy)));
            }
            copies.push(VerifiedCopy {
                copy: point.copy,
                of: Some(of),
                backup: Some(point.sequence),
                point: point.point,
                intact,
            });
        }
        if copies.is_empty() {
            return;
        }
        let findings = match bad.is_empty() {
            true => Vec::new(),
            false => vec![Finding::new(FindingCode::ObjectDamaged, "pack", "its SHA-256 is not its name")],
        };
        let finished = self.clock.now();
        let run = RunId(format!("verify-{}", self.dice.roll()));
        let act = Verify {
            run,
            due: None,
            repository: here,
            copies,
            read_percent: 100,
            read_bytes: 4096,
            started,
            finished,
            outcome: Outcome::Complete,
            findings,
            executor: "x".to_owned(),
        };
        let (_, at) = self.commit(&Act::Verify(Box::new(act))).await;
        self.count("repositories read");
        for source in good {
            let at = When { wall: finished.min(at), truth: self.clock.truth() };
            self.tell(source, Happened::Intact { at });
        }
        for (source, copy) in bad {
            self.count("copies read and damaged");
            self.tell(source, Happened::Bad { copy, by_drill: false });
        }
    }

    async fn rotate(&mut self) {
        let (old, new) = (key(self.keys), key(self.keys + 1));
        let change = KeyChange {
            introduces: new.public().id(),
            public_key: new.public().to_pem(),
            retires: Some(old.public().id()),
            reason: "yearly rotation".to_owned(),
        };
        self.commit(&Act::KeyChange(change)).await;
        self.keys += 1;
        self.runner = runner(&self.pages, &self.clock, self.keys);
        self.count("keys changed");
    }

    async fn step(&mut self, event: Event) {
        match event {
            Event::Backup(source) | Event::Drill(source)
                if self.clock.truth() < self.sources[source].asleep_until =>
            {
                self.count("runs that nobody began");
            }
            Event::Backup(source) => self.back_up(source).await,
            Event::Drill(source) => self.drill(source).await,
            Event::Rot => self.rot(),
            Event::Delete => {
                self.delete();
                if self.happens(500) {
                    self.survey(0).await;
                    self.survey(1).await;
                }
            }
            Event::Sleep => {
                let source = usize::try_from(self.dice.below(self.sources.len() as u64)).unwrap();
                let days = i64::try_from(1 + self.dice.below(60)).unwrap();
                self.sources[source].asleep_until =
                    self.clock.truth() + SignedDuration::from_hours(24 * days);
            }
            Event::Vanish(place) => {
                let copies = std::mem::take(&mut self.places.lock().unwrap()[place].copies);
                self.hidden[place].extend(copies);
                self.survey(place).await;
                self.schedule(Event::Return(place));
                self.count("places that seemed to be empty");
            }
            Event::Return(place) => {
                let mut copies = std::mem::take(&mut self.hidden[place]);
                {
                    let mut places = self.places.lock().unwrap();
                    copies.append(&mut places[place].copies);
                    places[place].copies = copies;
                }
                self.survey(place).await;
            }
            Event::Survey(place) => self.survey(place).await,
            Event::Verify(place) => self.verify(place).await,
            Event::Rotate => self.rotate().await,
            Event::Step => {
                let seconds = i64::try_from(self.dice.below(100)).unwrap() - 50;
                let is_jumping = self.clock.skew().as_secs().abs() > 120;
                if !is_jumping {
                    self.clock.set_skew(seconds);
                }
                self.count("clock steps");
            }
            Event::Jump => {
                let days = 1 + i64::try_from(self.dice.below(60)).unwrap();
                self.clock.set_skew(days * 86_400);
                self.count("clock jumps");
                self.schedule(Event::JumpBack);
            }
            Event::JumpBack => {
                self.clock.set_skew(0);
                // What was put off to a day that now is far away comes due again.
                let queue: Vec<_> = std::mem::take(&mut self.queue).into_vec();
                for Reverse((_, _, event)) in queue {
                    self.schedule(event);
                }
            }
            Event::Checkpoint => self.checkpoint(),
        }
    }

    /// The ledger is whole, and what was folded receipt by receipt is what all of it says.
    fn checkpoint(&mut self) {
        let kept = self.pages.kept.lock().unwrap();
        let known = Known { after: None, head: kept.head.clone() };
        let report = verify_chain(&kept.envelopes, &self.genesis, &known);
        // Only where the clock was wrong for more than a moment.
        let has_jumped = ["clock jumps", "clock changes in the middle of a run"]
            .iter()
            .any(|what| self.counts.get(what).is_some_and(|times| *times > 0));
        let backwards = |finding: &&Finding| !has_jumped || finding.code != FindingCode::ClockSkew;
        assert_eq!(report.findings.iter().filter(backwards).collect::<Vec<_>>(), Vec::<&Finding>::new());
        assert!(report.is_sound() && report.open.is_empty(), "seed {}: {:?}", self.seed, report.findings);
        let receipts: Vec<_> = kept
            .envelopes
            .iter()
            .map(|envelope| seaworthy_model::receipt::read_unverified(envelope).unwrap())
            .collect();
        assert_eq!(Facts::of(&receipts), kept.facts, "seed {}", self.seed);

        // Whoever touches it is found.
        let mut touched: Vec<Envelope> = kept.envelopes.clone();
        let index = usize::try_from(self.dice.below(touched.len() as u64)).unwrap();
        match self.dice.below(5) {
            0 => {
                touched.remove(index);
            }
            1 => {
                let twice = touched[index].clone();
                touched.insert(index, twice);
            }
            2 => touched.truncate(index),
            3 => {
                let payload = touched[index].payload_unverified().unwrap();
                touched[index] = Envelope::sign(&payload, &key(200));
            }
            _ => {
                let payload = String::from_utf8(touched[index].payload_unverified().unwrap()).unwrap();
                let later = payload.replacen("\"at\":\"20", "\"at\":\"21", 1);
                assert_ne!(later, payload);
                let signatures = touched[index].signatures.clone();
                touched[index] = Envelope::sign(later.as_bytes(), &key(1));
                touched[index].signatures = signatures;
            }
        }
        assert!(!verify_chain(&touched, &self.genesis, &known).is_sound(), "seed {}", self.seed);
        drop(kept);
        self.count("ledgers verified whole");
        self.count("ledgers touched and found out");
    }

    fn judged(&self, service: usize, now: Timestamp) -> ServiceAssessment {
        let one = &self.services[service];
        let kept = self.pages.kept.lock().unwrap();
        let histories: Vec<SourceHistory> = kept.facts.service(&one.name).cloned().collect();
        let sources: Vec<&SourceName> =
            one.sources.iter().map(|source| &self.sources[*source].name).collect();
        assess(&one.name, sources, &one.policy, &histories, now)
    }

    /// What is claimed of a service is what has happened to it.
    fn check(&mut self, service: usize, after: Event) {
        let now = self.clock.now();
        let assessment = self.judged(service, now);
        let told = |estate: &Self, source: usize| {
            let kept = estate.pages.kept.lock().unwrap();
            let histories = kept.facts.service(&estate.services[service].name);
            histories
                .filter(|history| history.source == estate.sources[source].name)
                .find_map(|history| history.at)
        };
        let sources = self.services[service].sources.clone();
        let is_from_the_future =
            sources.iter().filter_map(|source| told(self, *source)).any(|at| at.duration_since(now) > STEP);
        if is_from_the_future {
            assert!(assessment.standing > Standing::Ready, "seed {}, {after:?}: {assessment:#?}", self.seed);
            self.count("judged while receipts were of the future");
            return;
        }
        let policy = self.services[service].policy;
        let when = self.now();
        let wanted: Vec<_> =
            sources.iter().map(|source| self.sources[*source].story.wanted(&policy, when)).collect();
        let story = |source: usize| {
            let told = &self.sources[source].story.told;
            format!("{:#?}", told.iter().rev().take(12).collect::<Vec<_>>())
        };
        let is_muddled = wanted.iter().any(|wanted| wanted.is_muddled) || self.clock.skew().abs() > STEP;
        for (claimed, (source, wanted)) in assessment.sources.iter().zip(sources.iter().zip(&wanted)) {
            // The worst that can be claimed: that all is well where it is not.
            assert!(
                assessment.standing > Standing::Ready || !wanted.is_lost,
                "READY, seed {}, {after:?} at {now}: {wanted:#?}\n{claimed:#?}\n{}",
                self.seed,
                story(*source)
            );
            let exposure = wanted.exposure.map(|age| u64::try_from(age.as_millis()).unwrap());
            assert!(
                is_muddled
                    || (claimed.level, claimed.exposure_ms, claimed.rto_ms)
                        == (wanted.level, exposure, wanted.rto_ms),
                "seed {}, {after:?} at {now}: {wanted:#?}\n{claimed:#?}\n{}",
                self.seed,
                story(*source)
            );
        }
        let rto: u64 = wanted.iter().filter_map(|wanted| wanted.rto_ms).sum();
        let is_quiet = wanted.iter().all(|wanted| wanted.is_quiet) && rto <= 2 * 3_600_000;
        assert!(
            is_muddled
                || (assessment.standing == Standing::Ready, assessment.findings.is_empty())
                    == (is_quiet, is_quiet),
            "seed {}, {after:?} at {now}: {wanted:#?} {assessment:#?}\n{:#?}",
            self.seed,
            sources.iter().map(|source| story(*source)).collect::<Vec<_>>()
        );
        if is_muddled {
            self.count("judged where dates are wrong");
        }
        self.count(match assessment.standing {
            Standing::Nothing => "judged to have no state",
            Standing::Ready => "judged READY",
            Standing::Attention => "judged ATTENTION",
            Standing::Unproven => "judged NOT YET",
            Standing::Broken => "judged BROKEN",
        });

        // Time alone makes nothing better.
        let later = now + SignedDuration::from_hours(i64::try_from(self.dice.below(24 * 60)).unwrap());
        let then = self.judged(service, later);
        let severity =
            |one: &ServiceAssessment| one.findings.iter().map(|finding| finding.code.severity()).max();
        let worst: (Option<Severity>, Option<Severity>) = (severity(&assessment), severity(&then));
        assert!(
            then.standing >= assessment.standing
                && then.level <= assessment.level
                && worst.1 >= worst.0
                && then.exposure_ms.unwrap_or(u64::MAX) >= assessment.exposure_ms.unwrap_or(u64::MAX),
            "seed {}, {after:?}: {assessment:#?}\nand later {then:#?}",
            self.seed
        );
    }

    /// Lets so many years pass.
    async fn live(&mut self, years: i64) {
        let end = self.clock.truth() + SignedDuration::from_hours(24 * 365 * years);
        while let Some(Reverse((due, _, event))) = self.queue.pop() {
            if due > end {
                break;
            }
            self.clock.pass_until(due).await;
            self.step(event).await;
            self.count("events");
            if !matches!(event, Event::JumpBack | Event::Return(_)) {
                self.schedule(event);
            }
            let involved = match event {
                Event::Backup(source) | Event::Drill(source) => self.sources[source].service,
                _ => usize::try_from(self.dice.below(self.services.len() as u64)).unwrap(),
            };
            self.check(involved, event);
            let other = usize::try_from(self.dice.below(self.services.len() as u64)).unwrap();
            self.check(other, event);
        }
        self.checkpoint();
    }
}

/// The catalogue on disk, given all lines, derives what was folded in memory.
fn catalogue_agrees(pages: &Pages) {
    let kept = pages.kept.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let catalogue =
        SqliteCatalog::open(&directory.path().join("state/catalogue.sqlite"), OpenMode::OrCreate).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let lines: Vec<String> = kept.envelopes.iter().map(Envelope::to_json).collect();
        let mut head = None;
        for batch in lines.chunks(1_000) {
            head = Some(catalogue.append(head.as_ref(), batch.to_vec(), None).await.unwrap());
        }
        assert_eq!(head, kept.head);
        let (_, histories) = catalogue.histories(None).await.unwrap();
        assert_eq!(histories, kept.facts.histories.values().cloned().collect::<Vec<_>>());
        let mut points: Vec<RecoveryPoint> = kept.facts.points.values().cloned().collect();
        points.sort_by_key(|point| point.sequence);
        assert_eq!(catalogue.points(&PointQuery::default()).await.unwrap(), points);
        let derived = catalogue.derived().await.unwrap();
        catalogue.rebuild().await.unwrap();
        assert!(derived == catalogue.derived().await.unwrap(), "a rebuild derives other bytes");
    });
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn over_the_years_every_claim_is_what_has_happened() {
    let (first, seeds) = (number("SEAWORTHY_SEED", 3), number("SEAWORTHY_SEEDS", 1));
    let (years, services) = (number("SEAWORTHY_YEARS", 2), number("SEAWORTHY_SERVICES", 2));
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let pages = runtime.block_on(async {
            let mut estate = Estate::new(seed, usize::try_from(services).unwrap());
            estate.live(i64::try_from(years).unwrap()).await;
            for (what, times) in &estate.counts {
                *counts.entry(what).or_default() += times;
            }
            estate.pages
        });
        catalogue_agrees(&pages);
        *counts.entry("receipts").or_default() +=
            u64::try_from(pages.kept.lock().unwrap().envelopes.len()).unwrap();
    }
    println!("figure: simulated {years} years of {seeds} estates of {services} services");
    for (what, times) in &counts {
        println!("figure: {what}: {times}");
    }
    // A law says nothing where its premise never holds.
    for what in [
        "backups killed",
        "backups that failed or are incomplete",
        "clock changes in the middle of a run",
        "clock jumps",
        "clock steps",
        "complete backups",
        "copies deleted",
        "copies found",
        "copies gone",
        "copies read and damaged",
        "copies that rot",
        "drills failed",
        "drills killed",
        "drills passed",
        "drills undecided",
        "judged ATTENTION",
        "judged BROKEN",
        "judged NOT YET",
        "judged READY",
        "judged where dates are wrong",
        "judged while receipts were of the future",
        "keys changed",
        "ledgers touched and found out",
        "places that seemed to be empty",
        "repositories read",
        "runs that nobody began",
    ] {
        assert!(counts.get(what).is_some_and(|times| *times > 0), "never: {what}\n{counts:#?}");
    }
}
