//! Which system calls are refused.
//!
//! A list of what is refused, not of what is allowed. Which calls a program makes is decided by its libc, by the kernel that
//! libc finds and by what goes wrong: a list of allowed ones is complete only on the machines it was tried on, and the day it is
//! not is one on which this program is needed. Service managers and container engines keep such lists up to date; theirs go on
//! top. What speaks for allowing is that it also refuses what nobody has thought of, so calls newer than this list are refused
//! as well, with ENOSYS, as by a kernel that does not have them: every libc has to cope with that.
//!
//! Refused is EPERM and not a killed process: the history of every stall is in our memory, a library that tries something
//! optional goes on without it, and a call that was refused by mistake shows as a failing source instead of as a crash.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::Role;

/// The newest call that this list has been made with in mind (`file_setattr` of Linux 6.17). From 424 on all architectures
/// count alike. x32's calls, which would be other names for those refused, have higher numbers.
const NEWEST: u32 = 469;

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name as c_long)),*] };
}

/// Refused to all of us, whatever their arguments.
pub const REFUSED: &[(&str, c_long)] = calls! {
    // Into other processes. What CAP_SYS_PTRACE is kept for is readlink in /proc/PID/fd and kcmp.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_process_mrelease SYS_pidfd_getfd
    // What CAP_DAC_READ_SEARCH opens beside files.
    SYS_open_by_handle_at
    // What CAP_SYS_ADMIN opens beside setns.
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig
    SYS_fsmount SYS_fspick SYS_mount_setattr SYS_swapon SYS_swapoff SYS_sethostname SYS_setdomainname SYS_unshare
    SYS_quotactl SYS_fanotify_init SYS_fanotify_mark SYS_bpf SYS_perf_event_open SYS_syslog SYS_vhangup
    // For root, who has had more.
    SYS_reboot SYS_kexec_load SYS_init_module SYS_finit_module SYS_delete_module SYS_acct SYS_settimeofday
    SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid
    SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups SYS_setpriority SYS_sched_setaffinity SYS_sched_setscheduler
    SYS_sched_setparam SYS_sched_setattr SYS_ioprio_set SYS_setrlimit
    // Where the kernel has had most of its holes, and ways around a filter.
    SYS_keyctl SYS_add_key SYS_request_key SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_io_setup SYS_io_submit SYS_move_pages SYS_migrate_pages SYS_mbind SYS_personality SYS_memfd_create
    SYS_execveat
    // Nothing on any filesystem changes: see `to_read` for opening.
    SYS_mkdirat SYS_mknodat SYS_unlinkat SYS_linkat SYS_symlinkat SYS_renameat2 SYS_truncate SYS_fchmod SYS_fchmodat
    SYS_fchown SYS_fchownat SYS_utimensat SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr
    SYS_fremovexattr SYS_fallocate
};

/// The same, where the architecture has them; others never had them or have the calls above in their place.
#[cfg(target_arch = "x86_64")]
pub const REFUSED_HERE: &[(&str, c_long)] = calls! {
    SYS_ioperm SYS_iopl SYS_modify_ldt SYS_uselib SYS_kexec_file_load SYS_creat SYS_mkdir SYS_rmdir SYS_mknod SYS_unlink
    SYS_link SYS_symlink SYS_rename SYS_renameat SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat
};
/// The same; musl's headers have no name for the first.
#[cfg(target_arch = "aarch64")]
pub const REFUSED_HERE: &[(&str, c_long)] =
    &[("SYS_kexec_file_load", 294), ("SYS_renameat", libc::SYS_renameat as c_long)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const REFUSED_HERE: &[(&str, c_long)] = &[];

/// The same, too new for the headers of some libc. All architectures have these numbers.
pub const REFUSED_NEW: &[(&str, c_long)] = &[
    ("SYS_quotactl_fd", 443),
    ("SYS_fchmodat2", 452),
    ("SYS_setxattrat", 463),
    ("SYS_removexattrat", 466),
    ("SYS_open_tree_attr", 467),
    ("SYS_file_setattr", 469),
];

/// Refused as if the kernel had none: their arguments are in memory, where no filter sees them, and every libc falls back to
/// clone and openat, which are looked at.
pub const ABSENT: &[(&str, c_long)] = calls! { SYS_clone3 SYS_openat2 };

/// Refused beyond that to all but the sampler: the asker and the threads that serve start nothing and enter nothing.
pub const REFUSED_OUTSIDE: &[(&str, c_long)] = calls! {
    SYS_execve SYS_setns SYS_kcmp SYS_kill SYS_tkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_pidfd_open
    SYS_pidfd_send_signal SYS_bind SYS_listen
};
/// The same, where the architecture has them.
#[cfg(target_arch = "x86_64")]
const REFUSED_OUTSIDE_HERE: &[(&str, c_long)] = calls! { SYS_fork SYS_vfork };
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OUTSIDE_HERE: &[(&str, c_long)] = &[];

/// Opening files, for those who need none.
#[cfg(target_arch = "x86_64")]
const OPEN: &[(&str, c_long)] = calls! { SYS_openat SYS_open };
#[cfg(not(target_arch = "x86_64"))]
const OPEN: &[(&str, c_long)] = calls! { SYS_openat };

/// Namespaces that a clone can make.
const NEW_NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWCGROUP,
];

