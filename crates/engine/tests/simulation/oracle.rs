//! What must be claimed, told from what has really happened: copies in the order in which they were made, instants of the true
//! time. The product knows neither. Every question looks through the whole story of a source again.

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::assess::Policy;
use seaworthy_model::id::CopyId;
use seaworthy_model::objective::Objective;
use seaworthy_model::receipt::ActKind;
use seaworthy_model::verdict::Assurance;

/// Clocks that are set right step by seconds.
pub(crate) const STEP: SignedDuration = SignedDuration::from_mins(2);

/// A copy by the first digits of its id: this is looked through again and again.
pub(crate) type Name = u64;

/// The name of a copy.
pub(crate) fn name(copy: &CopyId) -> Name {
    u64::from_str_radix(&copy.0[..16], 16).unwrap()
}

/// When something was by the controller's clock, and when it really was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    pub(crate) wall: Timestamp,
    pub(crate) truth: Timestamp,
}

impl When {
    fn is_off(&self) -> bool {
        self.wall.duration_since(self.truth).abs() > STEP
    }
}

/// A complete copy that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownCopy {
    pub(crate) place: usize,
    pub(crate) copy: Name,
    /// The number of the copy among all that were ever made.
    pub(crate) made: u64,
    pub(crate) point: When,
    /// When it was durable.
    pub(crate) finished: When,
    pub(crate) is_future_dated: bool,
    pub(crate) was_found: bool,
}

/// What has happened to a source, as far as receipts tell of it.
#[derive(Debug, Clone)]
pub(crate) enum Happened {
    /// A copy was stored, or found where it lay.
    Known(KnownCopy),
    /// An incomplete copy was stored or found: it counts as nothing, and may be shown to be bad.
    Part { copy: Name, made: u64 },
    /// A backup ended; whether with a complete copy.
    BackedUp { is_clean: bool },
    /// A drill has proven a copy.
    Proven { copy: Name, level: Assurance, at: When, rto_ms: u64 },
    /// A drill, or a look at all bytes, has shown that a copy is bad.
    Bad { copy: Name, by_drill: bool },
    /// All bytes of a copy were read.
    Intact { at: When },
    /// A drill could not decide.
    Undecided,
    /// A run was found dead.
    Abandoned { act: ActKind },
    /// A copy is no longer there.
    Gone { place: usize, copy: Name },
}

/// Everything that has happened to one source.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) told: Vec<Happened>,
}

/// What a source amounts to.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) level: Assurance,
    pub(crate) exposure: Option<SignedDuration>,
    pub(crate) rto_ms: Option<u64>,
    /// Nothing whatever may be told about it.
    pub(crate) is_quiet: bool,
    /// Something in it is dated wrong, or an older copy was found and shown to be bad: then less may be claimed than is true.
    pub(crate) is_muddled: bool,
    /// READY would be untrue: by the true time, and by the order in which copies were made.
    pub(crate) is_lost: bool,
}

/// A story, gone through once.
#[derive(Default)]
struct Read {
    /// Every complete copy that was ever known.
    known: Vec<KnownCopy>,
    /// Incomplete ones, and their numbers.
    parts: Vec<(Name, u64)>,
    /// Those that are not known to be gone.
    present: Vec<KnownCopy>,
    /// Copies whose last trial went wrong.
    bad: Vec<Name>,
    newest: Option<KnownCopy>,
    /// How much of the story comes before the ground was last taken from under every proof.
    ground: usize,
}

impl Story {
    fn read(&self) -> Read {
        let mut read = Read::default();
        for (n, happened) in self.told.iter().enumerate() {
            match happened {
                Happened::Known(copy) => {
                    read.known.push(*copy);
                    read.present.push(*copy);
                    if read.newest.is_none_or(|newest| newest.made < copy.made) {
                        read.newest = Some(*copy);
                    }
                }
                Happened::Part { copy, made } => read.parts.push((*copy, *made)),
                Happened::Gone { place, copy } => {
                    read.present.retain(|one| (one.place, one.copy) != (*place, *copy));
                    if read.newest.is_some_and(|newest| (newest.place, newest.copy) == (*place, *copy)) {
                        let sound = read.present.iter().filter(|one| !read.bad.contains(&one.copy));
                        read.newest = sound.max_by_key(|one| one.made).copied();
                        // What is left is dated by when it was durable.
                        if let Some(newest) = read.newest.as_mut().filter(|newest| newest.is_future_dated) {
                            newest.is_future_dated = false;
                            newest.point = newest.finished;
                        }
                    }
                    if read.newest.is_none() {
                        read.ground = n + 1;
                    }
                }
                Happened::Bad { copy, .. } => {
                    read.bad.push(*copy);
                    read.ground = n + 1;
                }
                Happened::Proven { copy, .. } => read.bad.retain(|one| one != copy),
                _ => {}
            }
        }
        read
    }

    fn made(read: &Read, copy: Name) -> u64 {
        let part = || read.parts.iter().find(|(part, _)| *part == copy).map_or(0, |(_, made)| *made);
        read.known.iter().find(|known| known.copy == copy).map_or_else(part, |known| known.made)
    }

    /// Whether a copy was shown to be bad, and neither it nor one that was made later has been restored well since.
    fn is_broken(&self, read: &Read) -> bool {
        self.told.iter().enumerate().any(|(n, happened)| {
            let Happened::Bad { copy: bad, .. } = happened else { return false };
            !self.told[n..].iter().any(|later| match later {
                Happened::Proven { copy, .. } => {
                    copy == bad || Self::made(read, *copy) > Self::made(read, *bad)
                }
                _ => false,
            })
        })
    }

