//! What a run has shown: a summary, a page, and every trial as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use seaworthy_testkit::page::put_section;
use serde::Serialize;

use crate::case::{Case, Kind, Naive, Trial};
use crate::run::{Options, Ran, chosen};

/// What one case came to.
#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    name: String,
    layer: String,
    what: String,
    expected: Vec<&'static str>,
    trials: u64,
    /// Trials in which something was told; of a healthy variation, those that were not proven.
    detected: u64,
    /// Trials in which one of the expected codes was told.
    exact: u64,
    /// Median milliseconds to the verdict.
    median_ms: u64,
    /// Trials that each naive checker judged, and in how many of them it said that all is well.
    naive: [(u64, u64); 3],
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    date: String,
    seeds: Vec<u64>,
    seconds: u64,
    /// Argument lists that were read meanwhile; none held the password.
    samples: u64,
    rows: Vec<Row>,
    trials: Vec<Trial>,
}

impl Report {
    /// Adds up.
    #[must_use]
    pub fn of(options: &Options, ran: Ran, took: Duration, machine: String) -> Self {
        let Ran { mut trials, samples } = ran;
        trials.sort_by(|a, b| (a.kind, &a.case, a.seed).cmp(&(b.kind, &b.case, b.seed)));
        let mut by_case: BTreeMap<(Kind, &str), Vec<&Trial>> = BTreeMap::new();
        for trial in &trials {
            by_case.entry((trial.kind, trial.case.as_str())).or_default().push(trial);
        }
        let mut rows = Vec::new();
        for kind in &options.kinds {
            for case in chosen(*kind, options) {
                if let Some(of_case) = by_case.get(&(*kind, case.name.as_str())) {
                    rows.push(row(*kind, &case, of_case));
                }
            }
        }
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        let seeds: BTreeSet<u64> = trials.iter().map(|trial| trial.seed).collect();
        let seeds = seeds.into_iter().collect();
        Self { machine, date, seeds, seconds: took.as_secs(), samples, rows, trials }
    }

