"""What the programs of tests/support/workloads.rs do with their connections. Each workload is two ends: a program that
listens, and its peer that connects. They run in processes of their own, for as long as those are.
"""

import itertools
import os
import select
import socket
import sys
import threading
import time
import traceback

import wire

BLOCK = b"x" * (1 << 16)


def spawn(work, *arguments):
    """In a thread; when that fails the process ends, so that it cannot pass for one with nothing to be accused of."""

    def run():
        try:
            work(*arguments)
        except ConnectionError:
            # The other end has been killed, as all are in the end.
            os._exit(1)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    threading.Thread(target=run, daemon=True).start()


# Things to do with one connection.


def nothing(_):
    threading.Event().wait()


def every(period):
    """Turns, `period` seconds apart however long each takes."""
    begin = time.monotonic()
    for turn in itertools.count(1):
        yield turn
        time.sleep(max(0, begin + turn * period - time.monotonic()))


def read_to_end(sock):
    while sock.recv(1 << 18):
        pass


def read_exactly(sock, size):
    while size:
        size -= len(sock.recv(min(size, 1 << 18)))


def read_pieces(size, pause):
    def work(sock):
        while True:
            sock.recv(size)
            time.sleep(pause)

    return work


def peek(sock):
    for _ in every(0.1):
        sock.recv(100, socket.MSG_PEEK)


def send_all_the_time(sock):
    # Of this thread alone, which would take what CPU there is from everybody else.
    os.nice(10)
    while True:
        sock.sendall(BLOCK)


def send_once(size, then=nothing):
    def work(sock):
        sock.sendall(b"x" * size)
        then(sock)

    return work


