//! What to do, with the exact command. Only what holds: no buffer limit is raised for somebody who does not read, and no
//! timer shortened that does not apply.

use super::Advice;
use crate::predicament::{Activity, Predicament};
use crate::sample::{Cause, ListenerQueue, ProcessInfo};

/// Of whom the advice is.
pub struct Culprit<'a> {
    pub pid: u32,
    pub cause: Cause,
    pub info: Option<&'a ProcessInfo>,
    pub activity: Option<&'a Activity>,
    pub predicament: Predicament,
    pub listeners: &'a [ListenerQueue],
    /// Its own peers do not read.
    pub is_held_up: bool,
}

/// Whether the process itself is to blame, and not its peer or the path.
pub fn is_its_doing(cause: Cause) -> bool {
    !matches!(cause, Cause::PeerNotReading | Cause::PathStalled | Cause::OutOfOrder)
}

/// Advice with a command.
pub fn run(text: impl Into<String>, command: impl Into<String>) -> Advice {
    Advice { text: text.into(), command: Some(command.into()) }
}

/// Advice without one.
pub fn consider(text: impl Into<String>) -> Advice {
    Advice { text: text.into(), command: None }
}

/// What to do about a process: what keeps it, then the connections, then the way out.
pub fn for_process(culprit: &Culprit<'_>) -> Vec<Advice> {
    let pid = culprit.pid;
    let is_its_doing = is_its_doing(culprit.cause);
    let mut advice = Vec::new();
    let waits_for_peers = culprit.is_held_up && !culprit.predicament.is_certain();
    if waits_for_peers {
        advice.push(consider(
            "See to its own peers first: it sends to some that do not read, and whoever passes data on stops reading then.",
        ));
    } else if is_its_doing {
        advice.extend(release(culprit));
    }
    // In the process's own network namespace, whichever that is.
    let list = |filter: &str| format!("nsenter -t {pid} -n ss -tmnipOe {filter}| grep pid={pid},");
    match culprit.cause {
        Cause::NotReading | Cause::Active => {
            advice.push(run("See the connections and what waits in them (Recv-Q).", list("")));
        }
        Cause::SlowReading => {
            advice.push(run(
                "See what it spends its time on; the data comes faster than it takes it.",
                format!("top -H -p {pid}"),
            ));
            advice.push(consider("Give it more CPU or more workers, or let the sender send less."));
            advice.push(run("See the connections and what waits in them (Recv-Q).", list("")));
        }
        Cause::AcceptQueue => {
            if let Some(listener) = culprit.listeners.first() {
                let port = listener.local.port();
                advice.push(run(
                    "See the listener: Recv-Q is how many wait, Send-Q how many may.",
                    format!("nsenter -t {pid} -n ss -tlnp 'sport = :{port}'"),
                ));
            }
            advice.push(consider(
                "Whoever waits there gives up sooner or later; accepting them is the only way to drain the queue.",
            ));
        }
        Cause::CloseWait => {
            advice.push(run(
                "See the connections that only the application can close.",
                list("state close-wait "),
            ));
            advice.push(consider(
                "The application has to close a socket once its peer has; no timer of the kernel does it. Look for a path \
                 that drops a connection without closing it.",
            ));
        }
        Cause::HalfClosed => {
            advice.push(run("See the connections it has shut down for writing.", list("state fin-wait-2 ")));
            advice.push(consider("After shutdown() it has to read to the end, or close()."));
        }
        Cause::OutOfOrder => {
            advice.push(run(
                "See whether segments are lost on the way.",
                format!("nsenter -t {pid} -n sh -c 'nstat -n; sleep 5; nstat -z TcpExtTCPOFOQueue TcpExtTCPOFODrop'"),
            ));
            advice.push(run("See the connections; rcv_ooopack counts what came out of order.", list("")));
            advice.push(consider(
                "Loss on the path is the cause: look at the interfaces and the peers in common.",
            ));
        }
        Cause::SmallSegments => {
            advice.push(run(
                "See the connections; rcvmss and data_segs_in tell how small segments are.",
                list(""),
            ));
            advice.push(consider(
                "Each segment costs a buffer of its own, however little is in it: let the sender write in larger pieces, and \
                 the reader read more often.",
            ));
        }
        Cause::PeerNotReading => {
            advice
                .push(run("See who does not read: the peers with Send-Q and a persist timer.", list("-o ")));
            advice.push(consider(
                "The cure is at the peer. Here, close connections whose peer has not read for long: a write timeout, or \
                 TCP_USER_TIMEOUT on the socket.",
            ));
        }
        Cause::PathStalled => {
            advice.push(run("See the peers that do not answer, and the retransmission timers.", list("-o ")));
            advice.push(consider(
                "The kernel gives up by itself after net.ipv4.tcp_retries2 retransmissions, some 15 minutes by default; \
                 TCP_USER_TIMEOUT on the socket shortens that. Look for a peer, a link or a firewall that is down.",
            ));
        }
    }
    let only_has_to_go_on = matches!(culprit.predicament, Predicament::Stopped | Predicament::Frozen);
    if is_its_doing && !only_has_to_go_on && !waits_for_peers {
        advice.push(restart(culprit));
    }
    advice
}

/// What to do about sockets whose holder cannot be seen.
pub fn for_unresolved() -> Vec<Advice> {
    vec![
        consider(
            "To see who: run this as root, or with CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, and in the host's pid namespace \
             (hostPID, --pid=host).",
        ),
        run("See the connections; those of others have no users: here.", "ss -tmnipOe"),
    ]
}

