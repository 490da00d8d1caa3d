"""The simulated sources of history: all REST dialects of candles on one port, true to one market, failing on demand.

Each source is under a prefix of its name (``/okx/api/v5/market/candles``). Beside them:

- ``GET /admin/status``: by source what was asked, refused and answered, and which faults happened how often;
- ``GET``, ``POST``, ``DELETE /admin/faults``: the armed faults; a new one (as ``parse_fault`` reads it, in the body);
  none any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from collector.clock import Clock, SystemClock
from collector.errors import UsageError
from collector.sim.history_answers import DIALECTS, Answer, Dialect, Query, Refused
from collector.sim.history_contracts import answer_about_contracts
from collector.sim.history_market import HistoryMarket

Kind = Literal[
    "429",
    "418",
    "500",
    "503",
    "in_body",
    "html",
    "missing_field",
    "short",
    "duplicate",
    "endless",
    "drop",
    "hole",
    "lie",
]
KINDS: tuple[str, ...] = get_args(Kind)
_STANDING = ("hole", "lie")
"""Faults that are not spent by happening."""
_TIMES = ("t", "time", "start", "fundingTime", "fundingRateTimestamp", "timestamp")
"""How sources name a row's time."""
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 1024 * 1024
_MOST_REMEMBERED = 20_000
_ENDLESS_PAUSE_S = 0.01
_ENDLESS_PARTS = 60_000
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {418: "I'm a teapot"}


class HistoryFault(msgspec.Struct):
    """What goes wrong at a source.

    Args:
        kind: ``429`` and ``418`` (``seconds`` in Retry-After; everything is refused meanwhile), ``500``, ``503``;
            ``in_body``: the refusal of too many requests, whatever status the source has for it, with a status of 200;
            ``html`` instead of JSON; ``missing_field`` in the last candle; ``short``: one of several candles is not
            there, where a cut would cost it; ``duplicate``: the last candle is there twice; ``endless``: a body that
            never ends; ``drop``: the connection is closed without an answer; ``hole``: no candles in ``[from_us,
            to_us)``; ``lie``: pages of ``n`` candles at most.
        source: by name; empty for every one.
        after: how many requests with candles are let pass first.
        times: how often it happens; 0 without end.
    """

    kind: Kind
    source: str = ""
    after: int = 0
    times: int = 1
    seconds: float = 1.0
    from_us: int = 0
    to_us: int = 0
    n: int = 0


