//! `hold`: what stays until somebody says otherwise. Holds are receipts; nothing else knows of them.

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::point::{PointRule, select};
use seaworthy_model::receipt::{Act, Seed};
use seaworthy_model::retention::{Held, HeldThing, Hold, Released};
use tokio_util::sync::CancellationToken;

use crate::app::{App, run_failure};
use crate::books::Books;
use crate::cli::args::{self, Cli, HoldAction};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::Face;
use crate::render::drill::instant;
use crate::{setup, wiring};

/// Adds, lists or releases.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Hold,
    cancel: CancellationToken,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    if matches!(arguments.action, HoldAction::List) || cli.global.dry_run {
        let memory = Memory::open_to_read(cli, &setup.state).await?;
        let books = Books::open(&memory, setup.state.trusted_keys()?).await?;
        return match &arguments.action {
            HoldAction::List => list(face, &books),
            HoldAction::Add { service, point, reason, until } => {
                let (service, thing) = thing(&setup, &books, service, point.as_deref())?;
                let hold = hold(thing, reason, until.as_deref())?;
                face.say(format!("would hold {} of service {}", hold.thing, service.name))?;
                Ok(Exit::Ok)
            }
            HoldAction::Release { hold, .. } => {
                found(&books, *hold)?;
                face.say(format!("would release hold {hold}"))?;
                Ok(Exit::Ok)
            }
        };
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let books = Books::open(&app.memory, app.setup.state.trusted_keys()?).await?;
    match &arguments.action {
        HoldAction::List => list(face, &books),
        HoldAction::Add { service, point, reason, until } => {
            let (service, thing) = thing(&app.setup, &books, service, point.as_deref())?;
            let hold = hold(thing, reason, until.as_deref())?;
            let words = hold.thing.to_string();
            let held = Held { service: service.name.clone(), hold, executor: wiring::executor() };
            let receipt = commit(&app, Act::Hold(held)).await?;
            face.say(format!("{words} is held; hold {}, receipt {}", receipt.sequence, receipt.digest))?;
            Ok(Exit::Ok)
        }
        HoldAction::Release { hold, reason } => {
            let service = found(&books, *hold)?.0.clone();
            let reason = given(reason)?;
            let released = Released { service, hold: *hold, reason, executor: wiring::executor() };
            let receipt = commit(&app, Act::Release(released)).await?;
            face.say(format!(
                "hold {hold} has ended; what no policy wants is marked by the next `seaworthy retain --apply` and goes a day later; receipt {}",
                receipt.digest
            ))?;
            Ok(Exit::Ok)
        }
    }
}

async fn commit(app: &App, act: Act) -> Outcome<seaworthy_model::receipt::Receipt> {
    let sealed = app.runner.notary().commit(&act, Timestamp::now()).await;
    sealed.map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))
}

fn list(face: &Face, books: &Books) -> Outcome {
    let now = Timestamp::now();
    let holds = books.ground().holds();
    if face.json {
        let rows: Vec<_> = holds
            .iter()
            .map(|(number, (service, hold))| {
                serde_json::json!({ "hold": number, "service": service, "thing": hold.thing, "reason": hold.reason, "until": hold.until })
            })
            .collect();
        face.json(&serde_json::json!({ "schema": "seaworthy.holds/1", "data": rows }))?;
        return Ok(Exit::Ok);
    }
    for (number, (service, hold)) in holds {
        let until = match hold.until {
            None => "until it is released".to_owned(),
            Some(until) if until <= now => format!("ended at {}", instant(until)),
            Some(until) => format!("until {}", instant(until)),
        };
        face.data(format!("{number:>6}  {service}  {}, {until}: {}", hold.thing, printable(&hold.reason)))?;
    }
    if holds.is_empty() {
        face.say("nothing is held")?;
    }
    Ok(Exit::Ok)
}

fn found(books: &Books, number: u64) -> Outcome<&(seaworthy_model::id::ServiceName, Hold)> {
    books.ground().holds().get(&number).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no hold {number}, or it was released"))
            .hint("seaworthy hold list")
    })
}

/// What is to be held: the service, or what one of its copies is a copy of.
fn thing<'a>(
    setup: &'a setup::Setup,
    books: &Books,
    service: &str,
    point: Option<&str>,
) -> Outcome<(&'a seaworthy_model::service::Service, HeldThing)> {
    let services = setup.services(&[service.to_owned()])?;
    let [service] = services.as_slice() else {
        return Err(Failure::new(Exit::Usage, format!("`{}` is no service", printable(service))));
    };
    let Some(point) = point else { return Ok((service, HeldThing::Service(service.name.clone()))) };
    let rule = PointRule::parse(point, SignedDuration::ZERO, Seed(0));
    let Ok(rule @ PointRule::Copy(_)) = rule else {
        return Err(Failure::new(Exit::Usage, format!("`{}` names no copy", printable(point)))
            .hint("write the first digits of its id: seaworthy points"));
    };
    let of_service =
        service.sources.iter().flat_map(|source| books.ground().points(&service.name, &source.name));
    let points: Vec<_> = of_service.cloned().collect();
    let selected = select(&points, &rule, Timestamp::now()).map_err(|error| {
        Failure::because(Exit::NotFound, "find the copy", &error).hint("seaworthy points")
    })?;
    Ok((service, HeldThing::Capture(selected.point.run.clone())))
}

fn hold(thing: HeldThing, reason: &str, until: Option<&str>) -> Outcome<Hold> {
    let until = until.map(super::instant).transpose()?;
    if let Some(until) = until.filter(|until| *until <= Timestamp::now()) {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} has passed: this would hold nothing", instant(until)),
        ));
    }
    Ok(Hold { thing, reason: given(reason)?, until })
}

fn given(reason: &str) -> Outcome<String> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(Failure::new(Exit::Usage, "the reason is empty")
            .hint("say why, in words that whoever asks in a year understands"));
    }
    Ok(reason.to_owned())
}
