use proptest::prelude::*;

use super::*;

const T: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_secs(15);

/// A socket whose application has not read for a minute: 100,000 bytes unread, a closed window.
#[derive(Clone, Copy)]
struct Case {
    socket: Socket,
    is_queued: bool,
    history: History,
}

fn stalled_reader() -> Case {
    Case {
        socket: Socket {
            cookie: 1,
            cgroup: 0,
            inode: 5,
            rmem_alloc: 131_072,
            wmem_queued: 0,
            forward_alloc: 0,
            rqueue: 100_000,
            wqueue: 0,
            state: TcpState::Established,
            is_mptcp: false,
        },
        is_queued: false,
        history: History {
            in_state: LONG,
            receiving: LONG,
            sending: Duration::ZERO,
            answer: Some(Answer {
                info: TcpInfo {
                    receive_mss: 1448,
                    bytes_received: Some(1_000_000),
                    bytes_acked: Some(0),
                    not_sent: Some(0),
                    data_segments_in: Some(700),
                    out_of_order_segments: Some(0),
                    send_window: Some(65_536),
                    receive_window: Some(0),
                    ..TcpInfo::default()
                },
                not_consumed: LONG,
                not_acked: LONG,
                watched: LONG,
                lying: LONG,
                not_filled: LONG,
                is_limited: true,
            }),
        },
    }
}

fn stalled_sender() -> Case {
    let mut case = stalled_reader();
    (case.socket.rmem_alloc, case.socket.rqueue) = (0, 0);
    (case.socket.wmem_queued, case.socket.wqueue) = (4_000_000, 3_900_000);
    (case.history.receiving, case.history.sending) = (Duration::ZERO, LONG);
    info(&mut case, |info| (info.send_window, info.not_sent) = (Some(0), Some(3_900_000)));
    case
}

fn answer(case: &mut Case, change: impl FnOnce(&mut Answer)) {
    change(case.history.answer.as_mut().unwrap());
}

fn info(case: &mut Case, change: impl FnOnce(&mut TcpInfo)) {
    answer(case, |answer| change(&mut answer.info));
}

#[track_caller]
fn check(name: &str, base: fn() -> Case, receive: Cause, send: Cause, change: impl FnOnce(&mut Case)) {
    let mut case = base();
    change(&mut case);
    let verdicts = judge(&case.socket, case.is_queued, &case.history, T);
    assert_eq!((verdicts.receive.cause, verdicts.send.cause), (receive, send), "{name}");
    for verdict in [verdicts.receive, verdicts.send] {
        assert_eq!(verdict.stalled >= T, verdict.cause != Cause::Active, "{name}: {verdict:?}");
    }
}

#[test]
fn receivers_and_their_innocent_neighbours() {
    use Cause::{Active, NotReading, SlowReading};
    let receiver = |name, want, change: fn(&mut Case)| check(name, stalled_reader, want, Active, change);
    receiver("stopped reading", NotReading, |_| {});
    receiver("stopped a moment ago", Active, |case| {
        answer(case, |answer| (answer.not_consumed, answer.is_limited) = (SHORT, false));
    });
    receiver("stopped, and no tcp_info", Active, |case| case.history.answer = None);
    receiver("stopped, on a kernel that does not tell bytes_received", Active, |case| {
        info(case, |info| info.bytes_received = None);
        answer(case, |answer| (answer.not_consumed, answer.is_limited) = (Duration::ZERO, false));
    });
    receiver("sends for a minute, and has just been sent something", Active, |case| {
        case.history.receiving = SHORT;
    });
    receiver("ten forgotten bytes", Active, |case| {
        (case.socket.rmem_alloc, case.socket.rqueue) = (768, 10);
    });
    receiver("an idle keep-alive", Active, |case| {
        (case.socket.rmem_alloc, case.socket.rqueue) = (0, 0);
        case.history.answer = None;
    });
    receiver("only a FIN unread, not told yet", Active, |case| {
        (case.socket.rmem_alloc, case.socket.rqueue) = (832, 1);
    });

    receiver("reads too slowly", SlowReading, |case| {
        answer(case, |answer| answer.not_consumed = Duration::ZERO);
    });
    receiver("not read for less than it has been watched", Active, |case| {
        answer(case, |answer| (answer.not_consumed, answer.watched) = (SHORT, SHORT));
    });
    receiver("a saturated flow that is read as it comes", Active, |case| {
        answer(case, |answer| (answer.not_consumed, answer.is_limited) = (Duration::ZERO, false));
    });
    receiver("a burst read every few seconds", Active, |case| {
        case.history.receiving = SHORT;
        answer(case, |answer| answer.not_consumed = SHORT);
    });
}

