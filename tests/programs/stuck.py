"""A socket whose lock is held for as long as one likes: send() takes it and then faults on a page that userfaultfd does
not provide.
"""

import ctypes
import fcntl
import mmap
import os
import platform
import socket
import struct
import threading
import time

USERFAULTFD = {"x86_64": 323, "aarch64": 282}
UFFD_API = 0xAA
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_ZEROPAGE = 0xC020AA04
REGISTER_MODE_MISSING = 1
TCP_INFO = 11

HELD = {}


def hold_lock(sock):
    """Leaves a thread behind inside send(). Whether the lock is really held: TCP_INFO, which takes it, must wait."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(USERFAULTFD[platform.machine()], os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    size = mmap.PAGESIZE
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("QQQ", UFFD_API, 0, 0))
    fcntl.ioctl(fd, UFFDIO_REGISTER, struct.pack("QQQQ", address, size, REGISTER_MODE_MISSING, 0))
    HELD.update(fd=fd, region=region, address=address, size=size)

    def send():
        sock.setblocking(True)
        sock.send(region)

    threading.Thread(target=send, daemon=True).start()
    # The fault is reported on fd once send() has run into it.
    os.read(fd, 32)
    # A process, not a thread: getsockopt() keeps Python's own lock while it waits.
    HELD["looker"] = os.fork()
    if HELD["looker"] == 0:
        sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 256)
        os._exit(0)
    time.sleep(0.3)
    return os.waitpid(HELD["looker"], os.WNOHANG) == (0, 0)


def release():
    fcntl.ioctl(HELD["fd"], UFFDIO_ZEROPAGE, struct.pack("QQQq", HELD["address"], HELD["size"], 0, 0))
    os.waitpid(HELD["looker"], 0)
