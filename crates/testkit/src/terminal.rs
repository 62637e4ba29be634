//! A person at a terminal: a program on a pseudo-terminal of its own, what it shows, and keys for it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A program at a terminal of 30 lines and 160 columns; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Screen>,
    /// How much of the screen has been looked at.
    seen: usize,
}

#[derive(Debug, Default)]
struct Screen {
    shown: Mutex<Shown>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shown {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Terminal {
    /// Starts `program` with its three streams at a new terminal, which controls it.
    ///
    /// # Errors
    ///
    /// Where no terminal can be had, or `setsid` (util-linux) or the program cannot be started.
    pub fn start(command: &Command) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = File::options().read(true).write(true).open(name.to_string_lossy().as_ref())?;
        tcsetwinsize(slave.as_fd(), Winsize { ws_row: 30, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 })?;
        // It makes the terminal the program's own, and becomes the program.
        let mut at_terminal = Command::new("setsid");
        at_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                at_terminal.env(name, value);
            }
        }
        if let Some(directory) = command.get_current_dir() {
            at_terminal.current_dir(directory);
        }
        let stream = || slave.try_clone().map(Stdio::from);
        at_terminal.env("TERM", "xterm").arg0("setsid");
        let child = at_terminal.stdin(stream()?).stdout(stream()?).stderr(stream()?).spawn()?;
        drop(slave);
        let keys = File::from(master);
        let screen = Arc::new(Screen::default());
        let (eye, mut glass, mut answers) = (Arc::clone(&screen), keys.try_clone()?, keys.try_clone()?);
        std::thread::spawn(move || {
            let mut part = [0_u8; 4_096];
            // A terminal whose program has ended is an error, not an end.
            while let Ok(length @ 1..) = glass.read(&mut part) {
                if part[..length].windows(4).any(|four| four == b"\x1b[6n")
                    && answers.write_all(b"\x1b[1;1R").is_err()
                {
                    break;
                }
                let mut shown = eye.shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.bytes.extend_from_slice(&part[..length]);
                eye.changed.notify_all();
            }
            eye.shown.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
            eye.changed.notify_all();
        });
        Ok(Self { child, keys, screen, seen: 0 })
    }

    /// Waits until `words` are shown after what was waited for before; everything shown since then.
    ///
    /// # Errors
    ///
    /// What is shown instead, where the program has ended or `patience` is over.
    pub fn shows(&mut self, words: &str, patience: Duration) -> Result<String, String> {
        let until = Instant::now() + patience;
        let mut shown = self.screen.shown.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let text = plain(&shown.bytes);
            let new = text.get(self.seen..).unwrap_or_default();
            if let Some(at) = new.find(words) {
                let told = new.to_owned();
                self.seen += at + words.len();
                return Ok(told);
            }
            let left = until.saturating_duration_since(Instant::now());
            if shown.is_over || left.is_zero() {
                return Err(format!("`{words}` is not shown:\n{text}"));
            }
            shown = self.screen.changed.wait_timeout(shown, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types; `\r` is Return, `\u{1b}` Escape, `\u{1b}[B` the arrow down.
    ///
    /// # Errors
    ///
    /// Where the terminal is gone.
    pub fn types(&mut self, keys: &str) -> io::Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        self.keys.flush()
    }

    /// Waits for the program's end; how it ended, and all that was shown.
    ///
    /// # Errors
    ///
    /// What was shown, where it has not ended by then.
    pub fn ends(mut self, patience: Duration) -> Result<(ExitStatus, String), String> {
        let until = Instant::now() + patience;
        loop {
            let status = self.child.try_wait().map_err(|error| error.to_string())?;
            let shown = self.screen.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(status), true) = (status, shown.is_over) {
                return Ok((status, plain(&shown.bytes)));
            }
            if Instant::now() >= until {
                return Err(format!("it has not ended:\n{}", plain(&shown.bytes)));
            }
            drop(shown);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and needs not to be.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// What was written without what moves and colours it.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
            continue;
        }
        if characters.next_if_eq(&'[').is_some() {
            for part in characters.by_ref() {
                if ('@'..='~').contains(&part) {
                    break;
                }
            }
        } else {
            characters.next();
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_at_a_terminal_sees_one_and_reads_what_is_typed() {
        let mut command = Command::new("/bin/sh");
        let script = "test -t 0 && test -t 1 && test -t 2 && printf 'name? \\033[1mbold\\033[0m' && read name && echo \"is:$name\"; exit 3";
        command.args(["-c", script]).env("PATH", "/usr/bin:/bin");
        let mut terminal = Terminal::start(&command).unwrap();
        terminal.shows("name? bold", PATIENCE).unwrap();
        terminal.types("somebody\r").unwrap();
        terminal.shows("is:somebody", PATIENCE).unwrap();
        let missing = terminal.shows("never", Duration::from_millis(200)).unwrap_err();
        assert!(missing.contains("name? bold"), "{missing}");
        let (status, text) = terminal.ends(PATIENCE).unwrap();
        assert_eq!((status.code(), text.matches("is:somebody").count()), (Some(3), 1));
    }
}
