//! `check`: a repository's structure, or every byte of it.

use jiff::Timestamp;
use seaworthy_engine::act::check::{Checked, code, listed, lost, unlisted, verified};
use seaworthy_engine::runner::run_id;
use seaworthy_model::receipt::{Act, ActKind, Verify};
use seaworthy_model::service::RepositorySpec;
use seaworthy_repository::{CheckLock, CheckOptions, CheckRead, FaultKind, Finding};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened, reference, run_failure};
use crate::cli::args::{Check, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, bytes, duration};
use crate::setup::Setup;
use crate::{setup, wiring};

/// Most places that are named for one fault.
const REACH_MAX: usize = 5;

/// One fault in one line, with the code that drills use for it.
fn words(finding: &Finding) -> String {
    let word = match finding.kind {
        FaultKind::Missing => "missing",
        FaultKind::Damaged => "damaged",
        FaultKind::Inconsistent => "inconsistent",
    };
    let code = code(finding.kind);
    format!("{code} {} {} is {word}: {}", finding.what, finding.id.hex(), finding.why)
}

/// Checks repositories; findings exit with 4.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Check, cancel: CancellationToken) -> Outcome {
    let setup = setup::load(cli, face)?;
    let read = match &arguments.read_data_share {
        Some(share) => CheckRead::Subset { share: percent(share)?, seed: super::drill::random()? },
        None if arguments.read_data => CheckRead::All,
        None => CheckRead::None,
    };
    if cli.global.dry_run {
        let how = match read {
            CheckRead::All => "reading back every byte".to_owned(),
            CheckRead::Subset { share, .. } => format!("reading back {:.0} % of it", share * 100.0),
            CheckRead::None => "its structure only".to_owned(),
        };
        let lock = if arguments.no_lock { "without a lock" } else { "under a shared lock" };
        for spec in chosen(&setup, arguments)? {
            face.data(format!("would check repository {}, {how}, {lock}", spec.name))?;
        }
        return Ok(Exit::Ok);
    }
    // A name that is none is told before anything is opened.
    chosen(&setup, arguments)?;
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let mut opened = Opened::new(&app.setup.state);
    let mut worst = Exit::Ok;
    for spec in chosen(&app.setup, arguments)? {
        let watch = face.watch(spec.name.as_str());
        let cx = super::context(&cancel, watch.sink());
        let repository = opened.get(&cx, spec).await?;
        let options = CheckOptions {
            read,
            lock: if arguments.no_lock { CheckLock::None } else { CheckLock::Shared },
            workers: 0,
        };
        let control = seaworthy_engine::store::control(&cx);
        let what = format!("check repository `{}`", spec.name);
        let began = Timestamp::now();
        let place = reference(spec, &repository);
        // Before anything is listed, so that what is made meanwhile is not taken for lost.
        let before = app.memory.points_in(&place.id).await?;
        let report = wiring::blocking(move || {
            repository.check(&options, &control).map_err(|error| wiring::repository_failure(&what, error))
        })
        .await?;
        drop(watch);
        let ended = Timestamp::now();
        let took = std::time::Duration::try_from(ended.duration_since(began)).unwrap_or_default();
        let points = app.memory.points_in(&place.id).await?;
        let missing = unlisted(&before, &points, &place.id, &listed(&report));
        let checked = Checked {
            run: run_id(ActKind::Verify, began)
                .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?,
            place,
            started: began,
            finished: ended,
            executor: wiring::executor(),
        };
        seal(&app, face, verified(&report, read, &points, &missing, checked)).await?;
        let is_sound = report.is_sound() && missing.is_empty();
        if !is_sound {
            worst = Exit::Findings;
        }
        if face.json {
            let lost = missing.iter().map(|point| lost(point).to_string());
            let findings: Vec<_> = report.findings.iter().map(words).chain(lost).collect();
            face.json(&serde_json::json!({
                "schema": "seaworthy.check/1", "repository": spec.name, "snapshots": report.snapshots.len(), "packs": report.packs,
                "read_bytes": report.bytes_read, "findings": findings, "sound": is_sound,
            }))?;
            continue;
        }
        for finding in &report.findings {
            face.data(format!("{} {}", face.paint(Tone::Bad, "✗"), printable(&words(finding))))?;
            for reach in finding.reach.iter().take(REACH_MAX) {
                let path = reach.path.escape_ascii().to_string();
                face.data(format!("      reaches {} in copy {}", path, &reach.snapshot.hex()[..12]))?;
            }
            let hidden = finding.reach_count.saturating_sub(REACH_MAX as u64);
            if hidden > 0 {
                face.data(format!("      and {hidden} more"))?;
            }
        }
        for point in &missing {
            let finding = lost(point).to_string();
            face.data(format!("{} {}", face.paint(Tone::Bad, "✗"), printable(&finding)))?;
        }
        if !missing.is_empty() {
            face.say(
                "hint: was it removed on purpose? `seaworthy catalogue rebuild` enters that it is gone",
            )?;
        }
        let (mark, word) = if is_sound {
            (face.paint(Tone::Good, "✓"), "no errors")
        } else {
            (face.paint(Tone::Bad, "✗"), "ERRORS")
        };
        face.data(format!(
            "{mark} repository {}: {word}; {} copies, {} packs, {} read in {}",
            spec.name,
            report.snapshots.len(),
            report.packs,
            bytes(report.bytes_read),
            duration(took)
        ))?;
        if read == CheckRead::None && is_sound {
            face.say("  structure only: data blobs were not read back; --read-data reads every byte")?;
        }
    }
    Ok(worst)
}

/// The repositories that were named; all of them where none was.
fn chosen<'a>(setup: &'a Setup, arguments: &Check) -> Outcome<Vec<&'a RepositorySpec>> {
    if arguments.repositories.is_empty() {
        return Ok(setup.inventory().repositories.values().collect());
    }
    arguments.repositories.iter().map(|name| setup.repository(name)).collect()
}

/// Seals what was shown of copies that are known here, so that `status` tells of damage and a drill is not alone with it.
async fn seal(app: &App, face: &Face, act: Option<Verify>) -> Outcome<()> {
    let Some(act) = act else { return Ok(()) };
    let receipt = app
        .runner
        .notary()
        .commit(&Act::Verify(Box::new(act)), Timestamp::now())
        .await
        .map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))?;
    face.say(format!("    receipt {}", receipt.digest))
}

/// `10%` as 0.1.
pub(crate) fn percent(text: &str) -> Outcome<f64> {
    let number: Option<u8> = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .filter(|number| (1..=100).contains(number));
    number.map(|number| f64::from(number) / 100.0).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{}` is not a share", printable(text))).hint("write e.g. 10%")
    })
}
