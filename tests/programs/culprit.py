"""A process that connects to itself, writes until nobody takes more, and never reads: culprit.py NAME CONNECTIONS.

Ends by itself after LIFETIME, whatever happens to the test that started it.
"""

import signal
import socket
import sys

LIFETIME = 900
BLOCK = b"x" * (1 << 16)

name, connections = sys.argv[1], int(sys.argv[2])
signal.alarm(LIFETIME)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with open("/proc/self/comm", "w", encoding="utf-8") as comm:
    comm.write(name)

listener = socket.create_server(("127.0.0.1", 0))
kept = []
for _ in range(connections):
    client = socket.create_connection(listener.getsockname())
    kept += [client, listener.accept()[0]]
    client.setblocking(False)
    try:
        while True:
            client.send(BLOCK)
    except BlockingIOError:
        pass
print("holding", flush=True)
while True:
    signal.pause()
