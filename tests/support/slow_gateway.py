"""A stand-in for a busy gateway: `python -m tests.support.slow_gateway FD BUSY_SECONDS BACKLOG`.

The server listens on the inherited socket FD and answers other requests with their X-Forwarded headers. It blocks its
event loop for BUSY_SECONDS for each WebSocket that opens, as a gateway does when many clients come at once.
"""

import asyncio
import base64
import hashlib
import re
import socket
import sys
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def run(file: int, busy_seconds: float, backlog: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
            if key is None:
                forwarded = b", ".join(re.findall(rb"(?im)^x-forwarded-\w+: *[^\r\n]*", head)).lower()
                size = str(len(forwarded)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\nConnection: close\r\n\r\n" + forwarded
                )
                return
            time.sleep(busy_seconds)  # noqa: ASYNC251 - the load that is simulated
            accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, sock=socket.socket(fileno=file), backlog=backlog)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
