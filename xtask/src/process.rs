//! Runs programs so that nothing can hang: standard input is closed, every run has a deadline, and whatever a program
//! leaves running is named and ended.
//!
//! Children stay in our process group, so that Ctrl-C reaches them; descendants are found through `/proc`. We are a
//! child subreaper: a server that detached itself is still our descendant and is still found.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Signal};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program ended by itself.
    By(ExitStatus),
    /// The deadline passed and the program was killed.
    TimedOut,
}

/// What is known after a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended.
    pub(crate) ended: Ended,
    /// Standard output and standard error, interleaved by line, without terminal colours.
    pub(crate) output: String,
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// Names and ids of processes that it left behind; they were ended.
    pub(crate) left_behind: Vec<String>,
}

impl Ran {
    /// Whether the program ended by itself with exit code 0.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.ended, Ended::By(status) if status.success())
    }

    /// How it ended, in words.
    pub(crate) fn describe(&self) -> String {
        match self.ended {
            Ended::By(status) if status.success() => "ok".to_owned(),
            Ended::By(status) => status.to_string(),
            Ended::TimedOut => format!("killed after {}s, its time limit", self.elapsed.as_secs()),
        }
    }
}

/// Whether the program's lines are shown while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Every line is printed as it comes.
    Shown,
    /// Nothing is printed.
    Quiet,
}

/// A detached process cannot be told from another run's, so one run at a time.
static ONE_RUN: Mutex<()> = Mutex::new(());

/// Runs `command` to its end or to `limit`, with standard input closed. One run at a time in this process.
///
/// An `Err` means that it could not be started or waited for.
pub(crate) fn run(command: &mut Command, limit: Duration, echo: Echo) -> io::Result<Ran> {
    run_and(command, limit, echo, Leftovers::Ended)
}

/// As [`run`], but what the program leaves running stays: for `pg_ctl start`. The caller stops it.
pub(crate) fn run_keeping_servers(command: &mut Command, limit: Duration, echo: Echo) -> io::Result<Ran> {
    run_and(command, limit, echo, Leftovers::Kept)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Ended,
    Kept,
}

fn run_and(command: &mut Command, limit: Duration, echo: Echo, leftovers: Leftovers) -> io::Result<Ran> {
    let _one = ONE_RUN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Idempotent, and an old kernel that refuses it only loses the sight of detached servers.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("note: detached processes will not be found: {error}");
    }
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (send, lines) = mpsc::channel::<Vec<u8>>();
    if let Some(stream) = child.stdout.take() {
        forward(stream, send.clone());
    }
    if let Some(stream) = child.stderr.take() {
        forward(stream, send.clone());
    }
    drop(send);

    let mut output = Vec::new();
    let mut status = None;
    let mut ended_at = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                if echo == Echo::Shown {
                    let mut out = io::stdout().lock();
                    out.write_all(&line)?;
                    out.flush()?;
                }
                output.extend_from_slice(&line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if status.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(20)),
        }
        if status.is_none() {
            status = child.try_wait()?;
            if status.is_some() {
                ended_at = Some(Instant::now());
            }
        }
        // 2s: enough for the readers to drain a pipe; a server that inherited the pipe must not keep us here.
        if ended_at.is_some_and(|at| at.elapsed() > Duration::from_secs(2)) {
            break;
        }
        if status.is_none() && started.elapsed() > limit {
            let mut known = Vec::new();
            end_all(Some(child.id()), &mut known);
            child.wait()?;
            return Ok(Ran {
                ended: Ended::TimedOut,
                output: without_colours(&output),
                elapsed: started.elapsed(),
                left_behind: known,
            });
        }
    }
    let elapsed = ended_at.unwrap_or_else(Instant::now).duration_since(started);
    let mut left_behind = Vec::new();
    if leftovers == Leftovers::Ended {
        end_all(None, &mut left_behind);
    }
    let status = match status {
        Some(status) => status,
        None => child.wait()?,
    };
    Ok(Ran { ended: Ended::By(status), output: without_colours(&output), elapsed, left_behind })
}

/// Runs a program quietly and returns its standard output and error as text, or why it failed.
pub(crate) fn capture(program: &str, arguments: &[&str], limit: Duration) -> Result<String, String> {
    let ran = run(Command::new(program).args(arguments), limit, Echo::Quiet)
        .map_err(|error| format!("start `{program}`: {error}"))?;
    if ran.is_success() {
        Ok(ran.output)
    } else {
        Err(format!("`{program}` {}: {}", ran.describe(), last_lines(&ran.output, 3)))
    }
}

/// The program that `cargo` was when it started us, else the one on PATH.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// The last `count` lines, joined by " / ".
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" / ")
}

