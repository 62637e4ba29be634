//! Runs cases, seed by seed; every trial begins from the same state.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use seaworthy_testkit::estate::Dice;

use crate::case::{Ask, Case, Kind, Naive, Trial};
use crate::secrets::Sampler;
use crate::stage::Stage;
use crate::{
    Fault, Outcome, cluster, evidence, files, healthy, hostile, journal, naive, postgres, repository, sqlite,
    tools,
};

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kinds of sources.
    pub kinds: Vec<Kind>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Only cases whose name holds one of these; all where empty.
    pub only: Vec<String>,
    /// Of the cases that are left, every so many-th.
    pub every: usize,
    /// Seeds with which naive checkers are asked too. They say the same of each: a few are enough.
    pub naive: Vec<u64>,
    /// Estates at once.
    pub jobs: usize,
    /// Where estates lie. Nothing here is about durability, so that memory will do.
    pub place: PathBuf,
}

/// What a run has come to.
#[derive(Debug)]
pub struct Ran {
    /// The trials, in the order in which they ended.
    pub trials: Vec<Trial>,
    /// Argument lists of running programs that were read meanwhile. None of them held the password.
    pub samples: u64,
}

/// Every case of a kind.
#[must_use]
pub fn corpus(kind: Kind) -> Vec<Case> {
    let mut cases = match kind {
        // What does not depend on the kind is done to the others.
        Kind::Cluster => {
            let mut cases = cluster::cases();
            cases.extend(cluster::healthy());
            return cases;
        }
        Kind::Log => {
            let mut cases = journal::cases();
            cases.extend(journal::healthy());
            return cases;
        }
        Kind::Postgres => postgres::cases(),
        Kind::Sqlite => sqlite::cases(),
        Kind::Files => files::cases(),
    };
    if kind == Kind::Postgres {
        cases.extend(tools::cases());
    }
    cases.extend(repository::cases(kind));
    cases.extend(evidence::cases(kind));
    cases.extend(hostile::cases(kind));
    cases.extend(healthy::cases(kind));
    cases
}