#[test]
fn hoards_and_their_innocent_neighbours() {
    use Cause::{Active, OutOfOrder, SmallSegments};
    let receiver = |name, want, change: fn(&mut Case)| check(name, stalled_reader, want, Active, change);
    let hoard = |case: &mut Case| {
        case.socket.rqueue = 0;
        answer(case, |answer| answer.not_consumed = LONG);
        info(case, |info| info.out_of_order_segments = Some(3000));
    };
    receiver("a hole", OutOfOrder, hoard);
    receiver("a hole and readable data", OutOfOrder, |case| {
        case.socket.rqueue = 20_000;
        answer(case, |answer| answer.not_consumed = SHORT);
        info(case, |info| info.out_of_order_segments = Some(3000));
    });
    receiver("ever new holes that are filled", Active, |case| {
        case.socket.rqueue = 0;
        answer(case, |answer| (answer.not_consumed, answer.not_filled) = (SHORT, SHORT));
        info(case, |info| info.out_of_order_segments = Some(3000));
    });
    receiver("a hole of a moment", Active, |case| {
        case.socket.rqueue = 0;
        case.history.receiving = SHORT;
        info(case, |info| info.out_of_order_segments = Some(3000));
    });
    receiver("single bytes", SmallSegments, |case| {
        case.socket.rqueue = 20_000;
        answer(case, |answer| answer.not_consumed = Duration::ZERO);
        info(case, |info| info.data_segments_in = Some(1_000_000));
    });
    receiver("single bytes, one of them late long ago", SmallSegments, |case| {
        case.socket.rqueue = 20_000;
        answer(case, |answer| answer.not_consumed = Duration::ZERO);
        info(case, |info| (info.data_segments_in, info.out_of_order_segments) = (Some(1_000_000), Some(1)));
    });
    receiver("single bytes behind a hole", OutOfOrder, |case| {
        case.socket.rqueue = 0;
        answer(case, |answer| (answer.not_consumed, answer.lying) = (LONG, Duration::ZERO));
        info(case, |info| {
            (info.data_segments_in, info.out_of_order_segments) = (Some(1_000_000), Some(3000));
        });
    });
    receiver("single bytes, read as they come", Active, |case| {
        case.socket.rqueue = 20_000;
        answer(case, |answer| {
            (answer.not_consumed, answer.lying, answer.is_limited) = (Duration::ZERO, SHORT, false);
        });
        info(case, |info| info.data_segments_in = Some(1_000_000));
    });
    receiver("partly read GSO segments", Active, |case| {
        (case.socket.rmem_alloc, case.socket.rqueue) = (96_064, 29_696);
        answer(case, |answer| (answer.not_consumed, answer.is_limited) = (Duration::ZERO, false));
    });
}

