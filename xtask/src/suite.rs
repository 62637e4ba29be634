//! `cargo xtask test`: everything that must hold, in one command, the same on a laptop and in continuous integration.
//!
//! Every step is a program with a time limit and a closed standard input. All steps run even when one fails. The last
//! line is `N passed, N failed`: every test counts, and every step that is not a test run counts as one.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::process::{self, Echo, Ended, Ran};
use crate::{TaskResult, components, readme, workspace};

/// The options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Install nothing; a missing component is still a failure.
    #[arg(long)]
    no_install: bool,
    /// Run only these steps, by name, comma separated.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these steps out, by name, comma separated. What was left out is printed.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
}

/// What a step's output is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One thing: it held or it did not.
    Check,
    /// Many tests: they are counted, and none at all is a failure.
    Tests,
    /// Documentation tests: counted, and none at all is allowed.
    MaybeTests,
}

struct Step {
    name: &'static str,
    kind: Kind,
    limit: Duration,
    command: Command,
}

struct Outcome {
    name: String,
    passed: u64,
    failed: u64,
    skipped: u64,
    elapsed: Duration,
    note: String,
}

/// What is off by default and tested nevertheless. The same for every step, so that nothing is built twice.
const FEATURES: &str = "--features=seaworthy-testkit/sqlite";
const MINUTE: Duration = Duration::from_secs(60);

/// Runs the suite; the exit code is 0 only when something ran and nothing failed.
pub(crate) fn run(options: &Options) -> TaskResult {
    let started = Instant::now();
    let root = workspace::root();
    let mut outcomes = Vec::new();

    heading("components", "what the tests need from outside");
    let begun = Instant::now();
    let found = components::provide(&root, !options.no_install);
    for line in &found.lines {
        println!("   {line}");
    }
    for missing in &found.missing {
        println!("   MISSING {missing}");
    }
    outcomes.push(Outcome {
        name: "components".to_owned(),
        passed: u64::from(found.missing.is_empty()),
        failed: u64::from(!found.missing.is_empty()),
        skipped: 0,
        elapsed: begun.elapsed(),
        note: if found.missing.is_empty() { String::new() } else { "see above what is missing".to_owned() },
    });

    let steps = steps(&root)?;
    for name in options.only.iter().chain(&options.skip) {
        if !steps.iter().any(|step| step.name == name) {
            let known: Vec<&str> = steps.iter().map(|step| step.name).collect();
            return Err(format!("no step is called `{name}`; there are: {}", known.join(", ")).into());
        }
    }
    let mut left_out = Vec::new();
    for mut step in steps {
        let is_wanted = options.only.is_empty() || options.only.iter().any(|name| name == step.name);
        if !is_wanted || options.skip.iter().any(|name| name == step.name) {
            left_out.push(step.name);
            continue;
        }
        heading(step.name, &words(&step.command));
        step.command.current_dir(&root).env("CARGO_TERM_COLOR", "never").env("NO_COLOR", "1");
        step.command.envs(found.environment.iter().map(|(name, value)| (name, value)));
        outcomes.push(match process::run(&mut step.command, step.limit, Echo::Shown) {
            Ok(ran) => judge(step.name, step.kind, &ran),
            Err(error) => Outcome {
                name: step.name.to_owned(),
                passed: 0,
                failed: 1,
                skipped: 0,
                elapsed: Duration::ZERO,
                note: format!("could not start: {error}"),
            },
        });
    }
    Ok(summary(&outcomes, &left_out, started.elapsed()))
}

