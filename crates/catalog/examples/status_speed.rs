//! How long `status` takes from a cold open: 1,000 services with 400 points each, every tenth point drilled.
//!
//! `cargo run --release -p seaworthy-catalog --example status_speed -- [directory]` builds the catalogue (kept in the
//! directory, if one is given) and prints the time from opening it to the last judgement, as `status` spends it.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use seaworthy_catalog::{Catalog as _, OpenMode, SqliteCatalog};
use seaworthy_model::assess::{Policy, Standing, assess};
use seaworthy_model::example::{self, About};
use seaworthy_model::objective::{Objective, RecoveryObjective};
use seaworthy_model::receipt::{Act, Head, read_unverified, seal};
use seaworthy_model::signature::SigningKey;

const SERVICES: usize = 1_000;
const POINTS: i64 = 400;
const RUNS: usize = 21;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch;
    let directory = match std::env::args().nth(1) {
        Some(directory) => directory.into(),
        None => {
            scratch = tempfile::tempdir()?;
            scratch.path().join("state")
        }
    };
    let path = directory.join("catalogue.sqlite");
    let now: Timestamp = "2026-11-21T12:00:00Z".parse()?;
    if !path.exists() {
        build(&path, now).await?;
    }
    println!("{}: {} MB", path.display(), std::fs::metadata(&path)?.len() / 1_000_000);
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(status(&path, now).await?);
    }
    println!("first  {:>7.1} ms", times[0].as_secs_f64() * 1e3);
    times.sort_unstable();
    println!("median {:>7.1} ms", times[RUNS / 2].as_secs_f64() * 1e3);
    println!("worst  {:>7.1} ms", times[RUNS - 1].as_secs_f64() * 1e3);
    Ok(())
}

async fn status(path: &Path, now: Timestamp) -> Result<Duration, Box<dyn Error>> {
    let policy = Policy {
        objective: RecoveryObjective {
            rpo: Objective::Within(SignedDuration::from_hours(24)),
            rto: Objective::Within(SignedDuration::from_hours(2)),
        },
        stale_after: SignedDuration::from_hours(36),
        proof_valid: SignedDuration::from_hours(24 * 30),
    };
    let begin = Instant::now();
    let catalog = SqliteCatalog::open(path, OpenMode::Existing)?;
    let (_, histories) = catalog.histories(None).await?;
    let mut ready = 0;
    for of in histories.chunk_by(|a, b| a.service == b.service) {
        let sources = of.iter().map(|history| &history.source);
        let assessment = assess(&of[0].service, sources, &policy, of, now);
        ready += usize::from(assessment.standing == Standing::Ready);
    }
    let took = begin.elapsed();
    if histories.len() != SERVICES || ready != SERVICES {
        return Err(format!("{} services, {ready} ready; {SERVICES} expected", histories.len()).into());
    }
    Ok(took)
}

async fn build(path: &Path, now: Timestamp) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let catalog = SqliteCatalog::open(path, OpenMode::OrCreate)?;
    let key = SigningKey::from_random(&[5; 32]);
    let mut head: Option<Head> = None;
    for point in 0..POINTS {
        let started = now - SignedDuration::from_hours(POINTS - point);
        let (before, mut lines) = (head.clone(), Vec::new());
        let mut add = |act: Act| -> Result<u64, Box<dyn Error>> {
            let envelope = seal(&act, started + SignedDuration::from_mins(30), head.as_ref(), &key)?;
            let receipt = read_unverified(&envelope)?;
            head = Some(receipt.head());
            lines.push(envelope.to_json());
            Ok(receipt.sequence)
        };
        for service in 0..SERVICES {
            let about = About::new(&format!("service-{service:04}"), "db", started);
            let backup = example::backup(&about, None);
            let stored = add(Act::Backup(Box::new(backup.clone())))?;
            if point % 10 == 9 {
                add(Act::Drill(Box::new(example::drill(&about, None, &backup, Some(stored)))))?;
            }
        }
        catalog.append(before.as_ref(), lines, None).await?;
    }
    println!("built in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}
