//! `drill --prove-the-drill`: evidence that a drill, and a person's own checks, can fail.
//!
//! Every damage is made in a restore of its own, in a sandbox, by a whole drill whose receipt is sealed like any other.

use std::collections::BTreeMap;

use seaworthy_model::finding::FindingCode;
use seaworthy_model::receipt::Drill;
use seaworthy_model::service::{Service, ServiceSource};
use seaworthy_model::verdict::{CheckOutcome, Verdict};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened};
use crate::cli::args::DrillRun;
use crate::cli::drill;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, count};
use crate::render::drill as render;

/// What the damages of one source have come to.
#[derive(Debug, Default)]
struct Tally {
    made: u64,
    caught: u64,
    /// Codes under which damages were caught.
    codes: BTreeMap<&'static str, u64>,
    /// By question of the user's: how often it noticed.
    questions: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds a drill that was a pass until it was damaged; what noticed the damage, in words.
    fn add(&mut self, drill: &Drill) -> Option<String> {
        let control = drill.control.as_ref()?;
        self.made += 1;
        let mut words = Vec::new();
        if control.is_caught() {
            self.caught += 1;
            let mut codes: Vec<&str> = control
                .failed
                .iter()
                .flat_map(|check| &check.findings)
                .map(|finding| finding.code)
                .filter(|code| control.expected.contains(code))
                .map(FindingCode::as_str)
                .collect();
            codes.sort_unstable();
            codes.dedup();
            for code in &control.expected {
                if codes.contains(&code.as_str()) {
                    *self.codes.entry(code.as_str()).or_default() += 1;
                }
            }
            words.push(format!("caught as {}", codes.join(", ")));
        } else {
            words.push("NOT CAUGHT".to_owned());
        }
        let mut noticed = Vec::new();
        for answer in &control.answers {
            let name = answer.name.strip_prefix("user:").unwrap_or(&answer.name);
            let times = self.questions.entry(name.to_owned()).or_default();
            // A question that could not be answered has not noticed anything.
            if answer.outcome == CheckOutcome::Failed {
                *times += 1;
                noticed.push(format!("`{}`", printable(name)));
            }
        }
        if !control.answers.is_empty() {
            words.push(if noticed.is_empty() {
                "none of your checks noticed".to_owned()
            } else {
                format!("noticed by {}", noticed.join(", "))
            });
        }
        Some(format!("{}: {}", printable(&control.damage), words.join("; ")))
    }
}

/// Drills a source `times` times, each with another damage; stops at the first that is not a pass.
#[expect(clippy::too_many_arguments, reason = "what one drill takes, and how many")]
pub(crate) async fn run(
    app: &App,
    face: &Face,
    opened: &mut Opened,
    service: &Service,
    source: &ServiceSource,
    arguments: &DrillRun,
    times: u32,
    cancel: &CancellationToken,
) -> Outcome {
    // Even seeds damage a little, odd ones a lot: both kinds, whatever the first is.
    let first = drill::random()?;
    let mut tally = Tally::default();
    let mut worst = Exit::Ok;
    if !face.json {
        face.data(format!(
            "{}/{}: {}, each damaged in another way",
            service.name,
            source.name,
            count(usize::try_from(times).unwrap_or(usize::MAX), "restore")
        ))?;
    }
    for number in 0..u64::from(times) {
        if cancel.is_cancelled() {
            return Err(Failure::new(
                Exit::Interrupted,
                "interrupted between two drills; the finished ones are sealed",
            ));
        }
        let seed = Some(first.wrapping_add(number));
        let sealed = drill::one(app, face, opened, service, source, arguments, seed, cancel).await?;
        let words = tally.add(&sealed.body);
        if face.json {
            face.json(&serde_json::json!({
                "schema": "seaworthy.drill/1", "event": "damage", "receipt": sealed.receipt.sequence,
                "digest": sealed.receipt.digest, "drill": sealed.body,
            }))?;
        } else if let Some(words) = words {
            face.data(format!("  {}/{times}  {words}", number + 1))?;
        }
        if !matches!(sealed.body.verdict, Verdict::Pass(_)) {
            if !face.json {
                face.data(render::terminal(face, &sealed.receipt, &sealed.body).trim_end())?;
            }
            return Ok(drill::ending(&sealed.body));
        }
        worst = drill::worse(worst, drill::ending(&sealed.body));
    }
    tell(face, service, source, &tally)?;
    Ok(if tally.caught == tally.made { worst } else { drill::worse(worst, Exit::Unknown) })
}

