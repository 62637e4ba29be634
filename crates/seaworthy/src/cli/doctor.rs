//! `doctor`: what would keep a backup or a drill from working here. Reads only; each probe ends within ten seconds.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use seaworthy_catalog::OpenMode;
use seaworthy_drivers::store::Reached;
use seaworthy_interface::{Cx, SandboxProvider as _, SourceFacts};
use seaworthy_model::advice::{Asked, advise};
use seaworthy_model::finding::{Finding, FindingCode, Severity};
use seaworthy_model::forecast::Forecast;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::Receipt;
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use seaworthy_model::source::SourceSpec;
use seaworthy_repository::Repository;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::args::Cli;
use crate::custody;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, bytes, count, duration};
use crate::secrets::file_exposure;
use crate::setup::{self, Setup};
use crate::wiring;

/// Longest probe.
const PROBE: Duration = Duration::from_secs(10);

/// Least room that a repository or the scratch directory should have.
const ROOM: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Health {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Probe {
    name: String,
    health: Health,
    detail: String,
    hint: Option<String>,
    took_ms: u128,
}

struct Round<'a> {
    face: &'a Face,
    probes: Vec<Probe>,
}

impl Round<'_> {
    fn add(
        &mut self,
        began: Instant,
        name: &str,
        health: Health,
        detail: String,
        hint: Option<String>,
    ) -> Outcome<()> {
        let (mark, tone) = match health {
            Health::Ok => ("✓", Tone::Good),
            Health::Warn => ("!", Tone::Warn),
            Health::Fail => ("✗", Tone::Bad),
        };
        if !self.face.json {
            self.face.data(format!("{} {name:<28} {}", self.face.paint(tone, mark), printable(&detail)))?;
            if let Some(hint) = hint.as_ref().filter(|_| health != Health::Ok) {
                self.face.data(format!("  {:<28} → {}", "", printable(hint)))?;
            }
        }
        self.probes.push(Probe {
            name: name.to_owned(),
            health,
            detail,
            hint,
            took_ms: began.elapsed().as_millis(),
        });
        Ok(())
    }

    fn failure(&mut self, began: Instant, name: &str, failure: Failure) -> Outcome<()> {
        self.add(began, name, Health::Fail, failure.chain.join(": "), failure.hint)
    }

    fn finding(&mut self, began: Instant, name: &str, finding: &Finding) -> Outcome<()> {
        let health = if finding.code.severity() == Severity::Critical { Health::Fail } else { Health::Warn };
        self.add(began, name, health, finding.to_string(), Some(finding.code.remedy().to_owned()))
    }
}

/// Probes; a failed one exits with 4.
pub(crate) async fn run(cli: &Cli, face: &Face, cancel: CancellationToken) -> Outcome {
    let mut round = Round { face, probes: Vec::new() };
    let began = Instant::now();
    let setup = setup::load(cli, face)?;
    let inventory = setup.inventory();
    round.add(
        began,
        "configuration",
        Health::Ok,
        format!(
            "{}: {}, {}",
            setup.path.display(),
            count(inventory.services.len(), "service"),
            count(inventory.repositories.len(), "repository")
        ),
        None,
    )?;
    state(&mut round, &setup)?;
    let cx = super::silent(&cancel);
    if cli.global.dry_run {
        face.say(format!("would try out a sandbox in {}", setup.state.scratch.display()))?;
    } else {
        sandbox(&mut round, &setup, &cx).await?;
    }
    room(&mut round, "room for scratch restores", &setup.state.scratch)?;
    ledger(&mut round, &setup).await?;
    // Where the ledger cannot be read, its own probe has said so.
    let receipts = custody::receipts(&setup).await.unwrap_or_default();
    for spec in inventory.repositories.values() {
        endpoint(&mut round, spec)?;
        let began = Instant::now();
        let name = format!("repository {}", spec.name);
        let bounded = cx.within(PROBE);
        let opened = bounded.run(wiring::open_repository(&bounded, spec, None)).await;
        let opened = opened.unwrap_or_else(|stop| {
            Err(Failure::new(Exit::Unknown, format!("{stop} after {} s", PROBE.as_secs())))
        });
        match opened {
            Ok(repository) => {
                round.add(
                    began,
                    &name,
                    Health::Ok,
                    format!(
                        "{} opens with its password; format version {}",
                        spec.location,
                        repository.version()
                    ),
                    None,
                )?;
                keys(&mut round, &setup, spec, &repository, &receipts, &cx).await?;
            }
            Err(failure) => {
                let failure = if failure.exit == Exit::NotFound {
                    failure.hint(match spec.remote {
                        None => "is its disk mounted? If it was never made: seaworthy init --missing-repositories",
                        Some(_) => "is it the right bucket and prefix? If it was never made: seaworthy init --missing-repositories",
                    })
                } else {
                    failure
                };
                round.failure(began, &name, failure)?;
            }
        }
        // A bucket has no end that could be asked for.
        if spec.remote.is_none() {
            room(&mut round, &format!("room for {}", spec.name), Path::new(&spec.location))?;
        }
    }
    let points = match Memory::open_to_read(cli, &setup.state).await {
        Ok(memory) => memory.every_point().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let measured = Measured { receipts: &receipts, points: &points };
    for service in &inventory.services {
        sources(&mut round, &setup, service, &measured, &cx).await?;
    }
    let worst = round.probes.iter().map(|probe| probe.health).max().unwrap_or(Health::Fail);
    if face.json {
        face.json(
            &serde_json::json!({ "schema": "seaworthy.doctor/1", "status": worst, "data": round.probes }),
        )?;
    } else {
        let of = |health: Health| round.probes.iter().filter(|probe| probe.health == health).count();
        face.data(format!(
            "{}: {} ok, {}, {} failed",
            count(round.probes.len(), "probe"),
            of(Health::Ok),
            count(of(Health::Warn), "warning"),
            of(Health::Fail)
        ))?;
        if worst < Health::Fail {
            face.say("next: seaworthy backup")?;
        }
    }
    Ok(if worst == Health::Fail { Exit::Findings } else { Exit::Ok })
}

/// A URL without what stands before an `@` in it.
fn host(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
        }
        None => "something that is no URL".to_owned(),
    }
}

