"""A TCP peer made by hand on a TUN device, for segments that no kernel sends: behind holes, or a hundred bytes each for no
reason. It is the host 10.9.0.2; the device, and with it the kernel's own 10.9.0.1, appear when it begins.
"""

import fcntl
import os
import socket
import struct
import subprocess
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
SYN, ACK = 2, 16
HERE = socket.inet_aton("10.9.0.2")
WINDOW = 65535


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Connection:
    """One connection to the kernel. `at` counts payload bytes from its beginning."""

    def __init__(self, address, port):
        self.tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        for command in (f"addr add {address}/24 dev wire", "link set wire up"):
            subprocess.run(["ip", *command.split()], check=True)
        self.there, self.port, self.ack = socket.inet_aton(address), port, 0
        self.packet(0, SYN)
        self.ack = self.first_answer() + 1
        self.packet(1, ACK)

    def packet(self, sequence, flags, payload=b""):
        tcp = struct.pack("!HHIIBBHHH", 1000, self.port, sequence, self.ack, 5 << 4, flags, WINDOW, 0, 0)
        pseudo = self.there + HERE + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp) + len(payload))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp + payload)) + tcp[18:]
        length = 20 + len(tcp) + len(payload)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_TCP, 0) + HERE + self.there
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        os.write(self.tun, ip + tcp + payload)

    def first_answer(self):
        """The sequence number of the kernel's SYN."""
        while True:
            packet = os.read(self.tun, 65536)
            # Its own announcements over IPv6 come by here too.
            if packet[0] == 0x45 and packet[9] == socket.IPPROTO_TCP and packet[33] == SYN | ACK:
                return struct.unpack("!I", packet[24:28])[0]

    def send(self, at, payload):
        self.packet(1 + at, ACK, payload)

    def stay(self):
        """Takes what the kernel sends, as a peer with nothing to add."""
        while os.read(self.tun, 65536):
            pass


def leave_a_hole(address, port):
    """A byte is missing, and everything after it is there."""
    connection = Connection(address, port)
    for at in range(1, 40_000, 1000):
        connection.send(at, b"x" * 1000)
    connection.stay()


def leave_holes_and_fill_them(address, port):
    """A byte is always missing, never the same one for longer than 0.2 seconds."""
    connection = Connection(address, port)
    block = 20_000
    begin = 0
    while True:
        for at in range(begin + 1, begin + block, 1000):
            connection.send(at, b"x" * min(1000, begin + block - at))
        if begin:
            connection.send(begin - block, b"x")
        begin += block
        time.sleep(0.2)


def send_small_segments(address, port):
    """The first of them late, as may happen on any path."""
    connection = Connection(address, port)
    for at in [100, 0, *range(200, 10_000, 100)]:
        connection.send(at, b"x" * 100)
    connection.stay()
