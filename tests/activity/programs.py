"""One process in the state named by its argument. Writes the pid to look at once it is (almost) there."""

import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
PTRACE_ATTACH = 16
THREADS = 6


def ready(pid):
    print(pid, flush=True)


def server():
    listener = socket.create_server(("127.0.0.1", 0))
    events = select.epoll()
    events.register(listener, select.EPOLLIN)
    return listener, events


def idle():
    """An event loop with a pool of threads that have nothing to do."""
    listener, events = server()
    work = threading.Semaphore(0)
    for _ in range(THREADS):
        threading.Thread(target=work.acquire, daemon=True).start()
    ready(os.getpid())
    events.poll()


def receiving():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    ready(os.getpid())
    client.recv(1)


def asleep():
    ready(os.getpid())
    time.sleep(1e6)


def on_a_pipe():
    readable, writable = os.pipe()
    ready(os.getpid())
    os.read(readable, 1)


def on_a_child():
    """Its stdin never ends, and so its child does not."""
    ready(os.getpid())
    subprocess.call(["cat"])


def deadlocked():
    locks = [threading.Lock(), threading.Lock()]
    both = threading.Barrier(2)

    def take(first, second):
        with first:
            both.wait()
            with second:
                pass

    threads = [threading.Thread(target=take, args=order) for order in (locks, locks[::-1])]
    for thread in threads:
        thread.start()
    ready(os.getpid())
    threads[0].join()


def impatient():
    """Threads that wait for a lock, but come back to it."""
    lock = threading.Lock()
    lock.acquire()
    ready(os.getpid())
    while True:
        lock.acquire(timeout=0.5)


def spinning():
    # Others want the CPUs too.
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    ready(os.getpid())
    while True:
        pass


def full():
    # Whoever runs the tests may leave descriptors open beyond the limit.
    os.closerange(3, 65536)
    listener, events = server()
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
    try:
        while True:
            os.dup(0)
    except OSError:
        ready(os.getpid())
    events.poll()


def traced():
    """A process under a debugger; it ends when its tracer does."""
    readable, writable = os.pipe()
    tracee = os.fork()
    if tracee == 0:
        os.close(writable)
        os.read(readable, 1)
        os._exit(0)
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if LIBC.ptrace(PTRACE_ATTACH, tracee, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(tracee, 0)
    ready(tracee)
    signal.pause()


def uninterruptible():
    """The parent of a vfork waits until its child execs or ends."""
    ready(os.getpid())
    if LIBC.vfork() == 0:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        LIBC.pause()
        LIBC._exit(0)


def churning():
    """Threads that are gone at once, and others that are always there."""
    for _ in range(THREADS):
        threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
    ready(os.getpid())
    while True:
        threading.Thread(target=int).start()


LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
globals()[sys.argv[1]]()
