"""A process that does with TCP sockets what it is told: one JSON array [operation, arguments] a line on stdin, one JSON
answer a line on stdout. It ends with its stdin. It never reads from, closes or accepts anything unless told to, which is
how a program holds socket memory.

Usage: actor.py COMM
"""

import array
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

import private_table
import stuck
import workloads
from meminfo import figures

MPTCP = 262
PR_SET_NAME = 15
PR_SET_PDEATHSIG = 1
# Unless it is told so, nothing here lives longer, whatever happens to the test that started it.
LIFETIME = 900

LIBC = ctypes.CDLL(None, use_errno=True)
SOCKETS = {}
CHILDREN = []


def set_name(name):
    """PR_SET_NAME takes any bytes; the kernel cuts them at 15."""
    LIBC.prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)


def open_socket(address, mptcp=False):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM, MPTCP if mptcp else 0)


def limit_buffers(sock, receive=None, send=None):
    """The kernel doubles both. The receive buffer must be limited before the connection, or the peer fills what it was
    promised."""
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    if send is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)


def listen(name, address="127.0.0.1", port=0, backlog=1024, mptcp=False, reuseport=False, dual=False, **buffers):
    server = open_socket(address, mptcp)
    limit_buffers(server, **buffers)
    if server.family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    if reuseport:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((address, port))
    server.listen(backlog)
    SOCKETS[name] = server
    return server.getsockname()[1]


def connect(name, port, address="127.0.0.1", mptcp=False, bind_port=None, **buffers):
    client = open_socket(address, mptcp)
    limit_buffers(client, **buffers)
    if bind_port is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((address, bind_port))
    client.connect((address, port))
    SOCKETS[name] = client
    return client.getsockname()[1]


def knock(prefix, port, count):
    """Begins connections and does not wait for them to come about."""
    for index in range(count):
        client = open_socket("127.0.0.1")
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        SOCKETS[f"{prefix}{index}"] = client


def accept(name, listener):
    SOCKETS[listener].settimeout(20)
    SOCKETS[name], peer = SOCKETS[listener].accept()
    return peer[1]


def accept_all(prefix, listener):
    """Accepts whatever waits; how many that were."""
    SOCKETS[listener].setblocking(False)
    count = 0
    try:
        while True:
            SOCKETS[f"{prefix}{count}"] = SOCKETS[listener].accept()[0]
            count += 1
    except BlockingIOError:
        return count


def pairs(prefix, count, size, address="127.0.0.1"):
    """Connections to itself, each with `size` unread bytes at the accepted end."""
    listen(f"{prefix}listener", address)
    port = SOCKETS[f"{prefix}listener"].getsockname()[1]
    for index in range(count):
        connect(f"{prefix}client{index}", port, address)
        accept(f"{prefix}server{index}", f"{prefix}listener")
        if size:
            SOCKETS[f"{prefix}client{index}"].sendall(b"x" * size)
    return port


def send(name, size):
    SOCKETS[name].setblocking(True)
    SOCKETS[name].sendall(b"x" * size)


def fill(name):
    """Sends until nothing has gone for half a second; how many bytes have."""
    return fill_all([name])


def fill_all(names):
    sent, quiet_since = 0, time.monotonic()
    for name in names:
        SOCKETS[name].setblocking(False)
    while time.monotonic() - quiet_since < 0.5:
        for name in names:
            try:
                sent += SOCKETS[name].send(b"x" * 65536)
                quiet_since = time.monotonic()
            except BlockingIOError:
                pass
        time.sleep(0.01)
    return sent


def receive(name, size):
    SOCKETS[name].setblocking(True)
    left = size
    while left:
        left -= len(SOCKETS[name].recv(left))


def shutdown(name):
    SOCKETS[name].shutdown(socket.SHUT_WR)


def close(name):
    SOCKETS.pop(name).close()