fn steps(root: &Path) -> Result<Vec<Step>, Box<dyn std::error::Error>> {
    let xtask = std::env::current_exe()?;
    let cargo = |arguments: &[&str]| {
        let mut command = process::cargo();
        command.args(arguments);
        command
    };
    let own = |arguments: &[&str]| {
        let mut command = Command::new(&xtask);
        command.args(arguments);
        command
    };
    let has_nextest = components::find("cargo-nextest").is_some();
    let tests = if has_nextest {
        cargo(&[
            "nextest",
            "run",
            "--workspace",
            FEATURES,
            "--locked",
            "--no-fail-fast",
            "--status-level",
            "fail",
        ])
    } else {
        cargo(&[
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
        ])
    };
    let step = |name, kind, minutes: u32, command| Step { name, kind, limit: MINUTE * minutes, command };
    let mut steps = vec![
        step("fmt", Kind::Check, 2, cargo(&["fmt", "--all", "--", "--check"])),
        step("tidy", Kind::Check, 2, own(&["tidy"])),
        step("gen", Kind::Check, 5, own(&["gen", "--check"])),
        step(
            "clippy",
            Kind::Check,
            20,
            cargo(&[
                "clippy",
                "--keep-going",
                "--workspace",
                "--all-targets",
                FEATURES,
                "--locked",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        step("test", Kind::Tests, 45, tests),
        step("doctest", Kind::MaybeTests, 10, cargo(&["test", "--workspace", FEATURES, "--locked", "--doc"])),
    ];
    for (number, arguments) in readme::commands(&workspace::read(&root.join("README.md"))?).iter().enumerate()
    {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let name = if number == 0 { "readme" } else { "readme-more" };
        // The first of them is a release build on two cores: 5 min on a quiet machine, 11 on a busy one.
        steps.push(step(name, Kind::Check, 20, cargo(&arguments)));
    }
    if components::find("cargo-deny").is_some() {
        // Advisories need the network's newest list; licences, bans and sources do not and are also checked by tidy.
        steps.push(step("deny", Kind::Check, 5, cargo(&["deny", "check", "bans", "licenses", "sources"])));
    } else {
        println!(
            "note: cargo-deny is not installed; tidy checks licences, bans and sources from deny.toml itself"
        );
    }
    Ok(steps)
}

fn judge(name: &str, kind: Kind, ran: &Ran) -> Outcome {
    let mut note = if ran.is_success() { String::new() } else { ran.describe() };
    if !ran.left_behind.is_empty() {
        note.push_str(&format!(" left running, now ended: {}", ran.left_behind.join(", ")));
    }
    let counts = if kind == Kind::Check { Counts::default() } else { count(&ran.output) };
    let ran_nothing = kind == Kind::Tests && counts.passed + counts.failed == 0;
    let (passed, failed) = match kind {
        Kind::Check => (u64::from(ran.is_success()), u64::from(!ran.is_success())),
        Kind::Tests | Kind::MaybeTests => {
            // A run that fails without a failed test (a build error, a kill) still counts as one failure.
            let unexplained = (!ran.is_success() && counts.failed == 0) || ran_nothing;
            (counts.passed, counts.failed + u64::from(unexplained))
        }
    };
    if ran_nothing {
        note.push_str(" no test ran");
    }
    if ran.ended == Ended::TimedOut {
        note.push_str("; raise the limit or make it faster");
    }
    Outcome {
        name: name.to_owned(),
        passed,
        failed,
        skipped: counts.skipped,
        elapsed: ran.elapsed,
        note: note.trim().to_owned(),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Counts from `cargo nextest` ("Summary [ 1.2s] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped") and from
/// `cargo test` ("test result: ok. 4 passed; 0 failed; 1 ignored; ..."), several of the latter added up.
fn count(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines() {
        let line = line.trim();
        let figures = if let Some(rest) = line.strip_prefix("test result: ") {
            rest
        } else if line.starts_with("Summary [") {
            line.split_once("run: ").map_or("", |(_, rest)| rest)
        } else {
            continue;
        };
        let mut previous = 0;
        for word in figures.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            if let Ok(number) = word.parse() {
                previous = number;
                continue;
            }
            match word {
                "passed" => counts.passed += previous,
                "failed" | "timed" | "exec" => counts.failed += previous,
                "skipped" | "ignored" => counts.skipped += previous,
                _ => {}
            }
            previous = 0;
        }
    }
    counts
}

fn summary(outcomes: &[Outcome], left_out: &[&str], elapsed: Duration) -> ExitCode {
    println!("\n== summary");
    for outcome in outcomes {
        let word = if outcome.failed == 0 { "ok    " } else { "FAILED" };
        let seconds = outcome.elapsed.as_secs_f64();
        println!(
            "   {word} {:<12} {seconds:>7.1}s  {} passed, {} failed{}{}",
            outcome.name,
            outcome.passed,
            outcome.failed,
            if outcome.skipped > 0 { format!(", {} not run", outcome.skipped) } else { String::new() },
            if outcome.note.is_empty() { String::new() } else { format!("  ({})", outcome.note) },
        );
    }
    for name in left_out {
        println!("   NOT RUN {name} (left out by --only or --skip)");
    }
    println!("   {:.0}s in all", elapsed.as_secs_f64());
    let passed: u64 = outcomes.iter().map(|outcome| outcome.passed).sum();
    let failed: u64 = outcomes.iter().map(|outcome| outcome.failed).sum();
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn heading(name: &str, what: &str) {
    println!("\n== {name}: {what}");
}

fn words(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(program, |line, argument| line + " " + &argument.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(command: &mut Command, limit: Duration) -> Ran {
        process::run(command, limit, Echo::Quiet).unwrap()
    }

    #[test]
    fn tests_of_nextest_and_of_cargo_are_counted() {
        let nextest =
            "  Summary [   1.204s] 7 tests run: 4 passed (1 slow), 2 failed, 1 timed out, 3 skipped\n";
        assert_eq!(count(nextest), Counts { passed: 4, failed: 3, skipped: 3 });
        let cargo = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                     test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count(cargo), Counts { passed: 4, failed: 2, skipped: 1 });
        assert_eq!(count("  Summary [ 0.1s] 1 test run: 1 passed, 0 skipped").passed, 1);
    }

    #[test]
    fn a_test_run_without_tests_is_a_failure() {
        let nothing = ran(&mut Command::new("true"), MINUTE);
        assert_eq!(judge("test", Kind::Tests, &nothing).failed, 1);
        assert_eq!(judge("doctest", Kind::MaybeTests, &nothing).failed, 0);
    }

    #[test]
    fn a_build_error_counts_as_a_failure_though_no_test_failed() {
        let broken = ran(&mut Command::new("false"), MINUTE);
        assert_eq!(judge("doctest", Kind::MaybeTests, &broken).failed, 1);
        assert_eq!(judge("fmt", Kind::Check, &broken).failed, 1);
    }

    #[test]
    fn a_step_out_of_time_fails() {
        let late = ran(Command::new("sleep").arg("60"), Duration::from_millis(200));
        let outcome = judge("test", Kind::Tests, &late);
        assert_eq!(outcome.failed, 1);
        assert!(outcome.note.contains("time limit"), "{}", outcome.note);
    }
}