    /// Whether the last run of a kind that anybody knows of is one that died.
    fn is_abandoned(&self, kind: ActKind) -> bool {
        let last = self.told.iter().rev().find_map(|happened| match happened {
            Happened::Abandoned { act } if *act == kind => Some(true),
            Happened::BackedUp { .. } if kind == ActKind::Backup => Some(false),
            Happened::Proven { .. } | Happened::Undecided if kind == ActKind::Drill => Some(false),
            Happened::Bad { by_drill: true, .. } if kind == ActKind::Drill => Some(false),
            _ => None,
        });
        last == Some(true)
    }

    /// What must be claimed at an instant.
    pub(crate) fn wanted(&self, policy: &Policy, now: When) -> Wanted {
        let read = self.read();
        let age = |at: Timestamp| now.wall.duration_since(at).max(SignedDuration::ZERO);
        let newest_age = read.newest.map(|newest| age(newest.point.wall));
        let is_fresh = newest_age.is_some_and(|age| age <= policy.stale_after);
        let is_broken = self.is_broken(&read);

        let since = &self.told[read.ground..];
        let valid = |at: &When| {
            let age = now.wall.duration_since(at.wall);
            age >= -STEP && age <= policy.proof_valid
        };
        let proven = since.iter().filter_map(|happened| match happened {
            Happened::Proven { level, at, .. } if valid(at) => Some(*level),
            Happened::Intact { at } if valid(at) => Some(Assurance::A2),
            _ => None,
        });
        let present_level = if is_fresh { Assurance::A1 } else { Assurance::A0 };
        let level = match proven.max() {
            Some(level) if !is_broken => level,
            _ => present_level,
        };
        let rto_ms = since.iter().rev().find_map(|happened| match happened {
            Happened::Proven { rto_ms, .. } => Some(*rto_ms),
            _ => None,
        });
        let last_backup = self.told.iter().rev().find_map(|happened| match happened {
            Happened::BackedUp { is_clean } => Some(*is_clean),
            _ => None,
        });
        let last_drill = self.told.iter().rev().find_map(|happened| match happened {
            Happened::Proven { .. } | Happened::Bad { by_drill: true, .. } => Some(true),
            Happened::Undecided => Some(false),
            _ => None,
        });
        let is_within = |bound: Objective, span: SignedDuration| match bound {
            Objective::Within(bound) => span <= bound,
            Objective::NotApplicable => true,
        };
        // The newest copy itself is bad, or one that was made after it.
        let is_newest_bad = is_broken
            && read.newest.is_some_and(|newest| {
                let open = self.told.iter().filter_map(|one| match one {
                    Happened::Bad { copy, .. } if read.bad.contains(copy) => Some(*copy),
                    _ => None,
                });
                open.into_iter().any(|bad| Self::made(&read, bad) >= newest.made)
            });
        // By the true time.
        let truly_recent = self.told.iter().any(|happened| match happened {
            Happened::Proven { at, .. } => now.truth.duration_since(at.truth) <= policy.proof_valid + STEP,
            _ => false,
        });
        let truly_fresh = read.newest.is_some_and(|newest| {
            let age = now.truth.duration_since(newest.point.truth);
            age <= policy.stale_after + STEP && is_within(policy.objective.rpo, age - STEP)
        });
        // What is still looked at and dated wrong: copies that are there, and proofs that may count.
        let is_near = |at: &When| {
            let age = now.truth.duration_since(at.truth).min(now.wall.duration_since(at.wall));
            age <= policy.proof_valid + STEP
        };
        let is_dated_wrong = read.present.iter().any(|one| one.point.is_off() || one.finished.is_off())
            || since.iter().any(|happened| match happened {
                Happened::Proven { at, .. } | Happened::Intact { at } => at.is_off() && is_near(at),
                _ => false,
            });
        // A copy that was found late and is bad is answered by copies that are known later still, and by no others.
        let known_at = |copy: Name| {
            self.told.iter().position(|one| matches!(one, Happened::Known(known) if known.copy == copy))
        };
        let has_found_bad = self.told.iter().enumerate().any(|(n, happened)| {
            let Happened::Bad { copy: bad, .. } = happened else { return false };
            read.known.iter().any(|known| known.copy == *bad && known.was_found)
                && !self.told[n..].iter().any(|later| match later {
                    Happened::Proven { copy, .. } => known_at(*copy) > Some(n),
                    _ => false,
                })
        });
        Wanted {
            level,
            exposure: newest_age.filter(|_| !is_newest_bad),
            rto_ms,
            is_quiet: is_fresh
                && read.newest.is_some_and(|newest| !newest.is_future_dated)
                && newest_age.is_some_and(|age| is_within(policy.objective.rpo, age))
                && !is_broken
                && level >= Assurance::A4
                && last_backup != Some(false)
                && last_drill != Some(false)
                && !self.is_abandoned(ActKind::Backup)
                && !self.is_abandoned(ActKind::Drill),
            is_muddled: is_dated_wrong || has_found_bad,
            is_lost: !truly_recent
                || !truly_fresh
                || is_broken
                || read.newest.is_some_and(|newest| read.bad.contains(&newest.copy)),
        }
    }
}
