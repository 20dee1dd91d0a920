"""Loopback connections of one process, doing what they are told on stdin, each command answered by its name."""

import ctypes
import fcntl
import mmap
import os
import platform
import socket
import struct
import sys
import threading
import time

CONNECTIONS = 4
UNREAD = 16000
USERFAULTFD = {"x86_64": 323, "aarch64": 282}[platform.machine()]
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_REGISTER_MODE_MISSING = 1


def connections():
    listener = socket.create_server(("127.0.0.1", 0))
    for _ in range(CONNECTIONS):
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        client.sendall(b"x" * UNREAD)
        yield client, server


def for_ever(work):
    def run():
        while True:
            for pair in pairs:
                work(*pair)
            time.sleep(0.05)

    threading.Thread(target=run, daemon=True).start()


def exchange(client, server):
    """What is unread stays as much, and is never the same."""
    client.sendall(b"x" * 1000)
    server.recv(1000)


def fault(server):
    """A thread that faults inside send(), with the socket's lock, until the returned descriptor is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    faults = libc.syscall(USERFAULTFD, os.O_CLOEXEC)
    if faults < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    region = struct.pack("QQQQ", address, mmap.PAGESIZE, UFFDIO_REGISTER_MODE_MISSING, 0)
    fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(region))
    threading.Thread(target=server.send, args=(page,), daemon=True).start()
    time.sleep(0.1)
    return faults


pairs = list(connections())
print("ready", flush=True)
for line in sys.stdin:
    command = line.strip()
    if command == "peek":
        for_ever(lambda _, server: server.recv(1, socket.MSG_PEEK))
    elif command == "read":
        for_ever(exchange)
    elif command == "fault":
        faults = fault(pairs[0][1])
    elif command == "release":
        os.close(faults)
    print(command, flush=True)