/// The cases of a kind that the options leave.
#[must_use]
pub fn chosen(kind: Kind, options: &Options) -> Vec<Case> {
    let named = |case: &Case| {
        let name = format!("{}/{}", kind.word(), case.name);
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    corpus(kind).into_iter().filter(named).step_by(options.every.max(1)).collect()
}

/// Runs every chosen case with every seed, but for estates that an `earlier` run has gone through. `tell` is called after each
/// trial; `keep` after each estate, with all trials of finished ones, the earlier ones included, and with the number of argument
/// lists that were read so far.
///
/// A trial that could not be carried out ends the run with its name: it is neither a miss nor a catch. So does a password in
/// an argument list.
pub fn run(
    program: &Path,
    options: &Options,
    earlier: Vec<Trial>,
    tell: &(dyn Fn(&Case, &Trial) + Sync),
    keep: &(dyn Fn(&[Trial], u64) -> Outcome + Sync),
) -> Outcome<Ran> {
    let mut work: Vec<(u64, Kind)> = Vec::new();
    for seed in &options.seeds {
        // An estate is done when each of its cases is.
        let is_left = |kind: &&Kind| {
            let is_known = |case: &Case| {
                let of = (*seed, **kind, case.name.as_str());
                earlier.iter().any(|trial| (trial.seed, trial.kind, trial.case.as_str()) == of)
            };
            !chosen(**kind, options).iter().all(is_known)
        };
        work.extend(options.kinds.iter().filter(is_left).map(|kind| (*seed, *kind)));
    }
    let is_done = |trial: &Trial| !work.contains(&(trial.seed, trial.kind));
    let earlier: Vec<Trial> = earlier.into_iter().filter(is_done).collect();
    let sampler = Sampler::start();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let trials = Mutex::new(earlier);
    let fault: Mutex<Option<Fault>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    let Some((seed, kind)) = work.get(index) else { return };
                    let done = estate(program, *kind, *seed, options, &stop, tell).and_then(|done| {
                        let mut trials = trials.lock().map_err(|_| "a thread has panicked")?;
                        trials.extend(done);
                        let (samples, hits) = sampler.so_far();
                        if hits > 0 {
                            return Err(format!("{hits} argument lists held the password").into());
                        }
                        keep(&trials, samples)
                    });
                    if let Err(error) = done {
                        stop.store(true, Ordering::Relaxed);
                        if let Ok(mut fault) = fault.lock() {
                            fault.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    let (samples, hits) = sampler.end();
    if let Some(error) = fault.into_inner().map_err(|_| "a thread has panicked")? {
        return Err(error);
    }
    if hits > 0 || (samples == 0 && !work.is_empty()) {
        return Err(format!("{hits} of {samples} argument lists held the password").into());
    }
    Ok(Ran { trials: trials.into_inner().map_err(|_| "a thread has panicked")?, samples })
}

fn estate(
    program: &Path,
    kind: Kind,
    seed: u64,
    options: &Options,
    stop: &AtomicBool,
    tell: &dyn Fn(&Case, &Trial),
) -> Outcome<Vec<Trial>> {
    let cases = chosen(kind, options);
    let mut done = Vec::new();
    if cases.is_empty() {
        return Ok(done);
    }
    let stage = Stage::new(&options.place, program, kind, seed)
        .map_err(|error| named(kind, "the estate", seed, &error))?;
    if options.naive.contains(&seed) {
        // A checker that raises an alarm at an honest copy says nothing by one at a wrong copy.
        let asked = if kind == Kind::Log { journal::latest() } else { Ask::drill() };
        let said =
            naive::ask(&stage, &asked).map_err(|error| named(kind, "the naive checkers", seed, &error))?;
        if [said.exit, said.checksum, said.counts] != [Naive::Pass; 3] {
            return Err(named(
                kind,
                "the naive checkers",
                seed,
                &format!("the honest copy: {said:?}").into(),
            ));
        }
    }
    for case in &cases {
        if stop.load(Ordering::Relaxed) {
            // Half an estate is none.
            return Ok(Vec::new());
        }
        let trial = trial(&stage, case, options.naive.contains(&seed))
            .map_err(|error| named(kind, &case.name, seed, &error))?;
        tell(case, &trial);
        done.push(trial);
    }
    Ok(done)
}

fn named(kind: Kind, case: &str, seed: u64, error: &Fault) -> Fault {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&**error);
    while let Some(cause) = source {
        words.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    format!("{}/{case}, seed {seed}: {words}", kind.word()).into()
}

fn trial(stage: &Stage, case: &Case, with_naive: bool) -> Outcome<Trial> {
    stage.reset()?;
    // The same case and seed roll the same dice, whatever ran before.
    let salt = case.name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(u64::from(byte)));
    let mut dice = Dice::new(stage.seed.wrapping_mul(0x9e37_79b9).wrapping_add(salt));
    let ask = (case.act)(stage, &mut dice)?;
    let mut said = stage.ask(&ask.steps)?;
    let marks = hostile::marks(stage)?;
    if !marks.is_empty() {
        // Whatever the verdict says: something got out.
        said.word = "pass".to_owned();
        said.words = marks.join("; ");
    }
    let naive =
        if with_naive && ask.has_copy && !case.is_healthy() { Some(naive::ask(stage, &ask)?) } else { None };
    Ok(Trial { kind: stage.kind, case: case.name.clone(), seed: stage.seed, said, naive })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_codes_that_exist() {
        let known: BTreeSet<&str> =
            seaworthy_model::finding::FindingCode::ALL.iter().map(|code| code.as_str()).collect();
        let mut healthy = 0;
        for kind in Kind::ALL {
            let mut names = BTreeSet::new();
            for case in corpus(kind) {
                assert!(names.insert(case.name.clone()), "{}/{} is there twice", kind.word(), case.name);
                assert_eq!(case.is_healthy(), case.expected.is_empty(), "{}", case.name);
                assert!(case.expected.iter().all(|code| known.contains(code)), "{}", case.name);
                healthy += usize::from(case.is_healthy());
            }
        }
        assert!(healthy >= 40);
    }
}
