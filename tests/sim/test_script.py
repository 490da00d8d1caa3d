"""What is found out about a recording before it is played."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collector.errors import RecordingError
from collector.exchanges.base import Exchange
from collector.exchanges.registry import create_exchange
from collector.feeds.recording import answer_payload, format_line
from collector.sim import dialect
from collector.sim.script import Script, look_through, path_of, request_key

SYMBOLS = ["BTC_USDT", "ETH_USDT"]
DEPTH = ("/api/v3/depth", "BTCUSDT")


@pytest.fixture
def exchange() -> Exchange:
    plain = create_exchange("binance")
    return create_exchange("binance", plain.parse_listing(dialect.exchange_info(SYMBOLS, 0)))


def look(tmp_path: Path, exchange: Exchange, *lines: bytes, name: str = "raw.rec") -> Script:
    path = tmp_path / name
    path.write_bytes(b"".join(lines))
    return look_through(path, exchange, SYMBOLS)


def frame(ns: int, connection: int, stream: str) -> bytes:
    return format_line(ns, connection, "<", json.dumps({"stream": stream, "data": {}}))


def depth(ns: int, last_id: int, symbol: str = "BTCUSDT") -> bytes:
    body = json.dumps({"lastUpdateId": last_id, "bids": [], "asks": []}).encode()
    return format_line(ns, "http", "GET", answer_payload(200, f"https://h/api/v3/depth?symbol={symbol}&limit=5", body))


def test_channels_paths_and_frames_are_found(tmp_path: Path, exchange: Exchange) -> None:
    """Per connection its channels, the paths of all, and where the last frame is."""
    script = look(
        tmp_path,
        exchange,
        format_line(1, 1, "+", "wss://host/public/stream?streams=x"),
        format_line(1, 2, "+", "wss://host/market/stream/"),
        format_line(2, 1, ">", "{}"),
        frame(3, 1, "btcusdt@depth@100ms"),
        frame(4, 2, "btcusdt@aggTrade"),
        format_line(5, 2, "<", '{"result":null,"id":1}'),
        format_line(6, 1, "-", "bye"),
    )
    assert script.paths == {"/public/stream", "/market/stream"}
    assert script.channels == {"1": {"btcusdt@depth"}, "2": {"btcusdt@aggTrade"}}
    assert (script.frames, script.last_frame) == (3, 6)


def test_answers_are_given_in_their_order(tmp_path: Path, exchange: Exchange) -> None:
    """The newest passed answer that nobody had is given; else the first one ahead; else the last one again."""
    second = 1_000_000_000
    script = look(
        tmp_path,
        exchange,
        depth(1, 10),
        depth(2, 20),
        depth(3, 30, "ETHUSDT"),
        depth(60 * second, 40),
        depth(61 * second, 50),
    )

    def give(number: int, ns: int) -> int:
        answer = script.give(DEPTH, number, ns)
        assert answer is not None
        return int(json.loads(answer.body)["lastUpdateId"])

    assert give(0, 0) == 10  # before the play: the first one
    assert give(3, 3) == 20  # the newest that was passed
    assert give(3, 3) == 20  # the next one is a minute ahead: not yet
    assert give(3, 55 * second) == 40  # near
    assert give(5, 61 * second) == 50
    assert give(5, 62 * second) == 50  # stays available
    script.rewind()
    assert give(0, 0) == 10


def test_passed_answers_that_nobody_had_are_skipped(tmp_path: Path, exchange: Exchange) -> None:
    """Of several passed answers the newest is given, and the older ones count as given."""
    script = look(tmp_path, exchange, depth(1, 10), depth(2, 20))
    answer = script.give(DEPTH, 2, 2)
    assert answer is not None
    assert json.loads(answer.body)["lastUpdateId"] == 20
    assert all(answer.given for answer in script.answers)


def test_unrecorded_requests_have_no_answer(tmp_path: Path, exchange: Exchange) -> None:
    """A request of another path or symbol has no answer."""
    script = look(tmp_path, exchange, depth(1, 10))
    assert script.give(("/api/v3/depth", "ETHUSDT"), 5, 5) is None
    assert script.give(("/api/v3/klines", "BTCUSDT"), 5, 5) is None


@pytest.mark.parametrize("name", ["btcusdt_20240808", "anything"])
def test_a_bare_snapshot_is_an_answer(tmp_path: Path, exchange: Exchange, name: str) -> None:
    """hftbacktest's snapshot among the frames is the answer to the request for that file's symbol."""
    lines = [b'1 {"stream":"btcusdt@trade","data":{}}\n', b'2 {"lastUpdateId":7,"bids":[],"asks":[]}\n']
    script = look(tmp_path, exchange, *lines, name=name)
    assert [answer.key for answer in script.answers] == ([DEPTH] if name.startswith("btc") else [])
    assert script.frames == 2 - len(script.answers)


def test_a_bare_snapshot_of_the_only_symbol_is_an_answer(tmp_path: Path, exchange: Exchange) -> None:
    """With one symbol asked for, the snapshot is its own, whatever the file is called."""
    path = tmp_path / "x.gz"
    path.write_bytes(b'2 {"lastUpdateId":7,"bids":[],"asks":[]}\n3 {"other":1}\n')
    script = look_through(path, exchange, ["BTC_USDT"])
    assert [answer.key for answer in script.answers] == [DEPTH]


def test_a_broken_answer_is_an_error(tmp_path: Path, exchange: Exchange) -> None:
    """An answer line without a status is an error with its number."""
    with pytest.raises(RecordingError, match="Line 1"):
        look(tmp_path, exchange, b"1 http GET nonsense\n")


@pytest.mark.parametrize(
    ("url", "path"),
    [("wss://h:1/a/b/?c=d", "/a/b"), (b"ws://h", ""), ("ws://[", ""), ("/stream?streams=a/b", "/stream")],
)
def test_paths_are_taken_from_addresses(url: str | bytes, path: str) -> None:
    """An address' path has neither query nor closing slash; what is no address has none."""
    assert path_of(url) == path


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://h/api/v3/depth?limit=5&symbol=btcusdt", DEPTH),
        ("/api/v3/exchangeInfo", ("/api/v3/exchangeInfo", "")),
        ("http://[", ("", "")),
    ],
)
def test_requests_are_found_by_path_and_symbol(url: str, key: tuple[str, str]) -> None:
    """A request is known by its path and symbol alone."""
    assert request_key(url) == key