fn tell(face: &Face, service: &Service, source: &ServiceSource, tally: &Tally) -> Outcome<()> {
    if face.json {
        return face.json(&serde_json::json!({
            "schema": "seaworthy.prove/1", "event": "summary", "service": service.name, "source": source.name,
            "damages": tally.made, "caught": tally.caught, "codes": tally.codes, "noticed_by": tally.questions,
        }));
    }
    let codes: Vec<String> = tally.codes.iter().map(|(code, times)| format!("{code} {times}")).collect();
    let (mark, tone) = if tally.caught == tally.made { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
    face.data(format!(
        "{} {}/{}: {} of {} caught ({})",
        face.paint(tone, mark),
        service.name,
        source.name,
        tally.caught,
        count(usize::try_from(tally.made).unwrap_or(usize::MAX), "damage"),
        codes.join(", ")
    ))?;
    for (name, times) in &tally.questions {
        let name = printable(name);
        face.data(if *times == 0 {
            format!(
                "  {} your check `{name}` noticed none of {}: nothing shows that it can fail",
                face.paint(Tone::Warn, "▲"),
                tally.made
            )
        } else {
            format!("  {} your check `{name}` noticed {times} of {}", face.paint(Tone::Good, "✓"), tally.made)
        })?;
    }
    if tally.questions.is_empty() {
        face.data(
            "  you have no checks of your own for this source; see `checks` in the reference of the configuration",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use seaworthy_model::example::{self, About};
    use seaworthy_model::verdict::CheckReport;

    use super::*;

    fn drilled(is_caught: bool, answers: &[(&str, CheckOutcome)]) -> Drill {
        let about = About::new("shop", "database", jiff::Timestamp::UNIX_EPOCH);
        let mut drill = example::drill(&about, None, &example::backup(&about, None), None);
        let control = drill.control.as_mut().expect("it has a control line");
        if !is_caught {
            control.failed.clear();
        }
        control.answers = answers
            .iter()
            .map(|(name, outcome)| CheckReport {
                name: format!("user:{name}"),
                outcome: *outcome,
                detail: String::new(),
                findings: Vec::new(),
            })
            .collect();
        drill
    }

    #[test]
    fn a_check_that_was_not_answered_has_noticed_nothing() {
        let mut tally = Tally::default();
        let words = tally.add(&drilled(
            true,
            &[
                ("rows", CheckOutcome::Failed),
                ("fresh", CheckOutcome::Inconclusive),
                ("sql", CheckOutcome::Passed),
            ],
        ));
        assert!(words.is_some_and(|words| words.ends_with("caught as CT-02; noticed by `rows`")));
        let words = tally.add(&drilled(false, &[("rows", CheckOutcome::Passed)]));
        assert!(words.is_some_and(|words| words.ends_with("NOT CAUGHT; none of your checks noticed")));
        assert_eq!((tally.made, tally.caught), (2, 1));
        assert_eq!(tally.codes, BTreeMap::from([("CT-02", 1)]));
        let noticed: Vec<(&str, u64)> =
            tally.questions.iter().map(|(name, times)| (name.as_str(), *times)).collect();
        assert_eq!(noticed, [("fresh", 0), ("rows", 1), ("sql", 0)]);
    }
}
