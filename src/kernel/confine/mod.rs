//! What a thread of ours may do, given up before anybody can make us do it.
//!
//! Capabilities, no_new_privs and seccomp filters belong to a thread and are handed on to the threads and programs that it
//! starts. So the first thread confines itself before there is a second one, starts the threads that read the host, and then
//! gives up the rest before it serves:
//!
//! | thread | capabilities at most | opens files | starts programs | sockets |
//! |---|---|---|---|---|
//! | sampler, and its thread of a round | DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN with `--netns all` | to read | the asker | any of ours |
//! | web files, with `--web.config.file` | DAC_READ_SEARCH | to read | no | UNIX datagrams |
//! | all that serve | none | no | no | UNIX datagrams, and those that listen already |
//! | the asker, a process | none | no | no | NETLINK |
//!
//! Threads share their memory: whoever has taken over one of them completely can make another do what it may. These walls stop
//! mistakes and make an attack longer. The one around the process (no writing, no new privileges, nothing of [`filter`]'s
//! list) holds against that, too.

pub mod filter;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the host.
    Sampler {
        /// Whether it enters other network namespaces.
        all_namespaces: bool,
    },
    /// Reads the web configuration file and what it names.
    Files,
    /// Talks to clients.
    Server,
    /// Asks the kernel for tcp_info: see [`super::diag`].
    Asker,
}

impl Role {
    /// The capabilities that it has a use for.
    pub fn capabilities(self) -> CapabilitySet {
        let sees = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYS_PTRACE;
        match self {
            Self::Sampler { all_namespaces: true } => sees | CapabilitySet::SYS_ADMIN,
            Self::Sampler { all_namespaces: false } => sees,
            Self::Files => CapabilitySet::DAC_READ_SEARCH,
            Self::Server | Self::Asker => CapabilitySet::empty(),
        }
    }
}

/// What could not be given up, in words for the log.
pub type Remains = Vec<String>;

/// Confines the calling thread, and whatever it starts from now on, to `role`. Goes as far as the kernel lets it.
pub fn confine(role: Role) -> Remains {
    let mut remains = Remains::new();
    // Of the whole process. Whoever may trace one thread has them all, and a thread without capabilities may be traced by
    // any process of its user.
    if let Err(errno) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        remains.push(format!("being traced by its own user ({errno})"));
    }
    if let Err(errno) = drop_capabilities(role.capabilities()) {
        remains.push(format!("capabilities ({errno})"));
    }
    // Before the filter: without CAP_SYS_ADMIN the kernel takes one from nobody else.
    if let Err(errno) = set_no_new_privs(true) {
        remains.push(format!("new privileges by exec ({errno})"));
    }
    if let Err(why) = filter::install(role) {
        remains.push(format!("unused system calls ({why})"));
    }
    remains
}

/// Keeps of the calling thread's capabilities those in `keep`, and hands none on to programs.
fn drop_capabilities(keep: CapabilitySet) -> Result<(), Errno> {
    let permitted = capabilities(None)?.permitted;
    let set = |permitted| {
        // With a file capability that is only permitted, this is where it becomes effective.
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })
    };
    // Root regains what is in the bounding set at each exec, so it is emptied. That takes a capability; without it, as in most
    // containers, no_new_privs still lets no program have more than the thread that starts it.
    let bounding = if permitted.contains(CapabilitySet::SETPCAP) {
        set(permitted).and_then(|()| known().try_for_each(remove_capability_from_bounding_set))
    } else {
        Ok(())
    };
    // EINVAL: Linux before 4.3 has none.
    let ambient = clear_ambient_capability_set()
        .or_else(|errno| if errno == Errno::INVAL { Ok(()) } else { Err(errno) });
    // Whatever has failed: this is what counts.
    set(permitted & keep).and(bounding).and(ambient)
}

/// All capabilities that this kernel knows: asking for one that it does not is EINVAL.
fn known() -> impl Iterator<Item = CapabilitySet> {
    let each = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    each.take_while(|capability| capability_is_in_bounding_set(*capability).is_ok())
}