#[test]
fn whom_the_peer_has_left_and_their_innocent_neighbours() {
    use Cause::{AcceptQueue, Active, CloseWait, HalfClosed};
    let receiver = |name, want, change: fn(&mut Case)| check(name, stalled_reader, want, Active, change);
    receiver("peer gone, data unread", CloseWait, |case| case.socket.state = TcpState::CloseWait);
    let only_a_fin = |name, want, change: fn(&mut Case)| {
        check(name, stalled_reader, want, Active, |case| {
            (case.socket.state, case.socket.rmem_alloc, case.socket.rqueue) = (TcpState::CloseWait, 832, 1);
            change(case);
        });
    };
    only_a_fin("leaked", CloseWait, |case| case.history.answer = None);
    only_a_fin("leaked, as tcp_info says", CloseWait, |_| {});
    only_a_fin("peer half closed, still answered", Active, |case| {
        answer(case, |answer| answer.not_acked = SHORT);
    });
    only_a_fin("peer half closed, its answer on its way", Active, |case| {
        case.socket.wmem_queued = 1280;
        case.history.answer = None;
    });
    only_a_fin("peer gone a moment ago", Active, |case| case.history.in_state = SHORT);
    receiver("peer gone with its last words, after a minute of listening", Active, |case| {
        case.socket.state = TcpState::CloseWait;
        (case.history.in_state, case.history.receiving) = (SHORT, SHORT);
    });
    receiver("peer gone, the rest is being read", Active, |case| {
        case.socket.state = TcpState::CloseWait;
        answer(case, |answer| (answer.not_consumed, answer.is_limited) = (Duration::ZERO, false));
    });
    receiver("half closed and forgotten", HalfClosed, |case| case.socket.state = TcpState::FinWait2);
    receiver("half closed, still read", Active, |case| {
        case.socket.state = TcpState::FinWait2;
        answer(case, |answer| (answer.not_consumed, answer.is_limited) = (SHORT, false));
    });

    let queued = |name, cause, in_state| {
        check(name, stalled_reader, cause, cause, |case| {
            (case.is_queued, case.socket.inode) = (true, 0);
            (case.history.in_state, case.history.answer) = (in_state, None);
        });
    };
    queued("nobody accepts", AcceptQueue, LONG);
    queued("a burst of connections", Active, SHORT);
}

#[test]
fn senders_and_their_innocent_neighbours() {
    use Cause::{Active, PathStalled, PeerNotReading};
    let sender = |name, want, change: fn(&mut Case)| check(name, stalled_sender, Active, want, change);
    sender("the peer does not read", PeerNotReading, |_| {});
    sender("the peer paused a moment ago", Active, |case| answer(case, |answer| answer.not_acked = SHORT));
    sender("the peer reads slowly", Active, |case| answer(case, |answer| answer.not_acked = Duration::ZERO));
    sender("no tcp_info", Active, |case| case.history.answer = None);
    sender("a few bytes", Active, |case| case.socket.wmem_queued = 1280);
    let dead = |case: &mut Case| {
        info(case, |info| {
            (info.send_window, info.unacked, info.retransmits) = (Some(65_536), 10, 5);
            info.last_ack_received_ms = 60_000;
        });
    };
    sender("a dead path", PathStalled, dead);
    sender("a lossy path that still acknowledges", Active, |case| {
        info(case, |info| {
            (info.send_window, info.unacked, info.retransmits) = (Some(65_536), 10, 1);
            info.last_ack_received_ms = 200;
        });
    });
    sender("probes that nobody answers", PathStalled, |case| {
        info(case, |info| (info.probes, info.last_ack_received_ms) = (5, 60_000));
    });
    sender("probes that are answered, a minute apart", PeerNotReading, |case| {
        info(case, |info| (info.probes, info.last_ack_received_ms) = (1, 60_000));
    });
    sender("the peer's memory is full, and drops what is repeated", PeerNotReading, |case| {
        info(case, |info| (info.unacked, info.last_ack_received_ms) = (1, 60_000));
    });
    sender("a kernel that does not tell snd_wnd", PeerNotReading, |case| {
        info(case, |info| info.send_window = None);
    });
}

proptest! {
    /// Whatever a socket looks like: without tcp_info only its state can accuse it, and nothing is accused early.
    #[test]
    fn nobody_is_accused_without_evidence(
        rmem in any::<u32>(), wmem in any::<u32>(), rqueue in any::<u32>(), state in 0..TcpState::ALL.len(),
        seconds in 0u64..100,
    ) {
        let mut case = stalled_reader();
        case.socket.rmem_alloc = rmem;
        case.socket.wmem_queued = wmem;
        case.socket.rqueue = rqueue;
        case.socket.state = TcpState::ALL[state];
        let elapsed = Duration::from_secs(seconds);
        case.history = History { in_state: elapsed, receiving: elapsed, sending: elapsed, answer: None };
        let found = judge(&case.socket, false, &case.history, T);
        let is_leaked =
            case.socket.state == TcpState::CloseWait && rqueue <= 1 && wmem == 0 && elapsed >= T;
        prop_assert_eq!(found.receive.cause, if is_leaked { Cause::CloseWait } else { Cause::Active });
        prop_assert_eq!(found.send.cause, Cause::Active);
    }
}
