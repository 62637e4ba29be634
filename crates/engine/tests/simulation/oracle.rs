//! What must be claimed, told from what has really happened and without folding anything: every question looks through the
//! whole story of a source again.

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

/// The order of copies: the receipt by which one is known, then its instant.
pub(crate) type Order = (u64, Timestamp);

/// What has happened to a source, as far as receipts tell of it. Instants are those of the controller's clock.
#[derive(Debug, Clone)]
pub(crate) enum Happened {
    /// A receipt about the source was sealed. Nothing that was told before is younger.
    Sealed { at: Timestamp },
    /// A copy was stored, or found where it lay. The repository is told by its index.
    Known { place: usize, copy: Name, point: Timestamp, is_future_dated: bool },
    /// A backup ended; whether with a complete copy, and without anything to complain of.
    BackedUp { is_clean: bool },
    /// A drill has proven a copy.
    Proven { copy: Name, order: Order, level: Assurance, at: Timestamp, rto_ms: u64 },
    /// A drill, or a look at all bytes, has shown that a copy is bad.
    Bad { copy: Name, order: Order, by_drill: bool },
    /// All bytes of a copy were read.
    Intact { at: Timestamp },
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
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) level: Assurance,
    pub(crate) exposure: Option<SignedDuration>,
    pub(crate) rto_ms: Option<u64>,
    /// Nothing whatever may be told about it.
    pub(crate) is_quiet: bool,
}

impl Story {
    /// The earliest instant at which anything was sealed from a place in the story on.
    fn limits(&self) -> Vec<Timestamp> {
        let mut limit = Timestamp::MAX;
        let mut limits: Vec<Timestamp> = Vec::with_capacity(self.told.len());
        for happened in self.told.iter().rev() {
            if let Happened::Sealed { at } = happened {
                limit = limit.min(*at);
            }
            limits.push(limit);
        }
        limits.reverse();
        limits
    }

    /// Copies that are known, complete, and not known to be gone; and how much of the story comes before the ground was last
    /// taken from under every proof.
    fn present(&self, limits: &[Timestamp]) -> (Vec<(Timestamp, bool, Name)>, usize) {
        let mut present: Vec<(usize, Timestamp, bool, Name)> = Vec::new();
        let mut ground = 0;
        for (n, happened) in self.told.iter().enumerate() {
            match happened {
                Happened::Known { place, copy, point, is_future_dated } => {
                    present.push((*place, limits[n].min(*point), *is_future_dated, *copy));
                }
                Happened::Gone { place, copy } => {
                    present.retain(|one| (one.0, one.3) != (*place, *copy));
                    if present.is_empty() {
                        ground = n + 1;
                    }
                }
                Happened::Bad { .. } => ground = n + 1,
                _ => {}
            }
        }
        (present.into_iter().map(|(_, point, future, copy)| (point, future, copy)).collect(), ground)
    }

    /// Whether a copy was shown to be bad, and neither it nor a newer one has been restored well since.
    fn is_broken(&self) -> bool {
        self.told.iter().enumerate().any(|(n, happened)| {
            let Happened::Bad { copy: bad, order: of_bad, .. } = happened else { return false };
            !self.told[n..].iter().any(|later| {
                matches!(later, Happened::Proven { copy, order, .. } if copy == bad || order > of_bad)
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
    pub(crate) fn wanted(&self, policy: &Policy, now: Timestamp) -> Wanted {
        let limits = self.limits();
        let (present, ground) = self.present(&limits);
        let newest = present.iter().max_by_key(|(point, ..)| *point);
        let age = newest.map(|(point, ..)| now.duration_since(*point).max(SignedDuration::ZERO));
        let is_fresh = age.is_some_and(|age| age <= policy.stale_after);
        let is_broken = self.is_broken();

        let since = &self.told[ground..];
        let valid = |at: Timestamp| {
            let age = now.duration_since(at);
            age >= -STEP && age <= policy.proof_valid
        };
        let proven = since.iter().zip(&limits[ground..]).filter_map(|(happened, limit)| match happened {
            Happened::Proven { level, at, .. } if valid(*at.min(limit)) => Some(*level),
            Happened::Intact { at } if valid(*at.min(limit)) => Some(Assurance::A2),
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
        let is_newest_bad = is_broken
            && newest.is_some_and(|(.., newest)| {
                // The newest copy itself, or one that is newer still and no longer there.
                let order_of = |copy: Name| {
                    self.told.iter().position(|one| matches!(one, Happened::Known { copy: known, .. } if *known == copy))
                };
                self.told.iter().any(|one| {
                    matches!(one, Happened::Bad { copy, .. } if copy == newest || order_of(*copy) >= order_of(*newest))
                })
            });
        Wanted {
            level,
            exposure: age.filter(|_| !is_newest_bad),
            rto_ms,
            is_quiet: is_fresh
                && newest.is_some_and(|(_, is_future_dated, _)| !is_future_dated)
                && age.is_some_and(|age| is_within(policy.objective.rpo, age))
                && !is_broken
                && level >= Assurance::A4
                && last_backup != Some(false)
                && last_drill != Some(false)
                && !self.is_abandoned(ActKind::Backup)
                && !self.is_abandoned(ActKind::Drill),
        }
    }
}
