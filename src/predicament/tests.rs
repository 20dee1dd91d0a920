use proptest::prelude::*;

use super::*;

/// Threads in one state and place.
fn threads(count: u32, state: ThreadState, wait_channel: &str) -> ThreadGroup {
    ThreadGroup { state, wait_channel: wait_channel.to_owned(), count }
}

fn asleep(count: u32, wait_channel: &str) -> ThreadGroup {
    threads(count, ThreadState::Sleeping, wait_channel)
}

/// A process that was read twice and used next to nothing in between.
fn quiet(groups: &[ThreadGroup]) -> Activity {
    Activity {
        state: groups.first().map_or(ThreadState::Unknown, |group| group.state),
        threads_total: groups.iter().map(|group| group.count).sum(),
        threads: groups.to_vec(),
        interval_seconds: Some(15.0),
        still_seconds: Some(0.0),
        cpu_share: Some(0.001),
        frozen: Some(false),
        throttled_share: Some(0.0),
        open_fds: Some(10),
        fd_limit: Some(1024),
        ..Activity::default()
    }
}

/// The same, but nothing ran at all.
fn still(groups: &[ThreadGroup]) -> Activity {
    Activity { still_seconds: Some(15.0), cpu_share: Some(0.0), ..quiet(groups) }
}

fn busy(groups: &[ThreadGroup], cpu_share: f64) -> Activity {
    Activity { cpu_share: Some(cpu_share), ..quiet(groups) }
}

#[track_caller]
fn check(activity: &Activity, want: Predicament) {
    assert_eq!(activity.predicament(), want, "{activity:?}");
}

#[test]
fn what_stops_every_thread() {
    check(&still(&[threads(3, ThreadState::Stopped, "do_signal_stop")]), Predicament::Stopped);
    check(&still(&[threads(3, ThreadState::Traced, "ptrace_stop")]), Predicament::Traced);
    // A tracer that lets it run is no obstacle.
    let strace = Activity { tracer_pid: 7, ..still(&[asleep(1, "do_epoll_wait")]) };
    check(&strace, Predicament::Idle);
    // One thread of many under a debugger.
    let mut one = still(&[asleep(3, "do_epoll_wait"), threads(1, ThreadState::Traced, "ptrace_stop")]);
    check(&one, Predicament::Unknown);
    one.state = ThreadState::Traced;
    check(&one, Predicament::Traced);
    // The main thread has ended, the others live on.
    let headless = Activity {
        state: ThreadState::Zombie,
        ..still(&[threads(1, ThreadState::Zombie, ""), threads(2, ThreadState::Stopped, "do_signal_stop")])
    };
    check(&headless, Predicament::Stopped);
    // Known without a single thread read, and at the first reading.
    check(&Activity { state: ThreadState::Stopped, ..Activity::default() }, Predicament::Stopped);
    check(&Activity { frozen: Some(true), ..Activity::default() }, Predicament::Frozen);
}

#[test]
fn freezers_are_told_from_sleep_and_from_slow_disks() {
    let v1 = still(&[threads(2, ThreadState::Uninterruptible, "__refrigerator")]);
    let v2 = still(&[asleep(2, "do_freezer_trap")]);
    let v2_inlined = still(&[asleep(2, "get_signal")]);
    let left_asleep = still(&[
        threads(2, ThreadState::Uninterruptible, "futex_do_wait"),
        threads(1, ThreadState::Uninterruptible, "do_epoll_wait"),
    ]);
    for mut activity in [v1, v2, v2_inlined, left_asleep] {
        check(&activity, Predicament::Frozen);
        activity.frozen = None;
        check(&activity, Predicament::Frozen);
    }
    let stopped = threads(1, ThreadState::Stopped, "do_signal_stop");
    check(&Activity { frozen: Some(true), ..still(&[stopped]) }, Predicament::Stopped);
    let fuse = threads(1, ThreadState::Uninterruptible, "request_wait_answer");
    check(&still(&[fuse]), Predicament::Uninterruptible);
}