/// Where an object store is asked, and who says so: a variable that somebody set for another program leads elsewhere without a word.
fn endpoint(round: &mut Round<'_>, spec: &RepositorySpec) -> Outcome<()> {
    let began = Instant::now();
    let Some(reached) = wiring::reached(spec) else { return Ok(()) };
    let name = format!("endpoint of {}", spec.name);
    match reached {
        Reached::Configured(url) => {
            round.add(began, &name, Health::Ok, format!("{}, by the configuration", host(&url)), None)
        }
        Reached::Provider => {
            round.add(began, &name, Health::Ok, format!("the provider's own, for {}", spec.location), None)
        }
        Reached::Environment { variable, url } => round.add(
            began,
            &name,
            Health::Warn,
            format!("{}, by {variable} in the environment; the configuration names none", host(&url)),
            Some(format!(
                "if that is meant: endpoint = \"{}\" in the repository's table; if not: unset {variable}",
                host(&url)
            )),
        ),
    }
}

fn state(round: &mut Round<'_>, setup: &Setup) -> Outcome<()> {
    let began = Instant::now();
    let directory = &setup.state.directory;
    if !directory.exists() {
        return round.add(
            began,
            "state directory",
            Health::Warn,
            format!("{} is not there yet; the first backup makes it", directory.display()),
            None,
        );
    }
    match file_exposure(directory) {
        Ok(None) => round.add(
            began,
            "state directory",
            Health::Ok,
            format!("{} is ours alone", directory.display()),
            None,
        )?,
        Ok(Some(exposure)) => round.add(
            began,
            "state directory",
            Health::Fail,
            format!("{exposure} [KY-05]"),
            Some(format!("chmod 700 {}", directory.display())),
        )?,
        Err(error) => round.add(
            began,
            "state directory",
            Health::Fail,
            format!("{}: {error}", directory.display()),
            None,
        )?,
    }
    let key = directory.join("signing.key");
    let began = Instant::now();
    match file_exposure(&key) {
        Ok(None) => round.add(
            began,
            "signing key",
            Health::Ok,
            format!("{} is closed to others", key.display()),
            None,
        ),
        Ok(Some(exposure)) => round.add(
            began,
            "signing key",
            Health::Fail,
            format!("{exposure} [KY-05]"),
            Some("whoever could read it can sign receipts: replace it".to_owned()),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => round.add(
            began,
            "signing key",
            Health::Warn,
            "none yet; the first backup makes one".to_owned(),
            None,
        ),
        Err(error) => round.add(began, "signing key", Health::Fail, error.to_string(), None),
    }
}

async fn sandbox(round: &mut Round<'_>, setup: &Setup, cx: &Cx) -> Outcome<()> {
    let began = Instant::now();
    let provider = wiring::sandboxes_for(&setup.state, setup.inventory());
    let bounded = cx.within(PROBE);
    match bounded.run(provider.probe(&bounded)).await {
        Ok(Ok(findings)) if findings.is_empty() => round.add(
            began,
            "sandbox",
            Health::Ok,
            format!("isolation works; scratch in {}", setup.state.scratch.display()),
            None,
        )?,
        Ok(Ok(findings)) => {
            for finding in findings {
                round.finding(began, "sandbox", &finding)?;
            }
        }
        Ok(Err(error)) => round.failure(began, "sandbox", Failure::from(error))?,
        Err(stop) => {
            round.add(began, "sandbox", Health::Fail, format!("{stop} after {} s", PROBE.as_secs()), None)?;
        }
    }
    Ok(())
}

/// Who holds the keys of a repository. What is wrong with that keeps no backup from running: it is said, and no probe fails.
async fn keys(
    round: &mut Round<'_>,
    setup: &Setup,
    spec: &RepositorySpec,
    repository: &Repository,
    receipts: &[Receipt],
    cx: &Cx,
) -> Outcome<()> {
    let began = Instant::now();
    let name = format!("keys of {}", spec.name);
    let bounded = cx.within(PROBE);
    let looked = bounded.run(custody::look(&bounded, setup, spec, repository, receipts)).await;
    let standing = match looked {
        Ok(Ok(standing)) => standing,
        Ok(Err(failure)) => return round.failure(began, &name, failure),
        Err(stop) => {
            return round.add(
                began,
                &name,
                Health::Fail,
                format!("{stop} after {} s", PROBE.as_secs()),
                None,
            );
        }
    };
    let findings: Vec<&Finding> = standing.all().collect();
    match findings.as_slice() {
        [] => round.add(
            began,
            &name,
            Health::Ok,
            format!("{} held as the register says", count(standing.rows.len(), "key")),
            None,
        ),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
            round.add(
                began,
                &name,
                Health::Warn,
                format!("{first}{more}"),
                Some(format!("seaworthy keys list --repository {}", spec.name)),
            )
        }
    }
}