def reset(name):
    """Closes with a RST."""
    SOCKETS[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    close(name)


def report(queues=True):
    """What the kernel tells this process of its own sockets."""
    return {name: figures(sock, queues) for name, sock in sorted(SOCKETS.items())}


def rename(name):
    set_name(bytes(name))


def fork(count=1, name=None):
    """Children that hold what this process holds now, and do nothing."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            # Not the pipes: whoever reads them must see the end of this process.
            os.close(0)
            os.close(1)
            signal.alarm(LIFETIME)
            if name:
                set_name(name.encode())
            while True:
                signal.pause()
        children.append(child)
    CHILDREN.extend(children)
    return children


def reap(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    CHILDREN.remove(pid)


def post(name, path):
    """Puts a socket into a message to whoever listens at `path`, and closes the own copy."""
    letter = socket.socket(socket.AF_UNIX)
    letter.connect("\0" + path)
    socket.send_fds(letter, [b"x"], [SOCKETS[name].fileno()])
    SOCKETS[f"{name} letter"] = letter
    close(name)


def letter_box(path):
    box = socket.socket(socket.AF_UNIX)
    box.bind("\0" + path)
    box.listen()
    SOCKETS["letter box"] = box


def take(name):
    letter, _ = SOCKETS["letter box"].accept()
    _, fds, _, _ = socket.recv_fds(letter, 1, 1)
    SOCKETS[name] = socket.socket(fileno=fds[0])


def spawn(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def stream(name):
    def work(sock):
        block = b"x" * (1 << 18)
        while True:
            sock.sendall(block)

    SOCKETS[name].setblocking(True)
    spawn(work, SOCKETS[name])


def drain(name):
    def work(sock):
        while sock.recv(1 << 18):
            pass

    SOCKETS[name].setblocking(True)
    spawn(work, SOCKETS[name])


def sip(name, size, pause):
    """Reads `size` bytes every `pause` seconds."""
    SOCKETS[name].setblocking(True)
    spawn(workloads.read_pieces(size, pause), SOCKETS[name])


def drip(names, size, pause):
    """Sends `size` bytes on each every `pause` seconds, as far as they go."""

    def work():
        while True:
            for name in names:
                try:
                    SOCKETS[name].send(b"x" * size)
                except BlockingIOError:
                    pass
            time.sleep(pause)

    for name in names:
        SOCKETS[name].setblocking(False)
        SOCKETS[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    spawn(work)


def churn(rate):
    """Opens and closes `rate` connections a second, without end."""
    server = socket.create_server(("127.0.0.1", 0), backlog=128)
    linger = struct.pack("ii", 1, 0)
    done = array.array("q", [0])

    def work():
        begin = time.monotonic()
        while True:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            client.sendall(b"x")
            # A RST leaves no TIME_WAIT behind.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
            accepted.close()
            done[0] += 1
            time.sleep(max(0.0, begin + done[0] / rate - time.monotonic()))

    SOCKETS["churn"] = server
    globals()["CHURNED"] = done
    spawn(work)


def churned():
    return CHURNED[0]


def free_port(address="127.0.0.1"):
    with open_socket(address) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def private_connect(port, size):
    return private_table.connect(port, size)


def private_report():
    return private_table.report()


def serve(workload):
    return workloads.serve(workload)


def visit(workload, address, port):
    return workloads.visit(workload, address, port)


def workload_names():
    return list(workloads.WORKLOADS)


def hold_lock(name):
    return stuck.hold_lock(SOCKETS[name])


def release_lock():
    stuck.release()


def deadlock():
    """Two threads take two locks in opposite order, and this one, which takes orders, waits for them for ever after its
    answer."""
    locks = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)

    def take(first, second):
        with locks[first]:
            both.wait()
            with locks[second]:
                pass

    for first in (0, 1):
        spawn(take, first, 1 - first)
    print(json.dumps({"answer": None}), flush=True)
    locks[0].acquire()
    locks[0].acquire()


OPERATIONS = [
    accept, accept_all, churn, churned, close, connect, deadlock, drain, drip, fill, fill_all, fork, free_port, hold_lock, knock,
    letter_box, listen, pairs, post, private_connect, private_report, reap, receive, release_lock, rename, report, reset, send,
    serve, shutdown, sip, stream, take, visit, workload_names,
]  # fmt: skip


def main():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.alarm(LIFETIME)
    set_name(sys.argv[1].encode())
    operations = {operation.__name__: operation for operation in OPERATIONS}
    print(json.dumps({"pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        operation, arguments = json.loads(line)
        try:
            answer = {"answer": operations[operation](**arguments)}
        except OSError as error:
            answer = {"error": f"{operation}: {error}"}
        print(json.dumps(answer), flush=True)


main()