/// Flags of an open that can change something.
const WRITING: [libc::c_int; 4] = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC];

/// The kind of a socket, without SOCK_CLOEXEC and SOCK_NONBLOCK: SOCK_TYPE_MASK of linux/net.h.
const SOCKET_KIND: u64 = 0xf;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Unfiltered {
    /// seccompiler knows x86-64, arm64 and riscv64.
    #[error("no list for this architecture")]
    Architecture,
    /// The kernel or a filter that is there already.
    #[error("seccomp: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Filters the calling thread's calls, and of whatever it starts from now on. Needs no_new_privs.
pub fn install(role: Role) -> Result<(), Unfiltered> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| Unfiltered::Architecture)?;
    for (rules, errno) in programs(role) {
        apply_filter(&compile(rules, errno, arch)?)?;
    }
    if matches!(role, Role::Sampler { .. }) {
        apply_filter(&nothing_newer())?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What is refused to `role` beyond what has been refused to who started it, and with which error.
fn programs(role: Role) -> Vec<(Rules, libc::c_int)> {
    match role {
        Role::Sampler { .. } => vec![(everywhere(), libc::EPERM), (always(ABSENT), libc::ENOSYS)],
        Role::Files => vec![(outside(libc::AF_UNIX), libc::EPERM)],
        Role::Server | Role::Asker => {
            let family = if role == Role::Asker { libc::AF_NETLINK } else { libc::AF_UNIX };
            let mut rules = outside(family);
            rules.extend(always(OPEN));
            vec![(rules, libc::EPERM)]
        }
    }
}

fn everywhere() -> Rules {
    let mut rules = always(REFUSED);
    rules.extend(always(REFUSED_HERE));
    rules.extend(always(REFUSED_NEW));
    // A condition that cannot be written, or an argument that no call has, would be a mistake here.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    rules.insert(number(libc::SYS_socket), vec![rule(families.map(|family| condition(0, Is::Ne, family)))]);
    let namespaces = NEW_NAMESPACES.map(|flag| rule([all_of(0, flag)]));
    rules.insert(number(libc::SYS_clone), namespaces.to_vec());
    // Which kind of namespace the descriptor must be of: without it, that would be the caller's choice.
    rules.insert(number(libc::SYS_setns), vec![rule([condition(1, Is::Ne, libc::CLONE_NEWNET)])]);
    rules.insert(number(libc::SYS_openat), to_read(2));
    #[cfg(target_arch = "x86_64")]
    rules.insert(number(libc::SYS_open), to_read(1));
    // The limits of others; asking for limits is the same call with no new ones.
    let limits = SeccompCondition::new(2, Length::Qword, Is::Ne, 0);
    rules.insert(number(libc::SYS_prlimit64), vec![rule([limits.expect("a condition")])]);
    // Code that was written at run time. Libraries are mapped as code from the start.
    rules.insert(number(libc::SYS_mmap), vec![rule([all_of(2, libc::PROT_WRITE | libc::PROT_EXEC)])]);
    for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(number(call), vec![rule([all_of(2, libc::PROT_EXEC)])]);
    }
    rules.insert(number(libc::SYS_shmat), vec![rule([all_of(2, libc::SHM_EXEC)])]);
    rules
}

/// For those who start no program: new threads only, signals to themselves, and sockets of one family. None that connects to a
/// service of this host, as streams do: root's may do anything for who is root.
fn outside(family: libc::c_int) -> Rules {
    let mut rules = always(REFUSED_OUTSIDE);
    rules.extend(always(REFUSED_OUTSIDE_HERE));
    let kind = |kind| rule([condition(1, Is::MaskedEq(SOCKET_KIND), kind)]);
    let sockets =
        vec![rule([condition(0, Is::Ne, family)]), kind(libc::SOCK_STREAM), kind(libc::SOCK_SEQPACKET)];
    rules.insert(number(libc::SYS_socket), sockets);
    // As abort() does.
    let ourselves = std::process::id().cast_signed();
    rules.insert(number(libc::SYS_tgkill), vec![rule([condition(0, Is::Ne, ourselves)])]);
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let process = SeccompCondition::new(0, Length::Qword, Is::MaskedEq(thread), 0).expect("a condition");
    rules.insert(number(libc::SYS_clone), vec![rule([process])]);
    rules
}

