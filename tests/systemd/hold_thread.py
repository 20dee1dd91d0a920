"""Usage: hold_thread.py PID NAME

Stops one thread of a process, the others go on; says "held", and holds it until the process ends or this one does."""

import ctypes
import os
import pathlib
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")


pid, name = sys.argv[1:]
[thread] = [
    int(task.name)
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
    if (task / "comm").read_text().strip() == name
]
ptrace(PTRACE_SEIZE, thread)
ptrace(PTRACE_INTERRUPT, thread)
os.waitpid(thread, WALL)
print("held", flush=True)
# A process whose thread is traced cannot be reaped before the tracer has been told.
os.waitpid(thread, WALL)
