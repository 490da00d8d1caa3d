"""The simulated exchange's REST side: what it answers, what that weighs, and whom it sends away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from collector.sim import dialect
from collector.sim.faults import Fault
from collector.sim.market import GENESIS_US, INTERVALS_US, SECOND_US, Instrument, Market

_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))
_REFUSALS_BEFORE_BAN = 10
_MAX_ROWS = 1000


class Reply(msgspec.Struct):
    """An answer of REST; ``retry_after_s`` becomes the header of that name."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Refused(Exception):
    """A request that the exchange answers with an error of its own code."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.reply = Reply(status, dialect.error(code, message))


class Weights:
    """Request weights by the minute: 429 beyond the limit, 418 for those who go on asking (``LIMITS``, "IP Limits").

    Args:
        limit_per_min: the sum of weights allowed in a minute.
        ban_s: how long a ban lasts, in seconds.
    """

    def __init__(self, limit_per_min: int = 6000, *, ban_s: float = 120) -> None:
        self.used = 0
        self.refused = 0
        self._limit_per_min = limit_per_min
        self._ban_s = ban_s
        self._minute = -1
        self._refused_in_row = 0
        self._away: tuple[int, float] = (0, 0.0)

    def send_away(self, status: int, until_s: float) -> None:
        """Refuse everything with a status (429, 418) until a time."""
        self._away = status, until_s

    def charge(self, weight: int, now_s: float) -> Reply | None:
        """Count a request; return a refusal where it is one too many."""
        if int(now_s // 60) != self._minute:
            self._minute, self.used = int(now_s // 60), 0
        status, until_s = self._away
        if now_s >= until_s:
            if self.used + weight <= self._limit_per_min:
                self.used += weight
                self._refused_in_row = 0
                return None
            status, until_s = 429, (self._minute + 1) * 60.0
            self._away = status, until_s
        self.refused += 1
        self._refused_in_row += 1
        if status == 429 and self._refused_in_row > _REFUSALS_BEFORE_BAN:
            status, until_s = 418, now_s + self._ban_s
            self._away = status, until_s
        body = dialect.error(-1003, "Too many requests; current limit of IP is exceeded.")
        return Reply(status, body, max(1, -int(-(until_s - now_s) // 1)))


class Answers:
    """Answer requests about a market, as far as it has been published.

    Args:
        gives_trades: whether it answers requests for trades, as not every exchange does.
    """

    def __init__(self, market: Market, *, gives_trades: bool = True) -> None:
        self._market = market
        self._gives_trades = gives_trades

    @staticmethod
    def weight(path: str, params: Mapping[str, str]) -> int:
        """Return what a request costs."""
        if path == "/api/v3/depth":
            try:
                limit = _whole(params, "limit", 100)
            except Refused:
                limit = 0
            return next((weight for most, weight in _DEPTH_WEIGHTS if limit <= most), 250)
        return {"/api/v3/exchangeInfo": 20, "/api/v3/aggTrades": 4, "/api/v3/klines": 2, "/api/v3/ticker/24hr": 80}.get(
            path, 1
        )

    async def answer(self, path: str, params: Mapping[str, str], now_us: int, fault: Fault | None) -> Reply:
        """Answer a request; a fault of the kind ``stale`` makes the book an old one."""
        try:
            return await self._answer(path, params, now_us, fault)
        except Refused as refused:
            return refused.reply

    async def _answer(self, path: str, params: Mapping[str, str], now_us: int, fault: Fault | None) -> Reply:
        if path == "/api/v3/ping":
            return Reply(200, b"{}")
        if path == "/api/v3/time":
            return Reply(200, b'{"serverTime":%d}' % (now_us // 1000))
        if path == "/api/v3/exchangeInfo":
            symbols = [instrument.symbol for instrument in self._market.by_native.values()]
            return Reply(200, dialect.exchange_info(symbols, now_us))
        if path == "/api/v3/depth":
            return self._depth(params, now_us, fault)
        if path == "/api/v3/aggTrades" and self._gives_trades:
            return self._trades(params, now_us)
        if path == "/api/v3/klines":
            return await self._klines(params, now_us)
        if path == "/api/v3/openInterest":
            second_us = now_us // SECOND_US * SECOND_US
            instrument = self._instrument(params)
            return Reply(200, dialect.open_interest(instrument, instrument.open_interest(now_us), second_us))
        if path == "/api/v3/ticker/24hr":
            return await self._day(now_us)
        raise Refused(-1, f"There is no {path}.", 404)

    def _depth(self, params: Mapping[str, str], now_us: int, fault: Fault | None) -> Reply:
        instrument = self._instrument(params)
        behind = fault.n if fault is not None and fault.kind == "stale" else 0
        book = instrument.book(instrument.bucket_at(now_us) - 1 - behind)
        return Reply(200, dialect.depth_answer(instrument, book, _whole(params, "limit", 100)))

    def _trades(self, params: Mapping[str, str], now_us: int) -> Reply:
        instrument = self._instrument(params)
        limit = min(_whole(params, "limit", 500), _MAX_ROWS)
        end = instrument.next_trade(now_us)
        if "fromId" in params:
            first = _whole(params, "fromId", 0)
        elif "startTime" in params or "endTime" in params:
            first, end = self._between(instrument, params, end)
        else:
            first = max(0, end - limit)
        prints = instrument.trades(first, min(end, first + limit))
        return Reply(200, msgspec.json.encode([dialect.trade_row(instrument, trade) for trade in prints]))

    @staticmethod
    def _between(instrument: Instrument, params: Mapping[str, str], end: int) -> tuple[int, int]:
        """Return the ids of the trades from ``startTime`` to ``endTime``, which belong to the span."""
        start_ms, end_ms = _whole(params, "startTime", 0), _whole(params, "endTime", 2**53)
        if start_ms > end_ms:
            raise Refused(-1127, "Start time is greater than end time.")
        return instrument.next_trade(start_ms * 1000), min(end, instrument.next_trade((end_ms + 1) * 1000))

    async def _klines(self, params: Mapping[str, str], now_us: int) -> Reply:
        instrument = self._instrument(params)
        interval_us = INTERVALS_US.get(params.get("interval", ""))
        if interval_us is None:
            raise Refused(-1120, "Invalid interval.")
        limit = min(_whole(params, "limit", 500), _MAX_ROWS)
        last_us = min(_whole(params, "endTime", 2**53) * 1000, now_us - 1)
        start_us = _whole(params, "startTime", -1) * 1000
        if start_us < 0:
            start_us = last_us // interval_us * interval_us - (limit - 1) * interval_us
        rows: list[list[object]] = []
        start_us = -(-max(start_us, GENESIS_US) // interval_us) * interval_us
        while start_us <= last_us and len(rows) < limit:
            fold = instrument.candle(start_us, interval_us, now_us)
            if fold is not None:
                rows.append(dialect.kline_row(instrument, (start_us, start_us + interval_us), fold))
            start_us += interval_us
            await asyncio.sleep(0)  # a candle of the past is worked out anew: others must not wait for a thousand
        return Reply(200, msgspec.json.encode(rows))

    async def _day(self, now_us: int) -> Reply:
        """Answer what was traded in 24 hours: the last whole minute's, 1440 times, as the day itself takes too long."""
        rows = []
        minute_us = INTERVALS_US["1m"]
        start_us = now_us // minute_us * minute_us - minute_us
        for instrument in self._market.by_native.values():
            rows.append(dialect.day_row(instrument, instrument.minute(start_us), 1440))
            await asyncio.sleep(0)
        return Reply(200, msgspec.json.encode(rows))

    def _instrument(self, params: Mapping[str, str]) -> Instrument:
        native = params.get("symbol")
        if not native:
            raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        instrument = self._market.by_native.get(native)
        if instrument is None:
            raise Refused(-1121, "Invalid symbol.")
        return instrument


def _whole(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 16:
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'.")
    return int(text)