#[test]
fn uninterruptible_unless_only_passing_by() {
    let disk = threads(1, ThreadState::Uninterruptible, "folio_wait_bit_common");
    check(&still(std::slice::from_ref(&disk)), Predicament::Uninterruptible);
    check(&quiet(&[disk.clone(), asleep(4, "do_epoll_wait")]), Predicament::Uninterruptible);
    check(&busy(std::slice::from_ref(&disk), 0.3), Predicament::Working);
    let mut first = quiet(std::slice::from_ref(&disk));
    first.cpu_share = None;
    check(&first, Predicament::Unknown);
    // It holds the lock that all others want.
    let behind = [asleep(9, "futex_do_wait"), disk.clone()];
    check(&still(&behind), Predicament::Uninterruptible);
    check(&Activity { threads_not_read: 1, ..still(&behind) }, Predicament::Unknown);
    check(&still(&[asleep(9, "do_epoll_wait"), disk]), Predicament::Unknown);
}

#[test]
fn a_deadlock_needs_every_thread_and_no_movement() {
    for channel in ["futex_do_wait", "futex_wait_queue", "futex_wait_queue_me", "__futex_wait"] {
        check(&still(&[asleep(2, channel)]), Predicament::Deadlocked);
    }
    let deadlock = still(&[asleep(2, "futex_do_wait")]);
    // A condition variable with a timeout wakes up, if only for microseconds.
    check(&quiet(&[asleep(2, "futex_do_wait")]), Predicament::Working);
    check(&Activity { still_seconds: Some(4.9), ..deadlock.clone() }, Predicament::Unknown);
    check(&Activity { still_seconds: None, cpu_share: None, ..deadlock.clone() }, Predicament::Unknown);
    check(&Activity { threads_not_read: 1, ..deadlock }, Predicament::Unknown);
    // An idle runtime of Go or Java, a pool behind an event loop.
    check(&still(&[asleep(20, "futex_do_wait"), asleep(1, "do_epoll_wait")]), Predicament::Idle);
    check(&still(&[asleep(20, "futex_do_wait"), asleep(1, "poll_schedule_timeout")]), Predicament::Idle);
    check(
        &still(&[asleep(20, "futex_do_wait"), asleep(1, "hrtimer_nanosleep")]),
        Predicament::WaitsElsewhere,
    );
    // Where wait channels may not be read.
    check(&still(&[asleep(2, "")]), Predicament::Unknown);
    check(&still(&[asleep(2, "futex_do_wait"), asleep(1, "")]), Predicament::Unknown);
}

#[test]
fn what_holds_a_running_process() {
    let running = [threads(1, ThreadState::Running, "")];
    let spinning = Activity { spinning: 1, ..busy(&running, 1.0) };
    check(&spinning, Predicament::Spinning);
    check(&busy(&running, 0.8), Predicament::Working);
    let throttled = Activity { throttled_share: Some(0.8), ..busy(&running, 0.2) };
    check(&throttled, Predicament::Throttled);
    check(&Activity { throttled_share: Some(0.1), ..throttled }, Predicament::Working);
    // accept() fails, the event loop comes back to it at once.
    let full = Activity { open_fds: Some(1014), ..spinning };
    check(&full, Predicament::OutOfFds);
    check(&Activity { open_fds: Some(1013), ..full.clone() }, Predicament::Spinning);
    check(&Activity { fd_limit: None, ..full.clone() }, Predicament::Spinning);
    check(&Activity { open_fds: None, ..full }, Predicament::Spinning);
}

