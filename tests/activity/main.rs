//! Real processes in every predicament, read by the real code. Wants root: cgroups, other users' processes.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, Uid};
use skmem_exporter::predicament::{Activity, Predicament, ThreadState};
use support::{CGROUPS, Cgroup, Ice, Process, Watch};

/// Threads that wait in a function of this name.
fn waiting(activity: &Activity, name: &str) -> u32 {
    let groups = activity.threads.iter().filter(|group| group.wait_channel.contains(name));
    groups.map(|group| group.count).sum()
}

#[test]
fn stopped_by_a_signal() {
    let process = Process::start("idle");
    let mut watch = Watch::new();
    watch.until(&process, Predicament::Idle);
    process.signal(Signal::STOP);
    let activity = watch.until(&process, Predicament::Stopped);
    assert_eq!(activity.state, ThreadState::Stopped);
    process.signal(Signal::CONT);
    watch.until(&process, Predicament::Idle);
}

#[test]
fn held_by_a_debugger() {
    let process = Process::start("traced");
    let activity = Watch::new().until(&process, Predicament::Traced);
    assert_ne!(activity.tracer_pid, 0);
    assert_ne!(activity.tracer_pid, process.pid);
}

/// In each hierarchy this host has: cgroup v1's freezer, cgroup2.
#[test]
fn frozen_by_a_cgroup_above() {
    let freezers = [
        ("freezer", "freezer.state", ["FROZEN", "THAWED"]),
        ("unified", "cgroup.freeze", ["1", "0"]),
        ("", "cgroup.freeze", ["1", "0"]),
    ];
    let mut frozen = 0;
    for (hierarchy, file, states) in freezers {
        let mount = Path::new(CGROUPS).join(hierarchy);
        let mark = if file == "cgroup.freeze" { "cgroup.controllers" } else { "tasks" };
        if !mount.join(mark).exists() {
            continue;
        }
        let cgroup = Cgroup::new(&mount);
        let process = Process::start("idle");
        cgroup.add(&process);
        let mut watch = Watch::new();
        let thawed = watch.until(&process, Predicament::Idle);
        assert_eq!((thawed.frozen, thawed.freezer.as_str()), (Some(false), ""), "{hierarchy}");
        {
            let _ice = Ice::new(&cgroup, file, states);
            let activity = watch.until(&process, Predicament::Frozen);
            assert_eq!((activity.frozen, &activity.freezer), (Some(true), &cgroup.path), "{hierarchy}");
            let without = Activity { frozen: None, ..activity };
            assert_eq!(without.predicament(), Predicament::Frozen, "{hierarchy}: by its wait channels");
        }
        watch.until(&process, Predicament::Idle);
        frozen += 1;
    }
    assert!(frozen > 0, "the live tests need cgroups mounted below {CGROUPS}");
}

#[test]
fn held_back_by_a_cpu_quota() {
    let v1 = Path::new(CGROUPS).join("cpu");
    let v2 = [Path::new(CGROUPS).join("unified"), CGROUPS.into()].into_iter().find(|mount| {
        std::fs::read_to_string(mount.join("cgroup.subtree_control")).is_ok_and(|text| text.contains("cpu"))
    });
    // A tenth of a CPU.
    let (mount, file, quota) = if v1.join("cpu.cfs_quota_us").exists() || v1.join("cpu.shares").exists() {
        (v1, "cpu.cfs_quota_us", "10000")
    } else {
        (v2.expect("the live tests need a cpu controller"), "cpu.max", "10000 100000")
    };
    let cgroup = Cgroup::new(&mount);
    let process = Process::start("spinning");
    cgroup.add(&process);
    let mut watch = Watch::new();
    watch.read(process.pid);
    cgroup.write(file, quota);
    let begin = Instant::now();
    // The first interval may show what it did before.
    let activity = loop {
        std::thread::sleep(Duration::from_secs(1));
        let activity = watch.read(process.pid).unwrap();
        if activity.predicament() == Predicament::Throttled {
            break activity;
        }
        assert!(begin.elapsed() < Duration::from_mins(1), "{activity:#?}");
    };
    assert!(activity.throttled_share.unwrap() > 0.5, "{activity:#?}");
    assert!(activity.cpu_share.unwrap() < 0.5, "{activity:#?}");
}

