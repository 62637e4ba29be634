//! System calls that restored programs have no use for and that lead out of, or around, namespaces.
//!
//! A list of what is refused, not of what is allowed: databases of every age must run, and the namespaces are the wall. The
//! filter closes what they leave open: socket families that a network namespace does not separate (vsock leads to the
//! hypervisor), the kernel's key rings, new user namespaces and with them most of the kernel's attack surface.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::Failure;

/// Refused whatever the arguments.
const REFUSED: &[libc::c_long] = &[
    // Other namespaces, other views.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Key rings belong to users, not to namespaces.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// Said not to exist, so that a C library falls back to what can be looked into: `clone3` takes its flags from memory, and
/// what is done through `io_uring` passes no filter.
const ABSENT: &[libc::c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// `CLONE_NEW…`, each.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Families that a network namespace separates, or that stay on this machine's file system.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// A second set of numbers for the same calls on x86-64, which the filter must know too.
#[cfg(target_arch = "x86_64")]
const ALIASES: &[libc::c_long] = &[0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const ALIASES: &[libc::c_long] = &[0];

/// Puts the filter in force for this process and all that it starts. Calls of another architecture end the caller.
pub(super) fn apply() -> Result<(), Failure> {
    let attempt = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for (refusal, rules) in [(libc::EPERM, refused()?), (libc::ENOSYS, always(ABSENT))] {
            let refusal = SeccompAction::Errno(refusal.unsigned_abs());
            let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, architecture)?;
            seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
        }
        Ok(())
    };
    attempt().map_err(|error| Failure::isolation("filter system calls")(io::Error::other(error)))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn always(calls: &[libc::c_long]) -> Rules {
    ALIASES.iter().flat_map(|alias| calls.iter().map(move |call| (call | alias, Vec::new()))).collect()
}

fn refused() -> Result<Rules, seccompiler::BackendError> {
    let argument = |operator: SeccompCmpOp, value: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, u64::from(value.unsigned_abs()))
    };
    let mut clone = Vec::new();
    for flag in NAMESPACES {
        let mask = SeccompCmpOp::MaskedEq(u64::from(flag.unsigned_abs()));
        clone.push(SeccompRule::new(vec![argument(mask, *flag)?])?);
    }
    let others: Result<Vec<_>, _> =
        FAMILIES.iter().map(|family| argument(SeccompCmpOp::Ne, *family)).collect();
    let socket = vec![SeccompRule::new(others?)?];
    let mut rules = always(REFUSED);
    for alias in ALIASES {
        rules.insert(libc::SYS_clone | alias, clone.clone());
        rules.insert(libc::SYS_socket | alias, socket.clone());
        rules.insert(libc::SYS_socketpair | alias, socket.clone());
    }
    Ok(rules)
}