def parse_fault(words: str) -> HistoryFault:
    """Read ``kind:key=value,key=value``; raise UsageError where it is none."""
    kind, _, rest = words.partition(":")
    pairs = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    try:
        return msgspec.convert({"kind": kind, **pairs}, HistoryFault, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{words!r} is no fault: {error}.", hint=f"Kinds: {', '.join(KINDS)}.") from error


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate.

    Args:
        listed_us: when symbols were listed, where that is not 2019-01-01.
        closed_us: spans in which no source has candles, because nothing was traded.
        quiet: symbols of which in one minute of seven nothing is traded.
        limits: whether more requests than a source allows are refused.
        remember: answer what was asked before with the same bytes, at once, as long as no fault is armed: for
            measurements, where the time that answers take to make must not count.
    """

    symbols: Sequence[str] = ("BTC_USDT", "ETH_USDT")
    seed: int = 1
    listed_us: Mapping[str, int] = {}
    closed_us: Sequence[tuple[int, int]] = ()
    quiet: Sequence[str] = ()
    faults: Sequence[HistoryFault] = ()
    limits: bool = True
    remember: bool = False


class _Reply(msgspec.Struct):
    status: int
    body: bytes
    headers: dict[str, str] = {}
    endless: bool = False
    drop: bool = False


class SourceRecord:
    """What one source was asked, and what it answered."""

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        """For being too many."""
        self.candles = 0
        self.faults: Counter[str] = Counter()
        self.window = -1
        self.used = 0
        self.away_status = 429
        self.away_until_us = 0

    def facts(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "refused": self.refused,
            "candles": self.candles,
            "faults": dict(self.faults),
        }


class HistoryServer:
    """All sources as an object. Made by ``serve_history``."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.market = HistoryMarket(
            options.symbols,
            seed=options.seed,
            listed_us=options.listed_us,
            closed_us=options.closed_us,
            quiet=options.quiet,
        )
        self.faults = list(options.faults)
        self.records: dict[str, SourceRecord] = defaultdict(SourceRecord)
        self.port = 0
        self._dialects = {dialect.name: dialect(self.market) for dialect in DIALECTS}
        self._limits = options.limits
        self._remembered: dict[tuple[str, bytes], _Reply] | None = {} if options.remember else None
        self._clock = clock
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def rest_url(self, source: str) -> str:
        """Return the address of one source."""
        return f"{self.url}/{source}"

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses of all sources, by name."""
        return {name: self.rest_url(name) for name in self._dialects}

    def status(self) -> dict[str, object]:
        """Return what has happened, by source."""
        return {name: record.facts() for name, record in self.records.items()}

    def answer(self, method: str, target: str, body: bytes) -> _Reply:
        """Answer one request."""
        parts = urlsplit(target)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        name, _, rest = unquote(parts.path).lstrip("/").partition("/")
        if name == "admin":
            return self._administer(method, rest, body)
        dialect = self._dialects.get(name)
        if dialect is None:
            return _Reply(404, b'"There is no such source."')
        record = self.records[name]
        record.requests += 1
        path = f"/{rest}"
        refusal = self._charge(dialect, record, dialect.weight(path, params, body))
        if refusal is not None:
            return refusal
        if self._remembered is not None and not self.faults and (known := self._remembered.get((target, body))):
            return known
        fault = self._next_fault(name)
        if fault is not None:
            record.faults[fault.kind] += 1
        reply = self._before(dialect, record, fault)
        if reply is None:
            query = Query(path, params, body, self._clock.now_us(), self._lie(name), self._holes(name))
            reply = self._answer(dialect, record, query, fault)
        if dialect.used_header:
            reply.headers[dialect.used_header] = str(record.used)
        if self._remembered is not None and fault is None and not self.faults:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[target, body] = reply
        return reply

    def _administer(self, method: str, path: str, body: bytes) -> _Reply:
        if path == "status":
            return _Reply(200, msgspec.json.encode(self.status()))
        if path != "faults":
            return _Reply(404, b'"There is no such page."')
        if method == "POST":
            try:
                self.faults.append(parse_fault(body.decode(errors="replace").strip()))
            except UsageError as error:
                return _Reply(400, msgspec.json.encode(str(error)))
        elif method == "DELETE":
            self.faults.clear()
        return _Reply(200, msgspec.json.encode(self.faults))

    def _charge(self, dialect: Dialect, record: SourceRecord, weight: int) -> _Reply | None:
        """Count a request against the limit; return the refusal of one that is too many."""
        now_us = self._clock.now_us()
        if now_us < record.away_until_us:
            record.refused += 1
            return self._away(dialect, record, now_us)
        limit, window_s = dialect.allowed
        window = int(now_us / 1e6 // window_s)
        if window != record.window:
            record.window, record.used = window, 0
        record.used += weight
        if not self._limits or record.used <= limit:
            return None
        record.refused += 1
        record.away_status = 429
        record.away_until_us = round((window + 1) * window_s * 1_000_000)
        return self._away(dialect, record, now_us)

    @staticmethod
    def _away(dialect: Dialect, record: SourceRecord, now_us: int) -> _Reply:
        seconds = max(1, -((now_us - record.away_until_us) // 1_000_000))
        answer = dialect.too_many()
        status = 418 if record.away_status == 418 else answer.status
        headers = {} if status == 200 else {"Retry-After": str(seconds)}
        return _Reply(status, _encode(answer.document), headers)

    def _next_fault(self, name: str) -> HistoryFault | None:
        """Return what goes wrong with this request; the first fault that is due."""
        due = None
        for fault in self.faults:
            if fault.kind in _STANDING or fault.source not in ("", name):
                continue
            if fault.after > 0:
                fault.after -= 1
            elif due is None:
                due = fault
        if due is not None and due.times > 0:
            due.times -= 1
            if due.times == 0:
                self.faults = [fault for fault in self.faults if fault is not due]
        return due

    def _lie(self, name: str) -> int | None:
        told = [fault.n for fault in self.faults if fault.kind == "lie" and fault.source in ("", name)]
        return min(told, default=None)

    def _holes(self, name: str) -> list[tuple[int, int]]:
        holes = [fault for fault in self.faults if fault.kind == "hole" and fault.source in ("", name)]
        return [(fault.from_us, fault.to_us) for fault in holes]

    def _before(self, dialect: Dialect, record: SourceRecord, fault: HistoryFault | None) -> _Reply | None:
        """Return the answer to a request that never gets to the candles; None where it does."""
        if fault is None:
            return None
        if fault.kind in ("429", "418"):
            now_us = self._clock.now_us()
            record.away_status, record.away_until_us = int(fault.kind), now_us + round(fault.seconds * 1_000_000)
            reply = self._away(dialect, record, now_us)
            reply.status = int(fault.kind)
            reply.headers = {"Retry-After": f"{fault.seconds:g}"}
            return reply
        if fault.kind == "in_body":
            return _Reply(200, _encode(dialect.too_many().document))
        if fault.kind in ("500", "503"):
            return _Reply(int(fault.kind), b"upstream error", {"Content-Type": "text/plain"})
        if fault.kind == "html":
            page = b"<!DOCTYPE html><html><body>We'll be back soon.</body></html>"
            return _Reply(200, page, {"Content-Type": "text/html"})
        if fault.kind == "drop":
            return _Reply(0, b"", drop=True)
        return None

    @staticmethod
    def _answer(dialect: Dialect, record: SourceRecord, query: Query, fault: HistoryFault | None) -> _Reply:
        try:
            answer = answer_about_contracts(dialect, query) or dialect.answer(query)
        except Refused as refused:
            return _Reply(refused.answer.status, _encode(refused.answer.document))
        if fault is not None and answer.rows:
            _spoil(answer, fault.kind)
        record.candles += len(answer.rows or ())
        return _Reply(answer.status, _encode(answer.document), endless=fault is not None and fault.kind == "endless")

    # Connections

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client goes."""
        self._clients.add(writer)
        try:
            while (request := await _read(reader)) is not None:
                reply = self.answer(*request)
                if reply.drop:
                    break
                await _write(writer, reply)
                if reply.endless:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # a client that goes, or talks nonsense, is not answered
        finally:
            self._clients.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        """Close all connections."""
        for writer in tuple(self._clients):
            writer.transport.abort()