#[test]
fn two_threads_and_two_locks() {
    let process = Process::start("deadlocked");
    let activity = Watch::new().until(&process, Predicament::Deadlocked);
    assert_eq!((activity.threads_total, waiting(&activity, "futex")), (3, 3), "{activity:#?}");
    assert_eq!(activity.cpu_share, Some(0.0));
}

#[test]
fn who_comes_back_to_a_lock_is_not_deadlocked() {
    let process = Process::start("impatient");
    let mut watch = Watch::new();
    for _ in 0..4 {
        let activity = watch.read(process.pid).unwrap();
        assert_ne!(activity.predicament(), Predicament::Deadlocked, "{activity:#?}");
        assert!(activity.still_seconds.is_none_or(|seconds| seconds < 1.0), "{activity:#?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn spinning() {
    let process = Process::start("spinning");
    let activity = Watch::new().until(&process, Predicament::Spinning);
    assert_eq!(activity.spinning, 1);
    assert!(activity.cpu_share.is_some_and(|share| (0.9..1.1).contains(&share)), "{activity:#?}");
}

#[test]
fn an_event_loop_with_an_idle_pool() {
    let process = Process::start("idle");
    let activity = Watch::new().until(&process, Predicament::Idle);
    assert_eq!((activity.threads_total, activity.threads_not_read), (7, 0));
    assert_eq!((waiting(&activity, "ep"), waiting(&activity, "futex")), (1, 6), "{activity:#?}");
    assert_eq!(activity.threads[0].count, 6, "most frequent first");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().count();
    assert_eq!(activity.open_fds, Some(fds as u64), "before Linux 6.2 there is no such figure");
    assert_eq!(activity.tracer_pid, 0);
}

#[test]
fn a_blocking_receiver_waits_for_the_network() {
    let process = Process::start("receiving");
    Watch::new().until(&process, Predicament::Idle);
}

#[test]
fn waiting_for_anything_else() {
    for (program, channel) in [("asleep", "nanosleep"), ("on_a_pipe", "pipe"), ("on_a_child", "wait")] {
        let process = Process::start(program);
        let activity = Watch::new().until(&process, Predicament::WaitsElsewhere);
        assert_eq!(waiting(&activity, channel), 1, "{activity:#?}");
    }
}

#[test]
fn in_uninterruptible_sleep() {
    let process = Process::start("uninterruptible");
    let activity = Watch::new().until(&process, Predicament::Uninterruptible);
    assert_eq!(activity.state, ThreadState::Uninterruptible);
}

#[test]
fn at_its_limit_of_fds() {
    let process = Process::start("full");
    let activity = Watch::new().until(&process, Predicament::OutOfFds);
    assert_eq!((activity.open_fds, activity.fd_limit), (Some(20), Some(20)));
}

/// Less is known of other users' processes, and that is no failure.
#[test]
fn without_privileges() {
    let (idle, stopped) = (Process::start("idle"), Process::start("asleep"));
    stopped.signal(Signal::STOP);
    Watch::new().until(&idle, Predicament::Idle);
    let pids = [idle.pid, stopped.pid];
    let [mut idle, stopped] = std::thread::spawn(move || {
        // Of this thread only; its capabilities go with it.
        rustix::thread::set_thread_uid(Uid::from_raw(65534)).unwrap();
        let mut watch = Watch::new();
        for pid in pids {
            watch.read(pid).unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
        pids.map(|pid| watch.read(pid).unwrap())
    })
    .join()
    .unwrap();
    assert_eq!(stopped.predicament(), Predicament::Stopped);
    assert_eq!((idle.threads_total, idle.threads_not_read), (7, 0));
    assert_eq!(idle.threads[0].wait_channel, "", "{idle:#?}");
    assert!(idle.open_fds.is_some() && idle.fd_limit.is_some() && idle.frozen.is_some(), "{idle:#?}");
    // Whatever it has used in that second.
    idle.cpu_share = Some(0.0);
    assert_eq!(idle.predicament(), Predicament::Unknown);
}

#[test]
fn threads_and_processes_that_come_and_go() {
    let mut process = Process::start("churning");
    let mut watch = Watch::new();
    let begin = Instant::now();
    let mut readings = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        let activity = watch.read(process.pid).unwrap();
        assert!(activity.threads_total >= 7, "{activity:#?}");
        readings += 1;
    }
    assert!(readings > 10);
    process.kill();
    assert_eq!(watch.read(process.pid), None);
}