#[test]
fn where_it_waits() {
    for channel in
        ["anon_pipe_read", "hrtimer_nanosleep", "do_wait", "do_sigtimedwait", "locks_lock_inode_wait"]
    {
        let elsewhere = quiet(&[asleep(1, channel)]);
        check(&elsewhere, Predicament::WaitsElsewhere);
        check(&Activity { threads_not_read: 1, ..still(&elsewhere.threads) }, Predicament::Unknown);
        check(&busy(&elsewhere.threads, 0.5), Predicament::Working);
        check(&quiet(&[asleep(1, channel), asleep(1, "do_epoll_wait")]), Predicament::Idle);
        check(&still(&[asleep(1, channel), asleep(1, "a_new_function")]), Predicament::Unknown);
    }
    for channel in ["do_epoll_wait", "ep_poll", "poll_schedule_timeout", "inet_csk_accept", "wait_woken"] {
        let idle = quiet(&[asleep(1, channel)]);
        check(&idle, Predicament::Idle);
        check(&busy(&idle.threads, 0.5), Predicament::Working);
        check(&Activity { cpu_share: None, ..idle }, Predicament::Unknown);
    }
    check(&still(&[asleep(1, "a_new_function")]), Predicament::Unknown);
    check(&quiet(&[asleep(1, "a_new_function")]), Predicament::Working);
}

#[test]
fn nothing_known_is_unknown() {
    check(&Activity::default(), Predicament::Unknown);
    check(&still(&[]), Predicament::Unknown);
    check(&still(&[threads(1, ThreadState::Zombie, "")]), Predicament::Unknown);
}

#[test]
fn labels_are_the_words_of_json() {
    for predicament in Predicament::ALL {
        assert_eq!(serde_json::to_value(predicament).unwrap(), predicament.label());
    }
    for letter in "RSDTtZ?".chars() {
        let state = ThreadState::from_letter(letter);
        assert_eq!(serde_json::to_value(state).unwrap(), state.label());
    }
    let activity = Activity { freezer: "/a".to_owned(), ..quiet(&[asleep(2, "do_epoll_wait")]) };
    let json = serde_json::to_value(&activity).unwrap();
    assert_eq!(json["threads"][0]["waitChannel"], "do_epoll_wait");
    assert_eq!(json["openFds"], 10);
    assert_eq!(serde_json::from_value::<Activity>(json).unwrap(), activity);
}

/// The table above the code names the predicaments in the order in which they are tried.
#[test]
fn the_table_is_the_order_of_the_rules() {
    let text = include_str!("../predicament.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    assert!(rows.eq(Predicament::ALL.map(Predicament::label)));
}

fn any_group() -> impl Strategy<Value = ThreadGroup> {
    let channels = vec!["", "futex_do_wait", "do_epoll_wait", "do_wait", "__refrigerator", "other"];
    let state =
        prop::sample::select("RSDTtZ?".chars().collect::<Vec<_>>()).prop_map(ThreadState::from_letter);
    (state, prop::sample::select(channels), 0u32..1000)
        .prop_map(|(state, channel, count)| threads(count, state, channel))
}

fn any_activity() -> impl Strategy<Value = Activity> {
    let numbers = (any::<u32>(), 0u32..3, prop::option::of(0.0..20.0), prop::option::of(0.0..2.0));
    let rest = (prop::option::of(any::<bool>()), prop::option::of(0.0..1.0), prop::option::of(0u64..20));
    (prop::collection::vec(any_group(), 0..4), numbers, rest).prop_map(|(groups, numbers, rest)| Activity {
        threads_not_read: numbers.0 % 2,
        spinning: numbers.1,
        still_seconds: numbers.2,
        cpu_share: numbers.3,
        frozen: rest.0,
        throttled_share: rest.1,
        open_fds: rest.2,
        fd_limit: Some(10),
        threads: groups.clone(),
        ..quiet(&groups)
    })
}

proptest! {
    /// Less evidence never leads to a worse accusation than that it waits or works.
    #[test]
    fn missing_evidence_accuses_nobody(activity in any_activity()) {
        let blind = Activity {
            still_seconds: None,
            cpu_share: None,
            spinning: 0,
            throttled_share: None,
            frozen: None,
            open_fds: None,
            ..activity.clone()
        };
        let harmless = [Predicament::Stopped, Predicament::Traced, Predicament::Frozen, Predicament::Working];
        let said = blind.predicament();
        prop_assert!(said == Predicament::Unknown || harmless.contains(&said), "{said:?}");
        let part = Activity { threads_not_read: 1, ..activity };
        prop_assert!(!matches!(part.predicament(), Predicament::Deadlocked | Predicament::WaitsElsewhere));
    }
}
