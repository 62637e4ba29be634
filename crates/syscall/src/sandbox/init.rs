//! Process 1 of the sandbox: builds the view, gives up every privilege, starts the program, reaps what it leaves.
//!
//! When it returns, the kernel kills everything in its namespace. It returns when the program has ended and when the line
//! to the caller closes, whichever comes first.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode as FileMode, OFlags, ResolveFlags};
use rustix::process::Signal;

use super::{Failure, Order, Reply, Request, STATUS_FAILED, filter, identity, probe, receive, send, view};

/// The line to the caller: standard input, unbuffered, because two processes read it in turn.
pub(super) fn line() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

pub(super) fn main(_root: Option<&OsStr>) -> ExitCode {
    let mut line = match line() {
        Ok(line) => line,
        Err(_) => return ExitCode::from(STATUS_FAILED),
    };
    match run(&mut line) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            // Nobody reads the line any more when this fails; the status says it too.
            drop(send(&mut line, &failure.reply()));
            ExitCode::from(STATUS_FAILED)
        }
    }
}

fn run(line: &mut File) -> Result<u8, Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::isolation("tie life to the keeper")(error.into()))?;
    let closed_descriptors = std::env::args().nth(3).and_then(|text| text.parse().ok()).unwrap_or(u32::MAX);
    let Some(order) = receive::<Order>(line).map_err(Failure::order("read the order"))? else {
        return Ok(STATUS_FAILED);
    };
    // The view is for others to read, whatever the caller's own files are.
    rustix::process::umask(FileMode::from_raw_mode(0o022));
    // While the caller's view and privileges are still there: the file may be one that restored code must not open.
    let stdin = open_stdin(&order)?;
    view::build(&order)?;
    rustix::system::sethostname(b"sandbox")
        .map_err(|error| Failure::isolation("set the host name")(error.into()))?;
    // If memory runs out, this is what the kernel should kill, not a production server on the same machine.
    fs::write("/proc/self/oom_score_adj", "1000")
        .map_err(Failure::isolation("offer itself to the OOM killer"))?;
    rustix::process::umask(FileMode::from_raw_mode(0o077));
    identity::limit(&order.limits)?;
    identity::become_unprivileged(&order)?;
    filter::apply()?;
    verify(&order)?;

    let program = order.argv.first().filter(|program| Path::new(program).is_absolute());
    let program =
        program.ok_or_else(|| Failure::order("check the order")(io::Error::other("no absolute program")))?;
    let mut command = Command::new(program);
    command.args(&order.argv[1..]).env_clear().envs(order.env.iter().map(|(key, value)| (key, value)));
    command.current_dir(order.cwd.as_ref().unwrap_or(&order.root)).stdin(stdin).process_group(0);
    let child = command.spawn().map_err(Failure::start(format!("start {program}")))?;
    let pid = i32::try_from(child.id()).map_err(|error| Failure::start("start")(io::Error::other(error)))?;
    let pid = Pid::from_raw(pid);
    let started = send(line, &Reply::Started { pid: pid.as_raw(), closed_descriptors });
    started.map_err(Failure::start("say that the program runs"))?;

    let listener = line.try_clone().map_err(Failure::start("listen to the caller"))?;
    std::thread::spawn(move || listen(listener, pid));
    let status = reap_until(pid)?;
    // A caller that is gone cannot be told; then there is nobody to tell.
    drop(send(line, &Reply::Ended { status }));
    Ok(u8::try_from(status).unwrap_or(STATUS_FAILED))
}

/// Obeys the caller until the line closes, then ends the process and with it everything that runs here.
fn listen(mut line: File, program: Pid) {
    while let Ok(Some(Request::Signal(signal))) = receive::<Request>(&mut line) {
        if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
            // A program that has just ended cannot be signalled; the caller learns of its end.
            nix::sys::signal::kill(program, signal).unwrap_or_default();
        }
    }
    std::process::exit(128 + 9);
}

fn reap_until(program: Pid) -> Result<i32, Failure> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == program => return Ok(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failure::start("wait for the program")(error.into())),
        }
    }
}

/// Opens the file that becomes standard input with the caller's rights.
///
/// Inside the private directory restored code may have planted links to anything, so none is followed there.
fn open_stdin(order: &Order) -> Result<Stdio, Failure> {
    let Some(path) = &order.stdin else { return Ok(Stdio::null()) };
    let attempt = || -> io::Result<File> {
        // Not blocking, so that a pipe in the file's place is refused below instead of waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match path.strip_prefix(&order.root) {
            Ok(relative) => {
                let root = rustix::fs::open(&order.root, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())?;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(root, relative, flags, FileMode::empty(), resolve)?
            }
            Err(_) => rustix::fs::openat(CWD, path, flags, FileMode::empty())?,
        };
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok(file)
    };
    attempt().map(Stdio::from).map_err(Failure::start(format!("open {} as standard input", path.display())))
}

/// Reads back that the isolation holds, each time a program is started.
fn verify(order: &Order) -> Result<(), Failure> {
    let privileges = identity::read_privileges().map_err(Failure::isolation("read privileges back"))?;
    let mut found = privileges.excess(order.mode, order.uid, order.gid);
    let network = probe::Network::read().map_err(Failure::isolation("read the network back"))?;
    found.extend(network.excess());
    if std::process::id() != 1 {
        found.push(format!("process {} instead of 1", std::process::id()));
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(Failure::not_isolated("read the isolation back", found.join("; ")))
    }
}
