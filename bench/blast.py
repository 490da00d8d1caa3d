"""A load server: Binance's aggTrade frames on a loopback websocket, as fast as they are taken or at a steady pace.

Every frame is 210 bytes of payload, ids count up per symbol, and exchange time moves with the frames, so that what
arrives can be checked against what was sent. It starts when the client's subscription is acknowledged, and closes with
"end of recording" when everything was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import http
import json
import time

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

PAYLOAD_BYTES = 210
BEATS_PER_S = 2000
MAX_LATE_S = 0.1


def symbol_names(count: int) -> list[str]:
    """Return native symbols of five letters and USDT, so that every frame is equally long."""
    return [f"S{n:04d}USDT" for n in range(count)]


def frame(native: str, number: int, time_ms: int, *, width: int = PAYLOAD_BYTES) -> bytes:
    """Return one unmasked text frame of exactly ``width`` bytes of payload."""
    price = f"{61_000 + number % 977}.{number % 89:02d}000000"
    volume = f"0.{number % 9973 + 1:05d}000"
    maker = "true" if number % 2 else "false"
    body = (
        f'{{"stream":"{native.lower()}@aggTrade","data":{{"e":"aggTrade","E":{time_ms + 1},"a":{10**9 + number},'
        f'"s":"{native}","p":"{price}","q":"{volume}","f":{2 * 10**9 + number},"l":{2 * 10**9 + number},'
        f'"T":{time_ms},"m":{maker},"M":true}}}}'
    ).encode()
    body += b" " * (width - len(body))
    header = b"\x81" + (bytes([126]) + len(body).to_bytes(2, "big") if len(body) > 125 else bytes([len(body)]))
    return header + body


class Blast:
    """Serve ``count`` frames over ``symbols`` symbols at ``rate`` per second (0: as fast as possible) to one client."""

    def __init__(self, count: int, symbols: int, rate: float, base_ms: int) -> None:
        self.count = count
        self.symbols = symbol_names(symbols)
        self.rate = rate
        self.base_ms = base_ms
        self.sent = 0

    def answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Serve the listing over HTTP on the same port."""
        if "/exchangeInfo" not in request.path:
            return None
        listing = [
            {"symbol": native, "status": "TRADING", "baseAsset": native[:-4], "quoteAsset": "USDT"}
            for native in self.symbols
        ]
        body = json.dumps({"symbols": listing}).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
        return Response(http.HTTPStatus.OK, "OK", headers, body)

    async def serve_client(self, connection: ServerConnection) -> None:
        """Acknowledge what the client asks for, then send everything."""
        asked: set[str] = set()
        while len(asked) < len(self.symbols):
            wanted = json.loads(await connection.recv())
            asked |= {name for name in wanted["params"] if name.endswith("@aggTrade")}
            await connection.send(json.dumps({"result": None, "id": wanted["id"]}))
        if self.rate:
            await self._pace(connection)
        else:
            await self._flood(connection)
        await connection.close(1000, "end of recording")

    async def _flood(self, connection: ServerConnection) -> None:
        chunk = 500
        names = self.symbols
        for start in range(0, self.count, chunk):
            numbers = range(start, min(start + chunk, self.count))
            frames = b"".join(frame(names[n % len(names)], n // len(names), self.base_ms + n // 50) for n in numbers)
            connection.transport.write(frames)
            await connection.drain()
            self.sent += len(numbers)

    async def _pace(self, connection: ServerConnection) -> None:
        """Send on an even beat, at most ``BEATS_PER_S``: up to that rate, every message in a write of its own."""
        names = self.symbols
        per_beat = max(1, round(self.rate / BEATS_PER_S))
        begin = time.perf_counter()
        for start in range(0, self.count, per_beat):
            numbers = range(start, min(start + per_beat, self.count))
            times = [self.base_ms + int(n / self.rate * 1000) for n in numbers]
            frames = [frame(names[n % len(names)], n // len(names), at) for n, at in zip(numbers, times, strict=True)]
            delay = begin + start / self.rate - time.perf_counter()
            if delay > 0:
                # An event loop's timers count in milliseconds, and would send messages in twos and threes.
                time.sleep(delay)  # noqa: ASYNC251
            connection.transport.write(b"".join(frames))
            self.sent += len(frames)
            if delay < -MAX_LATE_S:
                await connection.drain()
            else:
                await asyncio.sleep(0)
        await connection.drain()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--symbols", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    blast = Blast(arguments.count, arguments.symbols, arguments.rate, int(time.time() * 1000))
    server: Server
    async with serve(
        blast.serve_client,
        "127.0.0.1",
        arguments.port,
        process_request=blast.answer,
        compression=None,
        write_limit=2**20,
    ) as server:
        print(json.dumps({"port": next(iter(server.sockets)).getsockname()[1]}), flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except KeyboardInterrupt:
        pass