/// What keeps the process from its sockets, and how to end that.
fn release(culprit: &Culprit<'_>) -> Option<Advice> {
    let pid = culprit.pid;
    let stacks = format!("gdb -p {pid} -batch -ex 'thread apply all bt'");
    let activity = culprit.activity?;
    Some(match culprit.predicament {
        Predicament::Stopped => run("It is stopped by a signal; let it go on.", format!("kill -CONT {pid}")),
        Predicament::Traced => match activity.tracer_pid {
            0 => consider("A debugger outside this pid namespace holds it; detach that."),
            tracer => run(
                "A debugger holds it; detach it, or end it.",
                format!("ps -o pid,user,lstart,args -p {tracer}"),
            ),
        },
        Predicament::Frozen => thaw(culprit, activity),
        Predicament::Uninterruptible => run(
            "It waits in the kernel, mostly for storage or NFS; see where, and mend that. Killing it does not help before.",
            format!("cat /proc/{pid}/task/*/stack"),
        ),
        Predicament::Deadlocked => {
            run("All its threads wait for locks; keep the stacks for its developers.", stacks)
        }
        Predicament::OutOfFds => run(
            "It has no file descriptors left, so accept() fails; see what they are, and raise the limit if they are meant.",
            format!(
                "prlimit --pid {pid} --nofile; ls -l /proc/{pid}/fd | awk '{{print $NF}}' | sort | uniq -c | sort -rn | head"
            ),
        ),
        Predicament::Spinning => {
            run("One of its threads never pauses; see in what.", format!("perf top -p {pid}"))
        }
        Predicament::Throttled => {
            let text = "Its CPU quota holds it back; raise that, or give it less to do.";
            let cgroup = culprit.info.map_or("", |info| info.cgroup.as_str());
            match plain_cgroup(cgroup) {
                Some(path) => {
                    let files =
                        ["", "/unified", "/cpu"].map(|mount| format!("/sys/fs/cgroup{mount}{path}/cpu.stat"));
                    run(text, format!("cat {} 2>/dev/null", files.join(" ")))
                }
                None => consider(text),
            }
        }
        Predicament::WaitsElsewhere => run("It waits for something else; see for what.", stacks),
        Predicament::Idle => run(
            "It waits for events and these sockets are not among them: it has forgotten them, or paused them.",
            stacks,
        ),
        Predicament::Working => {
            run("It is busy with something else; see with what.", format!("top -H -p {pid}"))
        }
        Predicament::Unknown => run("See what it does.", stacks),
    })
}

fn thaw(culprit: &Culprit<'_>, activity: &Activity) -> Advice {
    let container = culprit.info.map(|info| info.container_id.as_str()).filter(|id| !id.is_empty());
    match (container, plain_cgroup(&activity.freezer)) {
        (Some(id), _) => {
            run("Its container is paused; let it go on.", format!("docker unpause {}", short(id)))
        }
        (None, Some(path)) => run(
            "Its cgroup is frozen; thaw it.",
            format!(
                "for f in /sys/fs/cgroup{path}/cgroup.freeze /sys/fs/cgroup/unified{path}/cgroup.freeze; do \
                 [ ! -e $f ] || echo 0 > $f; done; \
                 f=/sys/fs/cgroup/freezer{path}/freezer.state; [ ! -e $f ] || echo THAWED > $f"
            ),
        ),
        (None, None) => {
            consider("Its cgroup is frozen; thaw it (cgroup.freeze, or freezer.state of cgroup v1).")
        }
    }
}

/// A cgroup's path as it may stand in a command. Paths come from whoever may create cgroups, and the command is run by
/// root: `None` for one that is not plain, and for the root, of which everybody is a part.
fn plain_cgroup(path: &str) -> Option<&str> {
    let path = path.trim_end_matches('/');
    (path.starts_with('/') && !path.contains("..") && is_plain(path, "/_.:@-")).then_some(path)
}

fn is_plain(text: &str, others: &str) -> bool {
    text.chars().all(|one| one.is_ascii_alphanumeric() || others.contains(one))
}

/// How to start it anew, by whoever runs it.
fn restart(culprit: &Culprit<'_>) -> Advice {
    let text = "If it does not go on: restart it. Its connections end and the memory is free at once.";
    let info = culprit.info;
    let named = |name: fn(&ProcessInfo) -> &str| info.map(name).filter(|name| !name.is_empty());
    let unit = named(|info| &info.systemd_unit)
        // A user's services are all below his manager's unit, which is not to be restarted for one of them.
        .filter(|unit| !unit.starts_with("user@"))
        .filter(|unit| unit.strip_suffix(".service").is_some_and(|name| is_plain(name, "_.:@-")));
    if let Some(uid) = named(|info| &info.pod_uid) {
        return run(
            text,
            format!(
                "kubectl get pods -A -o custom-columns=NS:.metadata.namespace,POD:.metadata.name,UID:.metadata.uid | grep {uid}"
            ),
        );
    }
    if let Some(id) = named(|info| &info.container_id) {
        return run(text, format!("docker restart {}", short(id)));
    }
    match unit {
        Some(unit) => run(text, format!("systemctl restart {unit}")),
        None => run(text, format!("kill {}", culprit.pid)),
    }
}

/// As much of a container's id as its tools show.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
