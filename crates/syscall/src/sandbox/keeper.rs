//! The keeper: leaves the caller's namespaces, starts init, waits for it. It never runs what was restored.

use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use rustix::thread::CapabilitySets;

use super::{Failure, Mode, Order, STATUS_FAILED, VERB_INIT, identity, init, receive, send};

pub(super) fn main() -> ExitCode {
    // Before anything of ours is opened: what is open now was leaked by the caller.
    let closed = close_inherited();
    let mut line = match init::line() {
        Ok(line) => line,
        Err(_) => return ExitCode::from(STATUS_FAILED),
    };
    match closed.and_then(|closed| keep(&mut line, closed)) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            // Nobody reads the line any more when this fails; the status says it too.
            drop(send(&mut line, &failure.reply()));
            ExitCode::from(STATUS_FAILED)
        }
    }
}

fn keep(line: &mut fs::File, closed_descriptors: u32) -> Result<u8, Failure> {
    let Some(order) = receive::<Order>(line).map_err(Failure::order("read the order"))? else {
        return Ok(STATUS_FAILED);
    };
    if order.uid == 0 || order.gid == 0 {
        let zero = io::Error::other("restored code never runs as user or group 0");
        return Err(Failure::order("check the order")(zero));
    }
    // Away from the caller's terminal, so that its Ctrl-C reaches the caller alone.
    rustix::process::setsid().map_err(|error| Failure::isolation("start a session")(error.into()))?;
    if order.mode == Mode::UserNamespace {
        enter_user_namespace(&order)?;
    }
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(|error| {
        Failure::isolation("unshare mount, network, process, ipc and host name namespaces")(error.into())
    })?;
    if order.mode == Mode::UserNamespace {
        keep_capabilities_across_exec()?;
    }
    let mut init = Command::new("/proc/self/exe");
    init.arg0("seaworthy-sandbox")
        .arg(VERB_INIT)
        .arg(&order.root)
        .arg(closed_descriptors.to_string())
        .env_clear();
    let mut init = init.spawn().map_err(Failure::isolation("start process 1 of the sandbox"))?;
    if order.mode == Mode::UserNamespace {
        identity::drop_capabilities().map_err(|error| Failure::isolation("drop capabilities")(error))?;
    }
    let status = init.wait().map_err(Failure::isolation("wait for process 1 of the sandbox"))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(STATUS_FAILED))
}

/// Closes every descriptor besides the standard three and says how many there were.
fn close_inherited() -> Result<u32, Failure> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(Failure::isolation("list open descriptors"))? {
        let entry = entry.map_err(Failure::isolation("list open descriptors"))?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            open.push(number);
        }
    }
    // The listing's own descriptor is in the list and closed by now: closing it again fails and does not count.
    let closed = open.into_iter().filter(|number| *number > 2 && nix::unistd::close(*number).is_ok()).count();
    Ok(u32::try_from(closed).unwrap_or(u32::MAX))
}

fn enter_user_namespace(order: &Order) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|error| Failure::isolation("unshare a user namespace")(error.into()))?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(Failure::isolation(format!("write {file}")))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{0} {0} 1", order.uid))?;
    write("gid_map", format!("{0} {0} 1", order.gid))
}

/// A user other than 0 loses its capabilities when it executes a program, unless they are ambient.
fn keep_capabilities_across_exec() -> Result<(), Failure> {
    let attempt = || -> io::Result<()> {
        let held = rustix::thread::capabilities(None)?;
        rustix::thread::set_capabilities(None, CapabilitySets { inheritable: held.permitted, ..held })?;
        for capability in identity::each(held.permitted) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
        Ok(())
    };
    attempt().map_err(Failure::isolation("keep the capabilities of the user namespace"))
}