def send_pieces(size, period):
    def work(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in every(period):
            sock.sendall(b"x" * size)

    return work


def send_small(size):
    """As many small messages as go, each in a segment of its own as far as that depends on the sender."""

    def work(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            for _ in range(50):
                sock.sendall(b"x" * size)
            time.sleep(0.005)

    return work


def read_bursts(size, pause):
    """Waits for a burst, lets it lie, reads it whole."""

    def work(sock):
        while True:
            select.select([sock], [], [])
            time.sleep(pause)
            read_exactly(sock, size)

    return work


def limit_buffer(size, then):
    def work(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        then(sock)

    return work


def shut(then):
    def work(sock):
        sock.shutdown(socket.SHUT_WR)
        then(sock)

    return work


def both(one, other):
    def work(sock):
        spawn(one, sock)
        other(sock)

    return work


def read_end_and_keep(sock):
    read_to_end(sock)
    nothing(sock)


# Ends: what listens is given its listener, what connects a function that does.


def accept(work, count=1):
    """A program that serves `count` connections."""

    def end(listener):
        for sock in [listener.accept()[0] for _ in range(count)]:
            spawn(work, sock)
        nothing(listener)

    return end


def connect(work, count=1):
    def end(dial):
        for sock in [dial() for _ in range(count)]:
            spawn(work, sock)
        nothing(dial)

    return end


def connect_anew(period, work):
    """A new connection every `period` seconds, each of them closed when `work` is done."""

    def once(dial):
        with dial() as sock:
            work(sock)
            # So that there is always one to be seen.
            time.sleep(0.1)

    def end(dial):
        for _ in every(period):
            spawn(once, dial)

    return end


def accept_anew(work, pause=0):
    """Serves connections as they come, looking for them every `pause` seconds."""

    def once(sock):
        with sock:
            work(sock)

    def end(listener):
        while True:
            time.sleep(pause)
            spawn(once, listener.accept()[0])
            while select.select([listener], [], [], 0)[0]:
                spawn(once, listener.accept()[0])

    return end


def leave(size):
    """Sends and closes."""

    def work(sock):
        sock.sendall(b"x" * size)
        sock.close()

    return work


def ask(sock):
    sock.sendall(b"x" * 1000)
    read_exactly(sock, 20_000)


def answer(sock):
    read_exactly(sock, 1000)
    sock.sendall(b"x" * 20_000)


def ask_again_and_again(period):
    def work(sock):
        for _ in every(period):
            ask(sock)

    return work


def answer_again_and_again(sock):
    while True:
        answer(sock)


def upload(sock):
    sock.sendall(b"x" * 10_000)
    sock.shutdown(socket.SHUT_WR)
    read_to_end(sock)


def take_upload(sock):
    read_to_end(sock)
    time.sleep(0.3)
    sock.sendall(b"stored")


def ask_and_shut(sock):
    sock.sendall(b"x" * 1000)
    sock.shutdown(socket.SHUT_WR)
    read_to_end(sock)


def answer_in_pieces(sock):
    read_exactly(sock, 1000)
    send_pieces(20_000, 0.3)(sock)


WORKLOADS = {
    "never_reads": (accept(nothing), connect(send_all_the_time)),
    "only_peeks": (accept(peek), connect(send_once(20_000))),
    "never_reads_small_messages": (accept(limit_buffer(8192, nothing)), connect(send_small(1))),
    # No part of a second: in step with the samples it could look the same in each of them.
    "reads_slowly": (accept(read_pieces(20_000, 0.23)), connect(send_all_the_time)),
    "never_accepts": (nothing, connect(send_once(10_000), count=3)),
    "ignores_the_end": (accept(nothing), connect(leave(20_000))),
    "leaks_connections": (accept(nothing, count=50), connect(leave(0), count=50)),
    "shuts_and_forgets": (accept(shut(nothing)), connect(send_once(20_000, read_end_and_keep))),
    "waits_behind_a_hole": (accept(read_to_end), wire.leave_a_hole),
    "hoards_small_segments": (accept(read_pieces(10, 0.1)), wire.send_small_segments),
    "loses_its_path": (accept(send_all_the_time), connect(read_to_end)),
    "loses_its_path_with_the_window_closed": (accept(send_all_the_time), connect(nothing)),
    "reads_bursts_late": (accept(read_bursts(50_000, 0.8)), connect(send_pieces(50_000, 1.2))),
    "forgets_ten_bytes": (accept(nothing), connect(send_once(10))),
    "keeps_connections_idle": (
        accept(answer_again_and_again, count=500),
        connect(send_once(1000, lambda sock: (read_exactly(sock, 20_000), nothing(sock))), count=500),
    ),
    "reads_saturated_flows": (accept(read_to_end, count=2), connect(send_all_the_time, count=2)),
    "keeps_a_small_buffer_full": (accept(limit_buffer(100_000, read_to_end)), connect(send_all_the_time)),
    "serves_requests": (accept(answer_again_and_again), connect(ask_again_and_again(0.01))),
    "serves_new_connections": (accept_anew(answer), connect_anew(0.02, ask)),
    "accepts_once_a_second": (accept_anew(answer, pause=1), connect_anew(0.1, ask)),
    "reads_to_the_end_and_closes": (accept_anew(take_upload), connect_anew(0.1, upload)),
    "reads_slowly_to_the_last": (accept(read_pieces(1000, 0.02)), connect(send_pieces(30_000, 1.3))),
    "answers_a_half_closed_peer": (accept(answer_in_pieces), connect(ask_and_shut)),
    "reads_small_messages": (accept(read_to_end), connect(send_small(20))),
    "is_interrupted_while_it_sends": (
        accept(both(send_all_the_time, read_bursts(20_000, 1.5))),
        connect(both(read_to_end, send_pieces(20_000, 5))),
    ),
    "reads_what_was_reordered": (accept(read_to_end), wire.leave_holes_and_fill_them),
    "sends_down_a_slow_path": (accept(send_all_the_time), connect(read_to_end)),
}


def serve(workload):
    """Begins the listening end; its port."""
    listener = socket.create_server(("0.0.0.0", 0), backlog=1024)
    spawn(WORKLOADS[workload][0], listener)
    return listener.getsockname()[1]


def visit(workload, address, port):
    """Begins the other end."""
    end = WORKLOADS[workload][1]
    if end.__module__ == wire.__name__:
        spawn(end, address, port)
    else:
        spawn(end, lambda: socket.create_connection((address, port)))