@asynccontextmanager
async def serve_history(options: Options, *, port: int = 0, clock: Clock | None = None) -> AsyncIterator[HistoryServer]:
    """Serve all sources on loopback; ``port`` 0 lets the system choose."""
    history = HistoryServer(options, clock or SystemClock())
    server = await asyncio.start_server(history.connected, "127.0.0.1", port, limit=_MAX_HEAD_BYTES)
    history.port = server.sockets[0].getsockname()[1]
    try:
        yield history
    finally:
        server.close()
        history.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, bytes] | None:
    """Read a request: its method, target and body; None where the client has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _MAX_BODY_BYTES:
        raise ValueError(f"a body of {length} bytes")
    return method, target, await reader.readexactly(length)


async def _write(writer: asyncio.StreamWriter, reply: _Reply) -> None:
    headers = {"Content-Type": "application/json", **reply.headers}
    if reply.endless:
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers["Content-Length"] = str(len(reply.body))
    head = f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Unknown')}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(head.encode() + b"\r\n")
    if not reply.endless:
        writer.write(reply.body)
        await writer.drain()
        return
    for _ in range(_ENDLESS_PARTS):
        writer.write(b"%x\r\n%b\r\n" % (len(reply.body), reply.body))
        await writer.drain()
        await asyncio.sleep(_ENDLESS_PAUSE_S)


def _spoil(answer: Answer, kind: str) -> None:
    """Make a page a wrong one."""
    rows = answer.rows
    if not rows:
        return
    if kind == "short" and len(rows) > 1:
        # A page's own end is where it was cut, whichever way round it is written.
        del rows[_cut_end(rows, oldest=answer.oldest_cut)]
    elif kind == "duplicate":
        rows.append(rows[-1])
    elif kind == "missing_field":
        last = rows[-1]
        rows[-1] = last[:2] if isinstance(last, list) else dict(list(last.items())[:2])


def _cut_end(rows: Sequence[Any], *, oldest: bool) -> int:
    """Return the index of the oldest or of the newest of rows that are in either order."""
    first, last = (_time_of(row) for row in (rows[0], rows[-1]))
    ascending = first <= last
    return 0 if ascending == oldest else -1


def _time_of(row: Any) -> int:
    if isinstance(row, list):
        return int(row[0])
    return int(next(row[name] for name in _TIMES if name in row))


def _encode(document: object) -> bytes:
    return msgspec.json.encode(document)
