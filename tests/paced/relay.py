"""``relay.py PORT TO_ADDRESS TO_PORT``: passes TCP on with a delay, as a long way does.

Each byte leaves `there` seconds after it came, or `back` seconds on its way back; the order stays,
and nothing is held back beyond that. Standard library alone.
"""

import argparse
import asyncio
import contextlib
import time


async def pass_on(reader, writer, delay):
    """Pass one direction on; a queue between, so that reading goes on while bytes are under way."""
    queue = asyncio.Queue()

    async def read():
        while data := await reader.read(1 << 16):
            queue.put_nowait((time.monotonic() + delay, data))
        queue.put_nowait((time.monotonic() + delay, b""))

    reading = asyncio.ensure_future(read())
    try:
        while True:
            moment, data = await queue.get()
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        reading.cancel()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


async def relay(port, address, target, there, back):
    """Relay until the process is ended."""

    async def connection(reader, writer):
        onward, outward = await asyncio.open_connection(address, target)
        both = (pass_on(reader, outward, there), pass_on(onward, writer, back))
        with contextlib.suppress(OSError):
            await asyncio.gather(*both)
        outward.close()
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main():
    """Run the relay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("address")
    parser.add_argument("target", type=int)
    parser.add_argument("--there", type=float, default=0.05)
    parser.add_argument("--back", type=float, default=0.0)
    known = parser.parse_args()
    asyncio.run(relay(known.port, known.address, known.target, known.there, known.back))


if __name__ == "__main__":
    main()
