"""A proxy in front of an HTTP server that loses, cuts, delays and forges what passes through it, when told to.

It stands between the replicator and QuestDB in tests and in ``make chaos``. It understands just enough HTTP/1.1 to know
where a request and its answer end, and runs in a thread of its own, so that synchronous code can use it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

_CHUNK = 16 * 1024
_MAX_HEAD = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)

FaultKind = Literal["drop_response", "reset", "cut_request", "cut_response", "fake_status"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to one request.

    Args:
        kind: ``drop_response``: the server does its work, the answer is lost; ``reset``: the connection breaks before
            the server sees anything; ``cut_request`` and ``cut_response``: it breaks after ``after_bytes``;
            ``fake_status``: the server sees nothing, the answer is ``status`` with ``body``.
        match: what the request's first line must contain.
    """

    kind: FaultKind
    match: bytes = b""
    after_bytes: int = 0
    status: int = 503
    body: bytes = b""


class _Broken(Exception):
    """The connection is to be broken off now."""


class FaultProxy:
    """Listens on loopback, on a port that the system chooses; ``with`` starts and ends it.

    ``fired`` counts what really happened, by kind; ``requests`` the request lines that passed.
    """

    def __init__(self, upstream_port: int, upstream_host: str = "127.0.0.1") -> None:
        self.port = 0
        self.fired: Counter[str] = Counter()
        self.requests = 0
        self._upstream = (upstream_host, upstream_port)
        self._armed: deque[Fault] = deque()
        self._stalled = False
        self._refusing = False
        self._bytes_per_s: float | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._healed: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Told from outside

    @property
    def armed(self) -> int:
        """Return how many faults still wait for a request."""
        return len(self._armed)

    def arm(self, fault: Fault, times: int = 1) -> None:
        """Let a fault happen to the next requests that match it."""
        self._armed.extend([fault] * times)

    def stall(self) -> None:
        """Let nothing through, and let nobody know."""
        self._stalled = True
        self.fired["stall"] += 1

    def throttle(self, bytes_per_s: float) -> None:
        """Let requests through at this rate only."""
        self._bytes_per_s = bytes_per_s
        self.fired["throttle"] += 1

    def refuse(self) -> None:
        """Break all connections and every new one at once."""
        self._refusing = True
        self.fired["refuse"] += 1
        self.reset_all()

    def reset_all(self) -> None:
        """Break all connections."""
        self._call(self._break_all)

    def heal(self) -> None:
        """End every fault, armed ones too."""
        self._armed.clear()
        self._stalled = self._refusing = False
        self._bytes_per_s = None
        self._call(lambda: self._healed.set() if self._healed else None)

    def close(self) -> None:
        """End the proxy."""
        self._call(lambda: self._over.set() if self._over else None)
        self._thread.join()

    def _call(self, action: Callable[[], object]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)

    # In its own thread

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over, self._healed = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._over.wait()
        server.close()
        self._break_all()

    def _break_all(self) -> None:
        for writer in list(self._writers):
            _break(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            source, upstream = await asyncio.open_connection(*self._upstream, limit=_MAX_HEAD)
            self._writers.add(upstream)
            while not self._refusing:
                await self._exchange(reader, writer, source, upstream)
            _break(writer)
        except (_Broken, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _break(writer)
        finally:
            for each in (writer, upstream):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        source: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        """Pass one request and its answer, or do to them what is armed."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        fault = self._take(head.split(b"\r\n", 1)[0])
        kind = fault.kind if fault is not None else None
        if kind == "reset":
            raise _Broken
        if fault is not None and kind == "fake_status":
            await reader.readexactly(_body_length(head))
            answer = f"HTTP/1.1 {fault.status} Fake\r\nContent-Length: {len(fault.body)}\r\n\r\n".encode()
            await self._pass(answer + fault.body, writer)
            return
        allowance = fault.after_bytes if fault is not None and kind == "cut_request" else None
        await self._forward(head, reader, _body_length(head), upstream, allowance)
        answer = await self._answer(source)
        if kind == "drop_response":
            raise _Broken
        if fault is not None and kind == "cut_response":
            await self._pass(answer[: fault.after_bytes], writer)
            raise _Broken
        await self._pass(answer, writer)

    def _take(self, request_line: bytes) -> Fault | None:
        for fault in self._armed:
            if fault.match in request_line:
                self._armed.remove(fault)
                self.fired[fault.kind] += 1
                return fault
        return None

    async def _forward(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        length: int,
        upstream: asyncio.StreamWriter,
        allowance: int | None,
    ) -> None:
        content = head
        while True:
            if allowance is not None and len(content) >= allowance:
                await self._pass(content[:allowance], upstream)
                raise _Broken
            await self._pass(content, upstream)
            allowance = None if allowance is None else allowance - len(content)
            if length == 0:
                return
            content = await reader.read(min(length, _CHUNK))
            if not content:
                raise _Broken
            length -= len(content)

    async def _pass(self, content: bytes, writer: asyncio.StreamWriter) -> None:
        while self._stalled and self._healed is not None:
            self._healed.clear()
            await self._healed.wait()
        if self._bytes_per_s:
            await asyncio.sleep(len(content) / self._bytes_per_s)
        writer.write(content)
        await writer.drain()

    async def _answer(self, source: asyncio.StreamReader) -> bytes:
        head = await source.readuntil(b"\r\n\r\n")
        if not _CHUNKED.search(head):
            return head + await source.readexactly(_body_length(head))
        body = b""
        while True:
            size_line = await source.readuntil(b"\r\n")
            chunk = await source.readexactly(int(size_line, 16) + 2)
            body += size_line + chunk
            if chunk == b"\r\n":
                return head + body


def _body_length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _break(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a crashed peer does."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
