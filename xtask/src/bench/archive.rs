//! The log file by file: `wal push`, `wal get` and a recovery with them over the socket of `wal serve`, against pgBackRest's `archive-push`
//! and `archive-get`.
//!
//! Each file is given to both, and which is first changes from file to file. Both are started for each file, as a server does, as the server's
//! user. Both recover the same restored cluster, of which nothing is written to the disk for good (`fsync=off`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seaworthy_testkit::components;
use seaworthy_testkit::postgres::{Server, server_user};

use super::cluster::{Peer, load, owned};
use super::logical::Place;
use crate::process;

type Failure = Box<dyn std::error::Error>;

/// Seconds for which log is written.
const LOAD_S: u64 = 20;
/// Until `wal serve` has opened the repository.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one round has measured: pgBackRest's, and ours.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Seconds for each file.
    pub(super) push: Vec<[f64; 2]>,
    pub(super) get: Vec<[f64; 2]>,
    /// Seconds of a recovery of all of them.
    pub(super) replay: [f64; 2],
    /// Files, and bytes of each.
    pub(super) files: (usize, u64),
    /// What `wal serve` has held at most, in MiB.
    pub(super) peak_mib: f64,
}

/// `wal serve`; ended when dropped.
struct Open {
    child: Child,
    socket: PathBuf,
}