    fn wrong(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.layer != "healthy")
    }

    fn healthy(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.layer == "healthy")
    }

    /// Nothing was missed, at least 95 % were named exactly, and nothing healthy raised an alarm.
    #[must_use]
    pub fn holds(&self) -> bool {
        let (trials, exact): (u64, u64) =
            self.wrong().fold((0, 0), |(trials, exact), row| (trials + row.trials, exact + row.exact));
        self.wrong().all(|row| row.detected == row.trials)
            && exact * 100 >= trials * 95
            && self.healthy().all(|row| row.detected == 0)
            && !self.rows.is_empty()
    }

    /// The figures in a few lines.
    #[must_use]
    pub fn summary(&self) -> String {
        let sum = |rows: &mut dyn Iterator<Item = &Row>| {
            rows.fold([0_u64; 3], |sum, row| [sum[0] + row.trials, sum[1] + row.detected, sum[2] + row.exact])
        };
        let [trials, detected, exact] = sum(&mut self.wrong());
        let [drills, alarms, _] = sum(&mut self.healthy());
        let mut text = format!(
            "{} mutations, {trials} trials: {detected} detected ({}), {exact} under an exact code ({})\n\
             {} healthy variations, {drills} trials: {alarms} false alarms{}\n",
            self.wrong().count(),
            percent(detected, trials),
            percent(exact, trials),
            self.healthy().count(),
            if drills > 0 && alarms == 0 {
                format!(" (below {:.2} % at 95 % confidence)", 300.0 / drills as f64)
            } else {
                String::new()
            },
        );
        for (index, name) in NAIVE.iter().enumerate() {
            let (judged, passed) = self.wrong().fold((0, 0), |(judged, passed), row| {
                (judged + row.naive[index].0, passed + row.naive[index].1)
            });
            put(
                &mut text,
                &format!("{name}: {passed} of {judged} wrong copies pass ({})\n", percent(passed, judged)),
            );
        }
        put(
            &mut text,
            &format!(
                "the password was in none of {} argument lists, and in no file that a trial has left\n{} s",
                self.samples, self.seconds
            ),
        );
        text
    }

    /// The page with the section of this run, which was of one kind of source and of a product built from this commit.
    #[must_use]
    pub fn put_into(&self, page: &str, kind: Kind, commit: &str) -> String {
        put_section(page, &format!("sabotage-{}", kind.word()), &self.section(kind, commit))
    }

    fn section(&self, kind: Kind, commit: &str) -> String {
        let mut page = String::new();
        let seeds = match (self.seeds.first(), self.seeds.last()) {
            (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
            (Some(first), _) => first.to_string(),
            (None, _) => "none".to_owned(),
        };
        put(&mut page, &format!("\n### {}\n\n", kind.title()));
        put(
            &mut page,
            &format!(
                "Measured {} by `cargo xtask sabotage --kind {}`, seeds {seeds}, of {commit}, in {} minutes.\n\n- Machine: {}\n",
                self.date,
                kind.word(),
                self.seconds.div_ceil(60),
                self.machine
            ),
        );
        for line in self.summary().lines().filter(|line| !line.ends_with(" s")) {
            put(&mut page, &format!("- {line}\n"));
        }
        put(
            &mut page,
            "\n| mutation | where | what is wrong | expected | detected | exact | naive: exit | checksum | counts | median s |\n|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in self.wrong() {
            let naive = |index: usize| match row.naive[index] {
                (0, _) => "-".to_owned(),
                (judged, passed) => format!("{passed}/{judged}"),
            };
            put(
                &mut page,
                &format!(
                    "| {}/{} | {} | {} | {} | {}/{} | {}/{} | {} | {} | {} | {:.1} |\n",
                    row.kind.word(),
                    row.name,
                    row.layer,
                    row.what,
                    row.expected.join(", "),
                    row.detected,
                    row.trials,
                    row.exact,
                    row.trials,
                    naive(0),
                    naive(1),
                    naive(2),
                    row.median_ms as f64 / 1000.0
                ),
            );
        }
        put(
            &mut page,
            "\n| healthy variation | what is unusual | trials | false alarms | median s |\n|---|---|---|---|---|\n",
        );
        for row in self.healthy() {
            put(
                &mut page,
                &format!(
                    "| {}/{} | {} | {} | {} | {:.1} |\n",
                    row.kind.word(),
                    row.name,
                    row.what,
                    row.trials,
                    row.detected,
                    row.median_ms as f64 / 1000.0
                ),
            );
        }
        put(&mut page, "\n");
        page
    }
}

const NAIVE: [&str; 3] = ["exit code and list", "checksum", "exact counts"];

fn row(kind: Kind, case: &Case, trials: &[&Trial]) -> Row {
    let count = |is: &dyn Fn(&Trial) -> bool| trials.iter().filter(|trial| is(trial)).count() as u64;
    let mut times: Vec<u64> = trials.iter().map(|trial| trial.said.took_ms).collect();
    times.sort_unstable();
    let naive = |of: fn(&crate::case::Naives) -> Naive| {
        let judged = trials.iter().filter_map(|trial| trial.naive.as_ref().map(of));
        judged
            .filter(|naive| *naive != Naive::Blank)
            .fold((0, 0), |(judged, passed), naive| (judged + 1, passed + u64::from(naive == Naive::Pass)))
    };
    Row {
        kind,
        name: case.name.clone(),
        layer: case.layer.to_string(),
        what: case.what.clone(),
        expected: case.expected.clone(),
        trials: trials.len() as u64,
        detected: count(&|trial| trial.is_wrong(case) == case.is_healthy()),
        exact: count(&|trial| trial.is_attributed(case)),
        median_ms: times.get(times.len() / 2).copied().unwrap_or_default(),
        naive: [naive(|all| all.exit), naive(|all| all.checksum), naive(|all| all.counts)],
    }
}

/// A share in tenths of a percent, rounded down: all is said of all only.
fn percent(part: u64, whole: u64) -> String {
    match (part * 1_000).checked_div(whole) {
        Some(tenths) => format!("{}.{} %", tenths / 10, tenths % 10),
        None => "none".to_owned(),
    }
}

/// Writing to a `String` cannot fail.
fn put(page: &mut String, text: &str) {
    page.write_str(text).expect("a String grows until memory ends");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_said_of_all_only() {
        assert_eq!([percent(4_249, 4_250), percent(7, 7), percent(0, 0)], ["99.9 %", "100.0 %", "none"]);
    }
}
