"""A process's own view of a socket's memory."""

import fcntl
import socket
import struct
import termios

SO_MEMINFO = 55


def queue(sock, request):
    try:
        return struct.unpack("i", fcntl.ioctl(sock, request, struct.pack("i", 0)))[0]
    except OSError:
        # A listener has no payload queues.
        return 0


def figures(sock, queues=True):
    """Words of SO_MEMINFO, which takes no lock, and the two queues in bytes, which does; nothing of a UNIX socket."""
    if sock.family == socket.AF_UNIX:
        return None
    words = struct.unpack("9i", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    received, sent, forward = words[0], words[5], words[4]
    held = {"memory": received + sent + forward, "receive_memory": received, "send_memory": sent}
    if queues:
        held |= {"receive_queue": queue(sock, termios.FIONREAD), "send_queue": queue(sock, termios.TIOCOUTQ)}
    return held
