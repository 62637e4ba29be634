//! `posture`: how the object stores of repositories are set up, and what the credential may destroy there.

use std::time::Duration;

use seaworthy_model::finding::Severity;
use seaworthy_model::posture::{Expected, Kept, Posture, judge, judge_writer};
use seaworthy_model::remote::Provider;
use seaworthy_model::service::RepositorySpec;
use tokio_util::sync::CancellationToken;

use crate::cli::args::{self, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, count};
use crate::setup::{self, Setup};
use crate::wiring;

/// Longest look at one place.
const LOOK: Duration = Duration::from_secs(60);

/// Looks at each place; findings exit with 4, and with 7 where nothing was learned of one.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Posture,
    cancel: CancellationToken,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    let chosen = chosen(&setup, arguments)?;
    if cli.global.dry_run {
        for spec in &chosen {
            face.data(format!("would ask how {} is set up", spec.location))?;
            if arguments.probe_writer {
                let name = seaworthy_drivers::store::PROBE;
                face.data(format!(
                    "would write {name} below {}, and try to replace and to delete it",
                    spec.location
                ))?;
            }
        }
        return Ok(Exit::Ok);
    }
    let cx = super::silent(&cancel);
    let mut worst = Exit::Ok;
    for spec in &chosen {
        let bounded = cx.within(LOOK);
        let expected = expected(&setup, spec);
        let request = wiring::request(spec, seaworthy_drivers::store::Patience::Look)?;
        let facts = seaworthy_drivers::store::look(&bounded, &request.of(spec)).await?;
        let posture = judge(spec.name.as_str(), &facts, &expected);
        let writer = if arguments.probe_writer {
            let opened = seaworthy_drivers::store::open(&request.of(spec))?;
            let facts = seaworthy_drivers::store::probe_writer(&bounded, &*opened.objects).await?;
            Some((judge_writer(spec.name.as_str(), &facts), facts))
        } else {
            None
        };
        let all: Vec<&Posture> =
            [Some(&posture), writer.as_ref().map(|(posture, _)| posture)].into_iter().flatten().collect();
        let exit = exit_of(&all);
        worst = super::backup::worse(worst, exit);
        if face.json {
            face.json(&serde_json::json!({
                "schema": "seaworthy.posture/1", "repository": spec.name, "location": spec.location, "expected": expected,
                "facts": facts, "posture": posture,
                "writer": writer.as_ref().map(|(posture, facts)| serde_json::json!({ "facts": facts, "posture": posture })),
            }))?;
            continue;
        }
        say(face, spec, &all)?;
        if let Some((posture, facts)) = &writer {
            use seaworthy_model::posture::Seen;
            if posture.findings.is_empty() {
                face.data(
                    "  the credential can neither replace nor delete what it stored; locks it can remove",
                )?;
            } else if facts.may_overwrite == Seen::Known(true) || facts.may_delete == Seen::Known(true) {
                face.data(format!("  a statement that forbids it:\n{}", statement(spec)))?;
            }
        }
    }
    Ok(worst)
}

/// Nothing learned is undecided, whatever else there is.
fn exit_of(all: &[&Posture]) -> Exit {
    if all.iter().any(|posture| posture.is_unknown()) {
        return Exit::Unknown;
    }
    let is_found =
        |posture: &&Posture| posture.findings.iter().any(|one| one.code.severity() > Severity::Note);
    if all.iter().any(is_found) { Exit::Findings } else { Exit::Ok }
}

fn say(face: &Face, spec: &RepositorySpec, all: &[&Posture]) -> Outcome<()> {
    let known: usize = all.iter().map(|posture| posture.known).sum();
    let asked: usize = all.iter().map(|posture| posture.asked).sum();
    let findings: Vec<_> = all.iter().flat_map(|posture| &posture.findings).collect();
    let worst = findings.iter().map(|one| one.code.severity()).max();
    let (tone, mark) = match worst {
        None | Some(Severity::Note) => (Tone::Good, "✓"),
        Some(Severity::Warning) => (Tone::Warn, "!"),
        Some(Severity::Critical) => (Tone::Bad, "✗"),
    };
    face.data(format!(
        "{} repository {} at {}: {known} of {} known, {}",
        face.paint(tone, mark),
        spec.name,
        printable(&spec.location),
        count(asked, "setting"),
        count(findings.len(), "finding")
    ))?;
    for finding in findings {
        face.data(format!("  {} {}", finding.code, printable(&finding.detail)))?;
        face.data(format!("        → {}", finding.code.remedy()))?;
    }
    Ok(())
}

fn chosen<'a>(setup: &'a Setup, arguments: &args::Posture) -> Outcome<Vec<&'a RepositorySpec>> {
    let mut chosen = Vec::new();
    for name in &arguments.repositories {
        let spec = setup.repository(name)?;
        if spec.remote.is_none() {
            return Err(Failure::new(
                Exit::Usage,
                format!("repository `{name}` lies in a directory, which has no such settings"),
            )
            .hint("name one that lies in an object store, or none for all of them"));
        }
        chosen.push(spec);
    }
    if arguments.repositories.is_empty() {
        chosen.extend(setup.inventory().repositories.values().filter(|spec| spec.remote.is_some()));
    }
    if chosen.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            "no repository lies in an object store: nothing was looked at",
        ));
    }
    Ok(chosen)
}

/// What services that use a repository expect of its place.
fn expected(setup: &Setup, spec: &RepositorySpec) -> Expected {
    let services =
        setup.inventory().services.iter().filter(|service| service.repositories.contains(&spec.name));
    let kept = services.map(|service| service.retention.as_ref().map_or(Kept::Unsaid, Kept::by));
    let prefix = Provider::of(&spec.location).map_or("", |(_, _, prefix)| prefix);
    Expected {
        region: spec.region.clone(),
        prefix: prefix.to_owned(),
        longest_kept: kept.max().unwrap_or_default(),
    }
}

/// A statement of IAM that keeps a credential from destroying, locks apart. Replacing cannot be told from creating by an action: a
/// condition on `If-None-Match` of `PutObject` can.
fn statement(spec: &RepositorySpec) -> String {
    let Some((Provider::S3, bucket, prefix)) = Provider::of(&spec.location) else {
        return "    give it a role that creates and reads objects, and deletes only below locks/".to_owned();
    };
    let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let deny_delete = serde_json::json!({
        "Effect": "Deny",
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "NotResource": format!("arn:aws:s3:::{bucket}/{below}locks/*"),
    });
    let deny_replace = serde_json::json!({
        "Effect": "Deny",
        "Action": "s3:PutObject",
        "Resource": format!("arn:aws:s3:::{bucket}/{below}*"),
        "Condition": { "Null": { "s3:if-none-match": "true" }, "Bool": { "s3:ObjectCreationOperation": "true" } },
    });
    format!("    {deny_delete}\n    {deny_replace}")
}