fn to_read(flags: u8) -> Vec<SeccompRule> {
    WRITING.map(|flag| rule([all_of(flags, flag)])).to_vec()
}

fn always(calls: &[(&str, c_long)]) -> Rules {
    calls.iter().map(|(_, call)| (number(*call), Vec::new())).collect()
}

fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> SeccompRule {
    SeccompRule::new(conditions.into()).expect("a rule with a condition")
}

fn condition(argument: u8, is: Is, value: libc::c_int) -> SeccompCondition {
    SeccompCondition::new(argument, Length::Dword, is, u64::from(value.cast_unsigned())).expect("a condition")
}

/// That all these bits are set.
fn all_of(argument: u8, bits: libc::c_int) -> SeccompCondition {
    condition(argument, Is::MaskedEq(u64::from(bits.cast_unsigned())), bits)
}

#[allow(clippy::useless_conversion)] // c_long is narrower elsewhere
fn number(call: c_long) -> i64 {
    i64::from(call)
}

fn compile(rules: Rules, errno: libc::c_int, arch: TargetArch) -> Result<BpfProgram, seccompiler::Error> {
    let refused = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// Refuses what is newer than the list. A range, which seccompiler has no rule for; that the call is one of this
/// architecture has been checked by the filters before.
#[allow(clippy::cast_possible_truncation)] // the codes of BPF are 16 bits wide, its constants are not
fn nothing_newer() -> [sock_filter; 4] {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    [
        step(LOAD_NUMBER, 0, 0),
        step(JUMP_IF_GREATER, 1, NEWEST),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program that knows only the number makes of one.
    fn verdict(number: u32) -> u32 {
        let [load, jump, allow, refuse] = nothing_newer();
        assert_eq!((load.code, load.k), (0x20, 0), "ld [0]");
        assert_eq!((jump.code, jump.jf), (0x25, 0), "jgt");
        assert!(allow.code == 0x06 && refuse.code == 0x06, "ret");
        assert_eq!(jump.jt, 1);
        if number > jump.k { refuse.k } else { allow.k }
    }

    #[test]
    fn a_call_that_is_newer_than_the_list_is_as_if_it_were_not_there() {
        let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        assert_eq!(verdict(0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(NEWEST), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(NEWEST + 1), absent);
        let x32 = 0x4000_0000;
        assert_eq!(verdict(x32 + 521), absent, "ptrace by its other number");
        assert_eq!(verdict(u32::MAX), absent);
    }

    #[test]
    fn nothing_is_refused_and_used() {
        let rules = everywhere();
        for call in
            [libc::SYS_openat, libc::SYS_socket, libc::SYS_clone, libc::SYS_setns, libc::SYS_prlimit64]
        {
            assert!(!rules[&number(call)].is_empty(), "looked at, not refused");
        }
        for call in [libc::SYS_execve, libc::SYS_kcmp, libc::SYS_kill, libc::SYS_bind, libc::SYS_readlinkat] {
            assert!(!rules.contains_key(&number(call)), "the sampler, or diagnose, needs it");
        }
        let serving = outside(libc::AF_UNIX);
        assert!(serving[&number(libc::SYS_tkill)].is_empty(), "refused, whatever its arguments");
        assert!(!serving[&number(libc::SYS_tgkill)].is_empty(), "abort() needs it");
        let all = REFUSED.iter().chain(REFUSED_HERE).chain(REFUSED_NEW).chain(ABSENT);
        assert!(all.clone().all(|(_, call)| u32::try_from(*call).is_ok_and(|call| call <= NEWEST)));
        let count = all.clone().count();
        let distinct: std::collections::BTreeSet<_> = all.map(|(_, call)| call).collect();
        assert_eq!(distinct.len(), count, "named twice");
    }

    #[test]
    fn it_compiles_for_every_architecture_that_has_a_filter() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64, TargetArch::riscv64] {
            for role in [Role::Sampler { all_namespaces: true }, Role::Files, Role::Server, Role::Asker] {
                for (rules, errno) in programs(role) {
                    compile(rules, errno, arch).unwrap();
                }
            }
        }
    }
}
