//! The sabotage harness: `seaworthy-sabotage --program target/release/seaworthy`. Run it as `cargo xtask sabotage`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use seaworthy_sabotage::case::{Case, Kind, Trial};
use seaworthy_sabotage::report::Report;
use seaworthy_sabotage::run::{self, Options};
use seaworthy_sabotage::{Fault, Outcome};
use seaworthy_testkit::page::machine;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Damage what the product relies on, and see whether it notices.
#[derive(Debug, Parser)]
#[command(name = "seaworthy-sabotage")]
struct Arguments {
    /// The product.
    #[arg(long)]
    program: PathBuf,
    /// How many estates of each kind, each with a content of its own.
    #[arg(long, default_value_t = 25)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only cases whose name holds this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Only these kinds of sources.
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Estates at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where estates lie, below a directory that every user may pass through.
    #[arg(long, default_value = "/var/tmp")]
    place: PathBuf,
    /// With how many of the seeds naive checkers are asked too.
    #[arg(long, default_value_t = 5)]
    naive_seeds: u64,
    /// Tell of every trial.
    #[arg(short, long)]
    verbose: bool,
    /// Only list the cases.
    #[arg(long)]
    list: bool,
    /// Every trial as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The page; for all cases of one kind, which have a section there.
    #[arg(long, requires_all = ["kind", "commit"], conflicts_with = "only")]
    page: Option<PathBuf>,
    /// What was built, for the page.
    #[arg(long)]
    commit: Option<String>,
    /// Finished estates are kept in this file.
    #[arg(long)]
    kept: Option<PathBuf>,
    /// Take over what a run that was cut off has kept. It must have been of the same product, byte for byte.
    #[arg(long, requires = "kept")]
    go_on: bool,
}

/// What a run that was cut off leaves.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of the product and of this program, and which cases were chosen: only the very same run goes on.
    of: String,
    seconds: u64,
    samples: u64,
    trials: Vec<Trial>,
}

impl Kept {
    fn take_over(arguments: &Arguments, options: &Options) -> Outcome<Self> {
        let mut hash = Sha256::new();
        hash.update(std::fs::read(&arguments.program)?);
        hash.update(std::fs::read(std::env::current_exe()?)?);
        let build: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let of = format!("{build} {:?} {:?} {:?}", options.kinds, options.only, options.naive);
        let Some(path) = arguments.kept.as_ref().filter(|_| arguments.go_on) else {
            return Ok(Self { of, ..Self::default() });
        };
        let kept: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        if kept.of != of {
            return Err(
                "what was kept is of another build, or of other cases: run this without --go-on".into()
            );
        }
        if kept.trials.iter().any(|trial| !options.seeds.contains(&trial.seed)) {
            return Err("what was kept has seeds that are not asked for: ask for all of them".into());
        }
        Ok(kept)
    }
}

fn main() -> ExitCode {
    match carry_out(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(arguments: &Arguments) -> Outcome<ExitCode> {
    let mut kinds: Vec<Kind> = if arguments.kind.is_empty() {
        Kind::ALL.to_vec()
    } else {
        let known = |word: &String| {
            Kind::ALL
                .into_iter()
                .find(|kind| kind.word() == word)
                .ok_or_else(|| Fault::from(format!("no kind is called `{word}`")))
        };
        arguments.kind.iter().map(known).collect::<Outcome<_>>()?
    };
    kinds.sort_unstable();
    kinds.dedup();
    let options = Options {
        kinds,
        seeds: (arguments.first..arguments.first + arguments.seeds).collect(),
        only: arguments.only.clone(),
        every: 1,
        naive: (arguments.first..arguments.first + arguments.seeds.min(arguments.naive_seeds)).collect(),
        jobs: arguments.jobs,
        place: arguments.place.clone(),
    };
    if arguments.list {
        for kind in &options.kinds {
            for case in run::chosen(*kind, &options) {
                println!(
                    "{:<10} {}/{}  {}  [{}]",
                    case.layer,
                    kind.word(),
                    case.name,
                    case.what,
                    case.expected.join(" ")
                );
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let total: u64 = options.kinds.iter().map(|kind| run::chosen(*kind, &options).len() as u64).sum::<u64>()
        * arguments.seeds;
    let Kept { of, seconds, samples: samples_before, trials } = Kept::take_over(arguments, &options)?;
    let before = trials.len() as u64;
    let done = AtomicU64::new(before);
    let began = Instant::now();
    let keep = |trials: &[Trial], samples: u64| {
        let Some(path) = &arguments.kept else { return Ok(()) };
        let seconds = seconds + began.elapsed().as_secs();
        let samples = samples_before + samples;
        let kept = Kept { of: of.clone(), seconds, samples, trials: trials.to_vec() };
        let half = path.with_extension("half");
        std::fs::write(&half, serde_json::to_vec(&kept)?)?;
        Ok(std::fs::rename(&half, path)?)
    };
    let tell = |case: &Case, trial: &Trial| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        let is_wrong = trial.is_wrong(case);
        let is_vague = !case.is_healthy() && !trial.is_attributed(case);
        let name = format!("{}/{}", trial.kind.word(), trial.case);
        if is_wrong || is_vague {
            let word = if is_wrong && case.is_healthy() {
                "FALSE ALARM"
            } else if is_wrong {
                "MISSED"
            } else {
                "VAGUE"
            };
            println!(
                "{word} {name}, seed {}: {} exit {:?} {} [{}], expected [{}]\n    {}",
                trial.seed,
                trial.said.verb,
                trial.said.exit,
                trial.said.word,
                trial.said.codes.join(" "),
                case.expected.join(" "),
                trial.said.words.replace('\n', "\n    ")
            );
        }
        if arguments.verbose && !is_wrong && !is_vague {
            println!(
                "{name}, seed {}: {} ms, {} [{}]",
                trial.seed,
                trial.said.took_ms,
                trial.said.word,
                trial.said.codes.join(" ")
            );
        }
        if done.is_multiple_of(50) || done == total {
            let elapsed = began.elapsed().as_secs_f64();
            let each = elapsed / (done - before).max(1) as f64;
            println!(
                "{done} of {total} trials, {each:.2} s each, {:.0} min left",
                each * total.saturating_sub(done) as f64 / 60.0
            );
        }
    };
    let mut ran = run::run(&arguments.program, &options, trials, &tell, &keep)?;
    ran.samples += samples_before;
    let took = began.elapsed() + Duration::from_secs(seconds);
    let report = Report::of(&options, ran, took, machine());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    if let (Some(path), Some(commit)) = (&arguments.page, &arguments.commit) {
        let [kind] = options.kinds[..] else { return Err("a section of the page is of one kind".into()) };
        let page = std::fs::read_to_string(path)?;
        std::fs::write(path, report.put_into(&page, kind, commit))?;
    }
    println!("{}", report.summary());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