fn forward(stream: impl Read + Send + 'static, to: mpsc::Sender<Vec<u8>>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if to.send(line).is_err() {
                        return;
                    }
                }
            }
        }
    });
}

fn without_colours(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        if next == '\u{1b}' {
            // CSI: ESC [ ... letter.
            for inner in chars.by_ref() {
                if inner.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            out.push(next);
        }
    }
    out
}

/// Ends every descendant of ours (or of `root` and itself): asks, waits, kills. Names go into `known`.
fn end_all(root: Option<u32>, known: &mut Vec<String>) {
    let mut signal = Signal::TERM;
    for round in 0..60 {
        let found = descendants(std::process::id());
        reap_orphans(root);
        if found.is_empty() {
            return;
        }
        if round == 0 {
            known.extend(found.iter().map(|(pid, name)| format!("{name} ({pid})")));
        }
        // 5s to end by themselves, then no mercy.
        if round == 50 {
            signal = Signal::KILL;
        }
        if round == 0 || round >= 50 {
            for pid in found.keys() {
                if let Some(pid) = Pid::from_raw(*pid)
                    && let Err(error) = rustix::process::kill_process(pid, signal)
                    && error != rustix::io::Errno::SRCH
                {
                    eprintln!("note: could not end process {pid:?}: {error}");
                }
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Collects children that are ours only because their parent died; `keep` is waited for by its owner.
fn reap_orphans(keep: Option<u32>) {
    for pid in zombies(std::process::id()) {
        if Some(pid.cast_unsigned()) == keep {
            continue;
        }
        if let Some(pid) = Pid::from_raw(pid)
            && let Err(error) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG)
            && error != rustix::io::Errno::CHILD
        {
            eprintln!("note: could not reap process {pid:?}: {error}");
        }
    }
}

fn zombies(parent: u32) -> Vec<i32> {
    table()
        .into_iter()
        .filter(|(_, row)| row.parent.cast_unsigned() == parent && row.state == 'Z')
        .map(|(pid, _)| pid)
        .collect()
}

/// Every living descendant of `root`, by id, with its name.
fn descendants(root: u32) -> BTreeMap<i32, String> {
    let table = table();
    let mut found: BTreeMap<i32, String> = BTreeMap::new();
    loop {
        let before = found.len();
        for (pid, row) in &table {
            let is_below = row.parent.cast_unsigned() == root || found.contains_key(&row.parent);
            if is_below && row.state != 'Z' {
                found.entry(*pid).or_insert_with(|| row.name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

struct Row {
    name: String,
    state: char,
    parent: i32,
}

/// The process table. A process that vanishes while we look is left out.
fn table() -> BTreeMap<i32, Row> {
    let mut table = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return table };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
            && let Some(row) = parse_stat(&stat)
        {
            table.insert(pid, row);
        }
    }
    table
}

/// One line of `/proc/<pid>/stat`. The name stands in parentheses and may itself hold parentheses and spaces.
fn parse_stat(stat: &str) -> Option<Row> {
    let open = stat.find('(')?;
    let close = stat.rfind(')')?;
    let mut rest = stat.get(close + 1..)?.split_whitespace();
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    Some(Row { name: stat.get(open + 1..close)?.to_owned(), state, parent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_ends_is_killed_at_its_limit() {
        let ran = run(Command::new("sleep").arg("600"), Duration::from_millis(300), Echo::Quiet).unwrap();
        assert_eq!(ran.ended, Ended::TimedOut);
        assert!(ran.elapsed < Duration::from_secs(20), "{:?}", ran.elapsed);
        assert!(!ran.is_success());
    }

    #[test]
    fn a_program_that_reads_its_input_finds_it_closed() {
        let ran = run(&mut Command::new("cat"), Duration::from_secs(20), Echo::Quiet).unwrap();
        assert!(ran.is_success() && ran.output.is_empty(), "{ran:?}");
    }

    #[test]
    fn both_streams_are_kept_and_colours_are_not() {
        let text = "\u{1b}[31;1mred\u{1b}[0m plain\n";
        let ran = run(Command::new("printf").arg(text), Duration::from_secs(20), Echo::Quiet).unwrap();
        assert_eq!(ran.output, "red plain\n");
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_process_table() {
        let row = parse_stat("42 (a) b (c) S 7 42 42 0 -1").unwrap();
        assert_eq!((row.name.as_str(), row.state, row.parent), ("a) b (c", 'S', 7));
    }

    #[test]
    fn the_last_lines_are_the_last_ones() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b / c");
        assert_eq!(last_lines("a", 3), "a");
    }
}
