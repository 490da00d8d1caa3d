"""What a recording holds, looked through once before it is played: its addresses, its channels, its answers of REST."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from collector.errors import MessageError, RecordingError
from collector.exchanges.base import Exchange
from collector.feeds.recording import Answer, Line, parse_answer, read_recording

_SYMBOL_PARAMETERS = ("symbol", "instId", "pair", "currency_pair", "product_id", "instrument_name", "coin")
_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_AHEAD_NS = 10_000_000_000
"""How far ahead of the frames an answer is given where an earlier one of its kind has been given already."""

Key = tuple[str, str]
"""What an answer is found by: a path and a symbol (empty where the request names none). No other parameter counts."""


class RecordedAnswer(msgspec.Struct):
    """An answer in its place. The body is kept compressed: a recording of a day can hold hundreds of snapshots."""

    number: int
    received_ns: int
    key: Key
    status: int
    packed: bytes
    given: bool = False

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.packed)


class Script:
    """A recording as its player needs to know it beforehand.

    Args:
        frames: how many frames it has.
        last_frame: the number of the line of the last one.
        paths: the URL paths that connections were opened on.
        channels: per connection, the channels that its frames came on.
        answers: the answers of REST, in order.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.last_frame = 0
        self.paths: set[str] = set()
        self.channels: dict[str, set[str]] = {}
        self.answers: list[RecordedAnswer] = []
        self._by_key: dict[Key, list[RecordedAnswer]] = {}
        self._by_number: dict[int, RecordedAnswer] = {}
        self._bytes = 0

    def answer_at(self, number: int) -> RecordedAnswer | None:
        """Return the answer that a line holds."""
        return self._by_number.get(number)

    def first_answer(self, path: str) -> bytes | None:
        """Return the body of the first good answer to any request of a path."""
        return next((answer.body for answer in self.answers if answer.key[0] == path and answer.status == 200), None)

    def give(self, key: Key, number: int, received_ns: int) -> RecordedAnswer | None:
        """Return the answer to a request that comes while the frames are at a line; None where there is none at all.

        That is the newest one that the frames have passed and nobody has had; else the next one, if it is the first of
        its kind or near; else the last one again.
        """
        answers = self._by_key.get(key, [])
        fresh = [answer for answer in answers if not answer.given]
        passed = [answer for answer in fresh if answer.number <= number]
        had = [answer for answer in answers if answer.given]
        if passed:
            chosen = passed[-1]
        elif fresh and (not had or fresh[0].received_ns - received_ns <= _AHEAD_NS):
            chosen = fresh[0]
        elif had:
            chosen = had[-1]
        else:
            return None
        for answer in answers:
            answer.given = answer.given or answer.number <= chosen.number
        return chosen

    def rewind(self) -> None:
        """Forget what was given."""
        for answer in self.answers:
            answer.given = False

    def add_frame(self, line: Line, channel: str | None) -> None:
        """Take note of a frame and of the channel it came on."""
        self.frames += 1
        self.last_frame = line.number
        if channel is not None:
            self.channels.setdefault(line.connection, set()).add(channel)

    def add_answer(self, line: Line, answer: Answer, key: Key) -> None:
        """Take note of an answer of REST."""
        packed = zlib.compress(answer.body, 1)
        self._bytes += len(packed)
        if self._bytes > _MAX_ANSWER_BYTES:
            raise RecordingError(f"The recording's answers of REST have more than {_MAX_ANSWER_BYTES} bytes.")
        recorded = RecordedAnswer(line.number, line.received_ns, key, answer.status, packed)
        self.answers.append(recorded)
        self._by_key.setdefault(key, []).append(recorded)
        self._by_number[line.number] = recorded


def look_through(path: Path, exchange: Exchange, symbols: Sequence[str]) -> Script:
    """Read a whole recording for what its player must know; raise RecordingError where it cannot be read."""
    script = Script()
    for line in read_recording(path):
        if line.kind in ("<", "b"):
            channel = exchange.channel_of(line.payload)
            bare = _bare_snapshot(line, path, exchange, symbols) if line.bare and channel is None else None
            if bare is None:
                script.add_frame(line, channel)
            else:
                script.add_answer(line, Answer(200, "", line.payload), bare)
        elif line.kind == "+":
            script.paths.add(path_of(line.payload))
        elif line.kind not in ("-", ">"):
            answer = parse_answer(line)
            path_asked, symbol = request_key(answer.url)
            script.add_answer(line, answer, (exchange.current_path(path_asked), symbol))
    return script


def path_of(url: bytes | str) -> str:
    """Return the path of an address, without what comes after a question mark."""
    text = url.decode(errors="replace") if isinstance(url, bytes) else url
    try:
        return urlsplit(text).path.rstrip("/")
    except ValueError:
        return ""


def request_key(url: str) -> Key:
    """Return what the answer to a request is found by."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.path.rstrip("/"), symbol_of(dict(parse_qsl(parts.query)))


def symbol_of(params: Mapping[str, str]) -> str:
    """Return the symbol that the parameters of a request name, in capitals; empty where they name none."""
    return next((params[name].upper() for name in _SYMBOL_PARAMETERS if name in params), "")


def _bare_snapshot(line: Line, path: Path, exchange: Exchange, symbols: Sequence[str]) -> Key | None:
    """Say what a bare line is the answer to, if it is a snapshot: it stands among the frames, without a name.

    hftbacktest keeps a file for each symbol and names it after it.
    """
    name = path.name.upper()
    named = [symbol for symbol in symbols if exchange.native_of.get(symbol, "\n").upper() in name]
    candidates = named or (list(symbols) if len(symbols) == 1 else [])
    if not candidates:
        return None
    symbol = max(candidates, key=lambda symbol: len(exchange.native_of.get(symbol, "")))
    try:
        exchange.parse_snapshot(symbol, line.payload, 0)
    except MessageError:
        return None
    request = exchange.snapshot_request(symbol)
    return request.path, symbol_of(request.params)