impl Open {
    fn begin(place: &Place) -> Result<Self, Failure> {
        let socket = place.directory.join("wal.sock");
        let at = socket.display().to_string();
        let mut command = place.command(&["wal", "serve", "bench", "--socket", &at]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut open = Self { child: command.spawn()?, socket };
        let began = Instant::now();
        while !open.socket.exists() {
            if open.child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                return Err("`wal serve` does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        owned(&open.socket)?;
        Ok(open)
    }

    fn peak_mib(&self) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        let kib: f64 = line.split_whitespace().next().ok_or("no VmHWM")?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A program, run as the server's user in a directory.
fn as_server(program: &Path, directory: &Path) -> Result<Command, Failure> {
    let mut command = match server_user()? {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
            command.arg("--clear-groups").arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir(directory);
    Ok(command)
}

/// Seconds of a command that ends by itself. Whoever waits with a limit asks every so many milliseconds, which is too coarse here.
fn timed(mut command: Command) -> Result<f64, Failure> {
    let began = Instant::now();
    let ran = command.stdin(Stdio::null()).output()?;
    let seconds = began.elapsed().as_secs_f64();
    if ran.status.success() {
        return Ok(seconds);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{command:?}: {}: {}", ran.status, process::last_lines(&said, 30)).into())
}

/// Both commands, the one that is first changing from turn to turn.
fn both(turn: usize, peer: Command, ours: Command) -> Result<[f64; 2], Failure> {
    if turn.is_multiple_of(2) {
        let theirs = timed(peer)?;
        Ok([theirs, timed(ours)?])
    } else {
        let mine = timed(ours)?;
        Ok([timed(peer)?, mine])
    }
}

/// Measures on a cluster of which both have a base backup.
pub(super) fn measure(place: &Place, peer: &Peer, source: &Server, round: u32) -> Result<Files, Failure> {
    let ask = |sql: &str| source.sql("bench", sql).map(|text| text.trim().to_owned());
    let data = source.path().join("data");
    // Our base backup ends in one of the last two, of which a copy holds the beginning.
    let first = ask("SELECT pg_walfile_name(pg_current_wal_lsn() - 16777216)")?;
    load(source, LOAD_S)?.wait()?;
    let end = ask("SELECT pg_current_wal_insert_lsn()")?;
    let last = ask(&format!("SELECT pg_walfile_name('{end}')"))?;
    ask("SELECT pg_switch_wal()")?;
    let mut names = Vec::new();
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.len() == 24 && first <= name && name <= last {
            names.push(name);
        }
    }
    names.sort();
    let bytes = fs::metadata(data.join("pg_wal").join(names.first().ok_or("no log was written")?))?.len();

    let program = place.directory.join("seaworthy");
    fs::copy(&place.product, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let open = Open::begin(place)?;
    let got = place.directory.join("peer/spool/got");
    let ours = |verb: &str, words: &[&str]| -> Result<Command, Failure> {
        let mut command = as_server(&program, &data)?;
        command.args(["wal", verb, "--socket"]).arg(&open.socket).arg("bench").args(words);
        Ok(command)
    };
    let mut files = Files {
        push: Vec::new(),
        get: Vec::new(),
        replay: [0.0; 2],
        files: (names.len(), bytes),
        peak_mib: 0.0,
    };
    for (turn, name) in names.iter().enumerate() {
        let file = data.join("pg_wal").join(name).display().to_string();
        let theirs = peer.command(&["archive-push", &file]);
        files.push.push(both(turn, theirs, ours("push", &[&file])?)?);
    }
    let to = got.display().to_string();
    for (turn, name) in names.iter().enumerate() {
        let theirs = peer.command(&["archive-get", name, &to]);
        files.get.push(both(turn, theirs, ours("get", &[name, &to])?)?);
    }
    let commands = [
        // Elsewhere it refuses, with a code that the server takes for the end of the log.
        format!(
            "{} --pg1-path={}/replayed/data archive-get %f \"%p\"",
            peer.words(),
            place.directory.display()
        ),
        format!("{} wal get --socket {} bench %f \"%p\"", program.display(), open.socket.display()),
    ];
    for turn in 0..2 {
        let which = (turn + round as usize) % 2;
        files.replay[which] = replay(place, &end, &commands[which])?;
    }
    files.peak_mib = open.peak_mib()?;
    println!(
        "   round {} {} files: push {:.0} and {:.0} ms, get {:.0} and {:.0} ms, replay {:.1} and {:.1} s (pgbackrest and ours), {:.0} MiB",
        round + 1,
        names.len(),
        median_ms(&files.push, 0),
        median_ms(&files.push, 1),
        median_ms(&files.get, 0),
        median_ms(&files.get, 1),
        files.replay[0],
        files.replay[1],
        files.peak_mib
    );
    Ok(files)
}

/// The median of one of the two, in milliseconds.
pub(super) fn median_ms(seconds: &[[f64; 2]], which: usize) -> f64 {
    super::report::median(seconds.iter().map(|pair| pair[which] * 1e3))
}

/// Seconds until a server that was restored from our base backup has recovered to a position, and ended there.
fn replay(place: &Place, end: &str, command: &str) -> Result<f64, Failure> {
    let to = place.directory.join("replayed");
    super::empty(&to)?;
    fs::remove_dir(&to)?;
    timed(place.command(&["restore", "bench", "--to", &to.display().to_string()]))?;
    let data = to.join("data");
    let conf = data.join("postgresql.auto.conf");
    let kept: String = fs::read_to_string(&conf)?
        .lines()
        .filter(|line| {
            !["recovery_target", "restore_command", "archive"].iter().any(|name| line.starts_with(name))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(
        &conf,
        format!(
            "{kept}restore_command = '{command}'\nrecovery_target_lsn = '{end}'\nrecovery_target_action = 'shutdown'\n\
             recovery_target_timeline = 'current'\nfsync = off\nshared_buffers = '512MB'\nmax_wal_size = '8GB'\narchive_mode = off\n\
             listen_addresses = ''\nunix_socket_directories = '{}'\n",
            to.display()
        ),
    )?;
    let mut own = Command::new("chown");
    own.args(["-R", "--reference"]).arg(place.directory.join("peer")).arg(&to);
    timed(own)?;
    let mut server = as_server(&components::postgres_bin()?.join("postgres"), &to)?;
    server.arg("-D").arg(&data);
    let seconds = timed(server)?;
    super::empty(&to)?;
    Ok(seconds)
}
