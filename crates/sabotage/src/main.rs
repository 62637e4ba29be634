//! The sabotage harness: `seaworthy-sabotage --program target/release/seaworthy`. Run it as `cargo xtask sabotage`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use seaworthy_sabotage::case::Kind;
use seaworthy_sabotage::report::Report;
use seaworthy_sabotage::run::{self, Options};
use seaworthy_sabotage::{Fault, Outcome};
use seaworthy_testkit::page::machine;

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
    /// Do not ask naive checkers.
    #[arg(long)]
    no_naive: bool,
    /// Tell of every trial.
    #[arg(short, long)]
    verbose: bool,
    /// Only list the cases.
    #[arg(long)]
    list: bool,
    /// Every trial as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The page.
    #[arg(long)]
    page: Option<PathBuf>,
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
    let kinds: Vec<Kind> = if arguments.kind.is_empty() {
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
    let options = Options {
        kinds,
        seeds: (arguments.first..arguments.first + arguments.seeds).collect(),
        only: arguments.only.clone(),
        every: 1,
        naive: !arguments.no_naive,
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
    let done = AtomicU64::new(0);
    let began = Instant::now();
    let ran = run::run(&arguments.program, &options, &|case, trial| {
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
            println!(
                "{done} of {total} trials, {:.2} s each, {:.0} min left",
                elapsed / done as f64,
                elapsed / done as f64 * (total - done) as f64 / 60.0
            );
        }
    })?;
    let report = Report::of(&options, ran, began.elapsed(), machine());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(path) = &arguments.page {
        let page = std::fs::read_to_string(path).unwrap_or_default();
        std::fs::write(path, report.put_into(&page))?;
    }
    println!("{}", report.summary());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
