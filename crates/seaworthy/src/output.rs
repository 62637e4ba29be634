//! Data to standard output, talk to standard error; progress with rate and remaining time where somebody watches, a line
//! a minute elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use seaworthy_interface::Progress;
use seaworthy_interface::cx::ProgressSink;
use seaworthy_model::receipt::{Phase, Receipt};

use crate::cli::args::{Colour, Global};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};

/// How this run talks.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    /// JSON on standard output.
    pub(crate) json: bool,
    quiet: bool,
    /// Colour on standard output. The configuration, read later, may have a word in it.
    colour: Arc<AtomicBool>,
    is_plain: bool,
    bar: bool,
    lines: bool,
    verbosity: u8,
    began: Instant,
}

/// A colour with a meaning. Never the only carrier of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    /// It holds.
    Good,
    /// Look at it tomorrow.
    Warn,
    /// It does not hold.
    Bad,
    /// Beside the point.
    Dim,
    /// The point.
    Bold,
}

impl Face {
    /// Reads the flags and whether anybody watches.
    pub(crate) fn new(global: &Global) -> Self {
        let watched = std::io::stderr().is_terminal();
        let wanted = global.color.unwrap_or_else(|| match std::env::var("SEAWORTHY_COLOR").as_deref() {
            Ok("always") => Colour::Always,
            Ok("never") => Colour::Never,
            _ => Colour::Auto,
        });
        let colour = match wanted {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                forced || (std::io::stdout().is_terminal() && !refused)
            }
        };
        let progress = !global.no_progress && !global.quiet;
        Self {
            json: global.json,
            quiet: global.quiet,
            colour: Arc::new(AtomicBool::new(colour && !global.json)),
            is_plain: wanted == Colour::Never,
            bar: progress && watched && !global.json,
            lines: progress && !watched,
            verbosity: if global.quiet { 0 } else { global.verbose },
            began: Instant::now(),
        }
    }

    /// Whether standard output is coloured.
    pub(crate) fn colour(&self) -> bool {
        self.colour.load(Ordering::Relaxed)
    }

    /// Whether only what is wrong is to be said.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether colour was refused by name. Libraries that ask people questions know NO_COLOR by themselves, and not this.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Heeds the setting `color` in force, which a configuration may have set where neither flag nor environment did.
    pub(crate) fn heed_colour(&self, setting: &str) {
        match setting {
            "always" if !self.json => self.colour.store(true, Ordering::Relaxed),
            "never" => self.colour.store(false, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Prints a line of data.
    pub(crate) fn data(&self, line: impl AsRef<str>) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", line.as_ref()).or_else(|error| ignore_closed_pipe(&error))
    }

    /// Prints a table; where a terminal is too narrow for it, cells break and columns stay.
    pub(crate) fn table(&self, table: &mut Table) -> Outcome<()> {
        if let Some(width) = terminal_width() {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        self.data(table.trim_fmt())
    }

    /// Whether standard output is a terminal on which a wide table would break.
    pub(crate) fn is_narrow(&self) -> bool {
        terminal_width().is_some_and(|width| width < 105)
    }

    /// Prints a JSON document as one line of data.
    pub(crate) fn json(&self, value: &serde_json::Value) -> Outcome<()> {
        self.data(value.to_string())
    }

    /// Says something to a person.
    pub(crate) fn say(&self, line: impl AsRef<str>) -> Outcome<()> {
        if self.quiet {
            return Ok(());
        }
        let mut out = std::io::stderr().lock();
        writeln!(out, "{}", line.as_ref()).or_else(|error| ignore_closed_pipe(&error))
    }

    /// Says a step that was done, for `-v`.
    pub(crate) fn step(&self, words: impl AsRef<str>) -> Outcome<()> {
        if self.verbosity == 0 { Ok(()) } else { self.say(self.stamped(words.as_ref())) }
    }

    /// Says what only `-vv` wants to know.
    pub(crate) fn detail(&self, words: impl AsRef<str>) -> Outcome<()> {
        if self.verbosity < 2 { Ok(()) } else { self.say(self.stamped(words.as_ref())) }
    }

    fn stamped(&self, words: &str) -> String {
        stamped(self.began, words)
    }

    /// Says that something went wrong: in `--quiet` too, and to machines as an event.
    pub(crate) fn fail(&self, subject: &str, mark: &str, failure: &Failure) -> Outcome<()> {
        if self.json {
            self.json(&serde_json::json!({
                "schema": "seaworthy.error/1", "event": "error", "subject": subject, "exit": failure.exit.number(),
                "error": failure.chain, "hint": failure.hint,
            }))?;
        }
        let mut out = std::io::stderr().lock();
        writeln!(out, "{mark} {subject}\n{}", failure.render()).or_else(|error| ignore_closed_pipe(&error))
    }

    /// Text in a tone, where colour is on.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31;1",
            Tone::Dim => "2",
            Tone::Bold => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A receiver of progress about `subject`, and what clears it when the work is over.
    pub(crate) fn watch(&self, subject: &str) -> Watch {
        let bar = if self.bar {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            ProgressBar::hidden()
        };
        bar.set_prefix(subject.to_owned());
        bar.set_style(style("{spinner} {prefix}  {msg}"));
        let state = Arc::new(Mutex::new(State {
            subject: subject.to_owned(),
            phase: String::new(),
            began: Instant::now(),
            told: Instant::now(),
            json: self.json && !self.quiet,
            lines: self.lines && !self.json,
            verbosity: self.verbosity,
            run: self.began,
        }));
        Watch { bar, state }
    }
}

/// Columns of the terminal on standard output, where it is one that says so.
fn terminal_width() -> Option<u16> {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    size.map(|size| size.ws_col).filter(|width| *width >= 40)
}

fn ignore_closed_pipe(error: &std::io::Error) -> Outcome<()> {
    // `seaworthy points | head` closes our output; that is the reader's decision, not a failure.
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::because(Exit::Unexpected, "write to standard output", error))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What is said for `-v`: when, counted from the start of the run, and what.
fn stamped(began: Instant, words: &str) -> String {
    format!("[{:8.3}s] {}", began.elapsed().as_secs_f64(), printable(words))
}

/// One line a minute where nobody watches.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// One a second for `-vv`.
const DETAIL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct State {
    subject: String,
    phase: String,
    began: Instant,
    told: Instant,
    json: bool,
    lines: bool,
    verbosity: u8,
    run: Instant,
}

/// Progress of one piece of work.
#[derive(Debug)]
pub(crate) struct Watch {
    bar: ProgressBar,
    state: Arc<Mutex<State>>,
}

impl Watch {
    /// The receiver to hand to the work.
    pub(crate) fn sink(&self) -> ProgressSink {
        let bar = self.bar.clone();
        let state = Arc::clone(&self.state);
        Arc::new(move |progress| {
            if let Ok(mut state) = state.lock() {
                show(&bar, &mut state, &progress);
            }
        })
    }

    /// Says a step that was done, for `-v`.
    pub(crate) fn step(&self, words: &str) {
        self.say(1, words);
    }

    /// Says which receipt came of it, for `-v`, and where the time went, for `-vv`.
    pub(crate) fn sealed(&self, receipt: &Receipt, phases: &[Phase]) {
        for phase in phases {
            self.say(2, &format!("{} took {}", phase.name, duration(Duration::from_millis(phase.took_ms))));
        }
        self.say(1, &format!("sealed receipt {} {}", receipt.sequence, receipt.digest));
    }

    fn say(&self, level: u8, words: &str) {
        if let Ok(state) = self.state.lock()
            && state.verbosity >= level
        {
            self.bar.suspend(|| tell(&stamped(state.run, &format!("{}: {words}", state.subject))));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn show(bar: &ProgressBar, state: &mut State, progress: &Progress) {
    let words = match progress {
        Progress::Phase(name) => {
            state.phase.clone_from(name);
            state.began = Instant::now();
            bar.set_style(style("{spinner} {prefix}  {msg}"));
            bar.set_message(name.clone());
            if state.json {
                event(&serde_json::json!({ "event": "phase", "subject": state.subject, "phase": name }));
            }
            if state.verbosity > 0 {
                bar.suspend(|| tell(&stamped(state.run, &format!("{}: {name}", state.subject))));
            }
            return;
        }
        Progress::Bytes { done, total } => rate(&state.phase, *done, *total, state.began.elapsed(), bytes),
        Progress::Items { done, total } => {
            rate(&state.phase, *done, *total, state.began.elapsed(), |count| count.to_string())
        }
    };
    bar.set_message(words.clone());
    let is_detailed = state.verbosity > 1;
    if state.told.elapsed() >= if is_detailed { DETAIL_EVERY } else { TELL_EVERY } {
        state.told = Instant::now();
        if is_detailed {
            bar.suspend(|| tell(&stamped(state.run, &format!("{}: {words}", state.subject))));
        } else if state.json {
            event(
                &serde_json::json!({ "event": "progress", "subject": state.subject, "phase": state.phase, "message": words }),
            );
        } else if state.lines {
            tell(&format!("{}: {words}", state.subject));
        }
    }
}

/// Prints an event line; progress is worth no failure, so a closed output is ignored here.
fn event(value: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{value}").is_err() {
        // Whoever read the events has gone; the run goes on.
    }
}

fn tell(line: &str) {
    let mut out = std::io::stderr().lock();
    if writeln!(out, "{line}").is_err() {
        // Whoever read the terminal has gone; the run goes on.
    }
}

/// `restore 1.2 GiB of 4.0 GiB, 210 MiB/s, 14s left`: the rate is the average since the phase began.
fn rate(
    phase: &str,
    done: u64,
    total: Option<u64>,
    elapsed: Duration,
    unit: impl Fn(u64) -> String,
) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let per_second = done as f64 / seconds;
    let mut words = format!("{phase} {}", unit(done));
    if let Some(total) = total {
        words.push_str(&format!(" of {}", unit(total)));
    }
    words.push_str(&format!(", {}/s", unit(per_second as u64)));
    if let Some(total) = total.filter(|total| *total > done && per_second > 0.0) {
        let left = (total - done) as f64 / per_second;
        words.push_str(&format!(", {} left", duration(Duration::from_secs_f64(left.min(1e9)))));
    }
    words
}

/// `1.5 GiB`: binary units, three significant digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// `6m12s`, `850ms`, `2d 3h`: two units at most, nothing rounded up.
pub(crate) fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds {
        0 if took.as_millis() < 1 => format!("{}µs", took.as_micros()),
        0 => format!("{}ms", took.as_millis()),
        1..10 => format!("{}.{}s", seconds, took.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 if seconds % 3600 < 60 => format!("{}h", seconds / 3600),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ if seconds % 86_400 < 3600 => format!("{}d", seconds / 86_400),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `1 service`, `2 services`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']))) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1, "service"), "1 service");
        assert_eq!(count(0, "repository"), "0 repositories");
        assert_eq!(count(2, "key"), "2 keys");
    }

    #[test]
    fn numbers_carry_their_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(10 * 1024 * 1024 * 1024), "10.0 GiB");
        assert_eq!(duration(Duration::from_millis(850)), "850ms");
        assert_eq!(duration(Duration::from_secs(372)), "6m12s");
        assert_eq!(duration(Duration::from_secs(4 * 3600)), "4h");
        assert_eq!(duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(duration(Duration::from_secs(2 * 86_400 + 3 * 3600)), "2d 3h");
    }

    #[test]
    fn progress_says_how_long_it_still_takes() {
        let words = rate("restore", 1 << 30, Some(2 << 30), Duration::from_secs(10), bytes);
        assert_eq!(words, "restore 1.00 GiB of 2.00 GiB, 102 MiB/s, 10s left");
    }
}