/// Room on the file system that holds `path`, or would.
fn room(round: &mut Round<'_>, name: &str, path: &Path) -> Outcome<()> {
    let began = Instant::now();
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(facts) => {
            let free = facts.f_bavail * facts.f_frsize;
            let health = if free < ROOM { Health::Warn } else { Health::Ok };
            round.add(
                began,
                name,
                health,
                format!("{} free below {}", bytes(free), existing.display()),
                Some("free space, or move it".to_owned()),
            )
        }
        Err(error) => round.add(began, name, Health::Fail, format!("{}: {error}", existing.display()), None),
    }
}

async fn ledger(round: &mut Round<'_>, setup: &Setup) -> Outcome<()> {
    let began = Instant::now();
    if !setup.state.catalogue().exists() {
        return round.add(began, "ledger", Health::Warn, "empty: nothing has run yet".to_owned(), None);
    }
    let now = Timestamp::now();
    let memory = match Memory::open_copy(&setup.state, OpenMode::Existing).await {
        Ok(memory) => memory,
        Err(failure) => return round.failure(began, "ledger", failure),
    };
    let histories = memory.histories(Timestamp::MAX).await?;
    let newest = histories.iter().filter_map(|history| history.at).max();
    match newest {
        Some(newest) if newest > now => round.finding(
            began,
            "clock",
            &Finding::new(
                FindingCode::ClockSkew,
                "this host",
                format!("the newest receipt is of {newest}, which has yet to come here"),
            ),
        ),
        Some(newest) => {
            let age = Duration::try_from(now.duration_since(newest)).unwrap_or_default();
            round.add(
                began,
                "ledger",
                Health::Ok,
                format!("{} known; last run {} ago", count(histories.len(), "source"), duration(age)),
                None,
            )
        }
        None => round.add(began, "ledger", Health::Warn, "empty: nothing has run yet".to_owned(), None),
    }
}

/// What earlier runs have shown.
struct Measured<'a> {
    receipts: &'a [Receipt],
    points: &'a [RecoveryPoint],
}

impl Measured<'_> {
    /// Whether the way in which a source is backed up can keep its promise.
    fn advice(&self, service: &Service, source: &ServiceSource, facts: &SourceFacts) -> Vec<Finding> {
        let SourceSpec::Postgres(spec) = &source.spec else { return Vec::new() };
        let own = self
            .points
            .iter()
            .filter(|point| point.service == service.name && point.source == source.name && !point.is_gone());
        let newest = own.max_by_key(|point| (point.point, point.sequence));
        let forecast = newest.and_then(|point| Forecast::of(self.receipts, self.points, point));
        advise(&Asked {
            subject: &format!("{}/{}", service.name, source.name),
            mode: spec.mode,
            objective: service.objective,
            size_bytes: facts.size_bytes,
            log_bytes_per_hour: facts.log_bytes_per_hour,
            forecast: forecast.as_ref(),
        })
    }
}

async fn sources(
    round: &mut Round<'_>,
    setup: &Setup,
    service: &Service,
    measured: &Measured<'_>,
    cx: &Cx,
) -> Outcome<()> {
    for source in &service.sources {
        let began = Instant::now();
        let name = format!("{}/{}", service.name, source.name);
        let subject = match wiring::subject(&setup.state, service, source) {
            Ok(subject) => subject,
            Err(failure) => {
                round.failure(began, &name, failure)?;
                continue;
            }
        };
        let bounded = cx.within(PROBE);
        match bounded.run(subject.driver.probe(&bounded)).await {
            Ok(Ok(facts)) => {
                round.add(
                    began,
                    &name,
                    Health::Ok,
                    format!(
                        "{}, {} to restore{}",
                        facts.summary,
                        bytes(facts.size_bytes),
                        facts
                            .log_bytes_per_hour
                            .map_or_else(String::new, |log| format!(", {} of log an hour", bytes(log)))
                    ),
                    None,
                )?;
                for finding in facts.findings.iter().chain(&measured.advice(service, source, &facts)) {
                    round.finding(began, &name, finding)?;
                }
            }
            Ok(Err(error)) => round.failure(began, &name, Failure::from(error))?,
            Err(stop) => {
                round.add(began, &name, Health::Fail, format!("{stop} after {} s", PROBE.as_secs()), None)?;
            }
        }
    }
    Ok(())
}
