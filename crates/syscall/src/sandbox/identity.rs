//! Giving up privileges for good, and reading back that they are gone.

use std::fs;
use std::io;

use nix::unistd::{Gid, Uid};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Failure, Limits, Mode, Order};

/// The single capabilities in `set`.
pub(super) fn each(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(move |one| set.contains(*one))
}

pub(super) fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    Ok(())
}

/// Puts `limits` in force, each as soft and hard limit, never above what is in force already.
pub(super) fn limit(limits: &Limits) -> Result<(), Failure> {
    let set = |resource, wanted: Option<u64>, name: &str| {
        let Some(wanted) = wanted else { return Ok(()) };
        let now = rustix::process::getrlimit(resource);
        let bound = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        rustix::process::setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })
            .map_err(|error| Failure::isolation(format!("limit {name}"))(error.into()))
    };
    // 1, not 0: a core_pattern that pipes to a collector ignores 0, and 1 is the kernel's word for "no dump at all".
    set(Resource::Core, Some(1), "core dumps")?;
    set(Resource::Nofile, Some(limits.open_files), "open files")?;
    set(Resource::Nproc, Some(limits.processes), "processes")?;
    set(Resource::Fsize, limits.file_bytes, "file size")?;
    set(Resource::As, limits.memory_bytes, "address space")?;
    set(Resource::Cpu, limits.cpu_seconds, "processor time")?;
    // 64 KiB: what an ordinary user is given; locked memory cannot be reclaimed.
    set(Resource::Memlock, Some(64 << 10), "locked memory")
}

/// Becomes the order's user with no way back.
pub(super) fn become_unprivileged(order: &Order) -> Result<(), Failure> {
    let attempt = || -> io::Result<()> {
        for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // The kernel knows fewer than 64.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
        if order.mode == Mode::Root {
            nix::unistd::setgroups(&[])?;
        }
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        drop_capabilities()?;
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        // Again: changing the user has cleared it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    attempt().map_err(Failure::isolation("give up privileges"))
}

/// The fields of `/proc/self/status` that say what a process may do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Privileges {
    /// Real, effective, saved and file system user.
    pub uids: Vec<u32>,
    /// Real, effective, saved and file system group.
    pub gids: Vec<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable, permitted, effective, bounding and ambient capabilities.
    pub capabilities: Vec<u64>,
    /// Whether executing a program can give new privileges: 1 means that it cannot.
    pub no_new_privs: u32,
    /// 0: no system call filter; 2: one is in force.
    pub seccomp: u32,
}

/// Reads this process's privileges back from the kernel.
pub(super) fn read_privileges() -> io::Result<Privileges> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.ok_or_else(|| io::Error::other(format!("/proc/self/status does not show {name}")))
    };
    let bad = |name: &str| io::Error::other(format!("/proc/self/status shows an unreadable {name}"));
    let numbers = |name: &str| -> io::Result<Vec<u32>> {
        field(name)?.split_whitespace().map(|text| text.parse().map_err(|_| bad(name))).collect()
    };
    let mut capabilities = Vec::new();
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        capabilities.push(u64::from_str_radix(field(name)?.trim(), 16).map_err(|_| bad(name))?);
    }
    let one = |name: &str| numbers(name)?.first().copied().ok_or_else(|| bad(name));
    Ok(Privileges {
        uids: numbers("Uid")?,
        gids: numbers("Gid")?,
        groups: numbers("Groups")?,
        capabilities,
        no_new_privs: one("NoNewPrivs")?,
        seccomp: one("Seccomp")?,
    })
}

impl Privileges {
    /// What these privileges allow that they must not; empty when they are as `mode`, `uid` and `gid` ask.
    #[must_use]
    pub fn excess(&self, mode: Mode, uid: u32, gid: u32) -> Vec<String> {
        let mut found = Vec::new();
        if self.uids.len() != 4 || self.uids.iter().any(|one| *one != uid) {
            found.push(format!("users {:?} instead of {uid}", self.uids));
        }
        if self.gids.len() != 4 || self.gids.iter().any(|one| *one != gid) {
            found.push(format!("groups {:?} instead of {gid}", self.gids));
        }
        // An ordinary user cannot leave its supplementary groups; what they could open is not in the view.
        if mode == Mode::Root && !self.groups.is_empty() {
            found.push(format!("supplementary groups {:?}", self.groups));
        }
        if self.capabilities.len() != 5 || self.capabilities.iter().any(|set| *set != 0) {
            found.push(format!("capabilities {:x?}", self.capabilities));
        }
        if self.no_new_privs != 1 {
            found.push("executing a program could give privileges".into());
        }
        if self.seccomp != 2 {
            found.push("no system call filter".into());
        }
        found
    }
}
