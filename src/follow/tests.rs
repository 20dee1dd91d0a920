use super::*;

const COOKIE: u64 = 7;

fn socket(state: TcpState, rmem_alloc: u32, rqueue: u32) -> Socket {
    Socket {
        cookie: COOKIE,
        cgroup: 0,
        inode: 5,
        rmem_alloc,
        wmem_queued: 0,
        forward_alloc: 0,
        rqueue,
        wqueue: 0,
        state,
        is_mptcp: false,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_socket_becomes_a_suspect_when_it_still_holds_something() {
    let mut followed = Followed::default();
    let full = socket(TcpState::Established, 8192, 5000);
    let empty = socket(TcpState::Established, 0, 0);
    let mut sample = |socket: &Socket, seconds| {
        let sighted = followed.sight(socket, false, at(seconds));
        followed.end();
        sighted
    };
    assert!(!sample(&full, 0).unwrap().is_suspect);
    let second = sample(&full, 15).unwrap();
    assert!(second.is_suspect);
    assert_eq!(second.history.receiving, at(15));
    assert_eq!(sample(&empty, 30), None);
    assert!(!sample(&full, 45).unwrap().is_suspect, "a queue that was empty in between starts anew");
}

#[test]
fn what_holds_nothing_costs_nothing() {
    let mut followed = Followed::default();
    for cookie in 0..100 {
        let small = Socket { cookie, ..socket(TcpState::Established, 768, 10) };
        assert_eq!(followed.sight(&small, false, at(0)), None);
    }
    assert!(followed.is_empty());
    followed.sight(&socket(TcpState::CloseWait, 832, 1), false, at(0)).unwrap();
    followed.end();
    assert_eq!(followed.len(), 1, "a leaked CLOSE_WAIT holds next to nothing");
    followed.end();
    assert!(followed.is_empty(), "and is forgotten once it is closed");
}

#[test]
fn consumption_stands_still_only_between_equal_answers() {
    let mut followed = Followed::default();
    let mut answer = |received: u64, rqueue: u32, seconds| {
        let socket = socket(TcpState::Established, 60_000, rqueue);
        followed.sight(&socket, false, at(seconds));
        let info = TcpInfo { bytes_received: Some(received), ..TcpInfo::default() };
        let answer = followed.answer(&socket, 131_072, info, at(seconds));
        followed.end();
        answer.not_consumed
    };
    assert_eq!(answer(50_000, 50_000, 0), at(0));
    assert_eq!(answer(55_000, 55_000, 15), at(15), "arrivals are no reads");
    assert_eq!(answer(60_000, 55_000, 30), at(0), "5,000 bytes were read");
    assert_eq!(answer(60_001, 55_001, 60), at(30), "an unread FIN cancels out");
}

#[test]
fn what_lies_is_told_from_what_passes() {
    let mut followed = Followed::default();
    let mut answer = |rmem_alloc: u32, rqueue: u32, received: u64, seconds| {
        let socket = socket(TcpState::Established, rmem_alloc, rqueue);
        followed.sight(&socket, false, at(seconds));
        let info = TcpInfo { bytes_received: Some(received), ..TcpInfo::default() };
        followed.answer(&socket, 131_072, info, at(seconds))
    };
    let first = answer(130_000, 10_000, 10_000, 0);
    assert_eq!((first.watched, first.lying, first.not_filled), (at(0), at(0), at(0)));
    // 9,999 of the 10,000 bytes were read, which takes 15 seconds: that is slow.
    let slow = answer(130_000, 40_000, 49_999, 15);
    assert_eq!((slow.watched, slow.lying, slow.is_limited), (at(15), at(15), false));
    assert_eq!(slow.not_filled, at(0), "not a multiple of the payload");
    let limited = answer(130_000, 40_000, 59_999, 30);
    assert!(limited.is_limited, "twice");
    assert_eq!(limited.lying, at(0), "the last of the first 10,000 has been read");
    // As full a buffer, and a megabyte a second.
    assert!(!answer(130_000, 40_000, 15_059_999, 45).is_limited);
    // Behind a hole, which is filled once.
    answer(130_000, 0, 15_059_999, 60);
    assert_eq!(answer(130_000, 0, 15_060_999, 75).not_filled, at(15), "a byte now and then fills no hole");
    assert_eq!(answer(130_000, 0, 15_100_999, 90).not_filled, at(0), "more than a quarter of what is held");
}

#[test]
fn an_incomplete_sample_breaks_no_history() {
    let mut followed = Followed::default();
    let full = socket(TcpState::Established, 8192, 5000);
    followed.sight(&full, false, at(0));
    followed.end();
    // Two attempts that were given up before they came to this socket.
    let sighted = followed.sight(&full, false, at(45)).unwrap();
    assert_eq!(sighted.history.receiving, at(45));
}

#[test]
fn a_new_state_counts_from_when_it_was_seen() {
    let mut followed = Followed::default();
    followed.sight(&socket(TcpState::Established, 8192, 5000), false, at(0));
    followed.end();
    let sighted = followed.sight(&socket(TcpState::CloseWait, 8192, 5001), false, at(15)).unwrap();
    assert_eq!((sighted.history.in_state, sighted.history.receiving), (at(0), at(15)));
}

/// A verdict goes on between answers as long as the dump shows what it was given for, and no longer.
#[test]
fn a_verdict_stands_while_the_queues_do() {
    let mut followed = Followed::default();
    let full = socket(TcpState::Established, 60_000, 50_000);
    assert_eq!(followed.sight(&full, false, at(0)).unwrap().standing, None, "nobody is judged unasked");
    let info = TcpInfo { bytes_received: Some(50_000), ..TcpInfo::default() };
    followed.answer(&full, 131_072, info, at(0));
    followed.judged(&full, &Verdicts::ACTIVE);
    followed.end();
    assert_eq!(followed.sight(&full, false, at(15)).unwrap().standing, None, "nobody is accused by silence");
    followed.answer(&full, 131_072, info, at(40));
    let verdict = Verdict { cause: Cause::NotReading, stalled: at(40) };
    followed.judged(&full, &Verdicts { receive: verdict, ..Verdicts::ACTIVE });
    followed.end();

    let later = followed.sight(&full, false, at(100)).unwrap();
    let expected = Verdict { cause: Cause::NotReading, stalled: at(100) };
    assert_eq!(later.standing, Some(Verdicts { receive: expected, ..Verdicts::ACTIVE }));
    assert_eq!(later.answered, Some(at(60)));
    for (rqueue, wqueue) in [(49_999, 0), (50_000, 1)] {
        let moved = Socket { wqueue, ..socket(TcpState::Established, 60_000, rqueue) };
        assert_eq!(followed.sight(&moved, false, at(115)).unwrap().standing, None);
    }
}

#[test]
fn cookies_are_unique_within_a_namespace_only() {
    let mut followed = Followed::default();
    let full = socket(TcpState::Established, 8192, 5000);
    for (round, seconds) in [(0, 0), (1, 15)] {
        for namespace in [4, 5] {
            followed.enter(namespace);
            if round == 1 && namespace == 5 {
                continue;
            }
            let sighted = followed.sight(&full, false, at(seconds)).unwrap();
            assert_eq!(sighted.is_suspect, round == 1);
        }
        followed.end();
        assert_eq!(followed.len(), 2 - round, "one that has gone is forgotten");
    }
}

/// Even if 200,000 sockets are followed and as many of them have answered as are remembered, that fits into 16 MiB. A
/// table has a power of two of places, of which seven eighths may be taken, and a byte beside each.
#[test]
fn a_followed_socket_costs_little() {
    let table = |entries: usize, size: usize| (entries * 8 / 7).next_power_of_two() * (size + 1);
    let bytes = table(200_000, size_of::<(u64, Track)>()) + table(ANSWERS_MAX, size_of::<(u64, Answers)>());
    assert!(bytes <= 16 << 20, "{bytes}");
}

#[test]
fn moments_are_exact_in_their_differences() {
    let now = |millis| Now::new(Duration::from_millis(millis));
    let began = Moment::at(now(1_234));
    assert_eq!(began.ago(now(1_234)), Duration::ZERO);
    assert_eq!(began.ago(now(16_234)), began.ago(now(6_234)) + at(10));
    assert_eq!(
        began.ago(now(6_234)),
        Duration::from_millis(5_034),
        "since the tenth of a second it fell into"
    );
}
