"""One websocket connection against a real server: what arrives is delivered, and each ending has its name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from collector.errors import ConfigError, ConnectionLost, ExchangeRefused
from collector.feeds.connection import Connection, Receiver, _Reader, open_connection

NOW_US = 1_700_000_000_000_000


class Inbox:
    """Keep what a connection delivers."""

    def __init__(self, fail_at: bytes | None = None) -> None:
        self.texts: list[bytes] = []
        self.binaries: list[bytes] = []
        self.end = asyncio.Event()
        self.fail_at = fail_at
        self.crowded_until: int | None = 0

    def is_crowded(self) -> bool:
        return self.crowded_until is None or len(self.texts) < self.crowded_until

    def text(self, payload: bytes) -> None:
        if payload == self.fail_at:
            raise ZeroDivisionError
        self.texts.append(payload)

    @property
    def receiver(self) -> Receiver:
        return Receiver(text=self.text, binary=self.binaries.append, ended=self.end.set, crowded=self.is_crowded)


async def opened(bench: Any, url: str, inbox: Inbox, **changes: Any) -> Connection:
    return await open_connection(url, inbox.receiver, settings=bench.settings(**changes), now_us=lambda: NOW_US)


def test_messages_come_in_order(bench: Any, run: Any) -> None:
    """Messages are delivered in the order they were sent, text and binary apart, fragments put together."""

    async def behave(connection: ServerConnection, _: int) -> None:
        for number in range(1000):
            await connection.send(str(number))
        await connection.send(b"\x00\x01")
        await connection.send(["in ", "three ", "parts"])
        await connection.send([b"\x02", b"", b"\x03"])

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(behave) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await inbox.end.wait()
            assert inbox.texts == [b"%d" % number for number in range(1000)] + [b"in three parts"]
            assert inbox.binaries == [b"\x00\x01", b"\x02\x03"]
            await connection.close()

    run(scenario())


async def _flood(connection: ServerConnection, _: int) -> None:
    with suppress(ConnectionClosed):
        for number in range(20_000):
            await connection.send(f"{number:1000d}")


def test_a_crowded_receiver_slows_the_sender_down(bench: Any, run: Any) -> None:
    """What does not come while the receiver is crowded comes afterwards; nothing is lost on the way."""

    async def scenario() -> None:
        inbox = Inbox()
        inbox.crowded_until = 200
        async with bench.serving(_flood) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await inbox.end.wait()
        assert list(map(int, inbox.texts)) == list(range(20_000))
        assert connection.slowed > 0

    run(scenario())


def test_a_crowded_connection_can_be_closed(bench: Any, run: Any) -> None:
    """Closing does not wait for room, and no message is skipped before the end."""

    async def scenario() -> None:
        inbox = Inbox()
        inbox.crowded_until = None
        async with bench.serving(_flood) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await bench.until(lambda: inbox.texts)
            await connection.close()
            assert inbox.end.is_set()
        assert list(map(int, inbox.texts)) == list(range(len(inbox.texts)))
        assert len(inbox.texts) < 20_000

    run(scenario())


@pytest.mark.parametrize("compression", [False, True])
def test_compression_is_used_only_when_asked_for(bench: Any, run: Any, compression: bool) -> None:
    """Deflate is negotiated where the configuration says so, and the messages are the same."""
    seen: list[str | None] = []

    async def behave(connection: ServerConnection, _: int) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
        await connection.send("a" * 1000)

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(behave) as server:
            await opened(bench, server.ws_url, inbox, compression=compression)
            await inbox.end.wait()
        assert inbox.texts == [b"a" * 1000]
        assert (seen[0] is not None) is compression

    run(scenario())


def test_server_closing_is_told_with_code_and_reason(bench: Any, run: Any) -> None:
    """A close by the server ends the connection with the server's code and reason."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await connection.close(1001, "going away now")

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(behave) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await inbox.end.wait()
            ending = connection.ending
            assert ending is not None
            assert (ending.code, ending.reason, ending.ours) == (1001, "going away now", False)
            assert "going away now" in ending.sentence

    run(scenario())


def test_closing_delivers_what_was_on_its_way(bench: Any, run: Any) -> None:
    """What the server sent before it answered our close is delivered, and the ending is ours."""

    async def behave(connection: ServerConnection, _: int) -> None:
        for number in range(100):
            await connection.send(str(number))
        await connection.wait_closed()

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(behave) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await bench.until(lambda: inbox.texts)
            await connection.close()
            await connection.close()
            assert connection.ending is not None
            assert connection.ending.ours
            assert inbox.end.is_set()
            assert inbox.texts == [b"%d" % number for number in range(len(inbox.texts))]
            with pytest.raises(ConnectionLost):
                await connection.send("late")

    run(scenario())


def test_broken_off(bench: Any, run: Any) -> None:
    """A connection that breaks without a word ends with code 1006."""

    async def behave(connection: ServerConnection, _: int) -> None:
        connection.transport.abort()

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(behave) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await inbox.end.wait()
            assert connection.ending is not None
            assert (connection.ending.code, connection.ending.ours) == (1006, False)

    run(scenario())


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_oversized_message_is_refused(bench: Any, run: Any, compression: str | None) -> None:
    """A message beyond the limit ends the connection with 1009, compressed or in fragments too."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await connection.send("fits")
        await connection.send(["a" * 600, "a" * 600])
        await connection.wait_closed()

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(behave, compression=compression) as server:
            connection = await opened(
                bench, server.ws_url, inbox, max_message_bytes=1000, compression=compression is not None
            )
            await inbox.end.wait()
            assert connection.ending is not None
            assert (connection.ending.code, connection.ending.ours) == (1009, True)
        assert inbox.texts == [b"fits"]

    run(scenario())


def test_dead_peer_is_noticed(bench: Any, run: Any) -> None:
    """A peer that answers no ping is given up within the ping's timeouts."""

    async def scenario() -> None:
        inbox = Inbox()
        async with bench.serving(_wait_for_end) as server:
            # Only the kernel answers from here on: the server's process reads nothing more.
            connection = await opened(
                bench, server.ws_url, inbox, ping_interval_s=0.05, ping_timeout_s=0.05, close_timeout_s=0.05
            )
            next(iter(server.server.connections)).transport.pause_reading()
            await inbox.end.wait()
            assert connection.ending is not None
            assert (connection.ending.code, connection.ending.ours) == (1011, True)
            assert "ping" in connection.ending.sentence

    run(scenario())


def test_a_bug_in_the_receiver_ends_only_the_connection(bench: Any, run: Any) -> None:
    """What the receiver raises is kept as the failure, and nothing is delivered after it."""

    async def behave(connection: ServerConnection, _: int) -> None:
        for text in ("good", "bad", "after"):
            await connection.send(text)
        await connection.wait_closed()

    async def scenario() -> None:
        inbox = Inbox(fail_at=b"bad")
        async with bench.serving(behave) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await inbox.end.wait()
            assert isinstance(connection.failure, ZeroDivisionError)
            assert inbox.texts == [b"good"]

    run(scenario())


def test_a_bug_is_noticed_in_fragments_too(bench: Any, run: Any) -> None:
    """A message in fragments that the receiver fails on ends the connection as well."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await connection.send(["b", "ad"])
        await connection.send(["af", "ter"])
        await connection.wait_closed()

    async def scenario() -> None:
        inbox = Inbox(fail_at=b"bad")
        async with bench.serving(behave) as server:
            connection = await opened(bench, server.ws_url, inbox)
            await inbox.end.wait()
            assert isinstance(connection.failure, ZeroDivisionError)
            assert inbox.texts == []

    run(scenario())


@pytest.mark.parametrize("status", [403, 418, 429, 503])
def test_refused_handshake(bench: Any, run: Any, status: int) -> None:
    """An HTTP status instead of a websocket is a refusal with the status and the Retry-After."""

    async def scenario() -> None:
        async with bench.serving(_wait_for_end) as server:
            server.refuse.append((status, {"Retry-After": "7"}, b"no"))
            with pytest.raises(ExchangeRefused) as caught:
                await opened(bench, server.ws_url, Inbox())
            assert (caught.value.status, caught.value.retry_after_s) == (status, 7)

    run(scenario())


def test_redirects_are_not_followed(bench: Any, run: Any) -> None:
    """An exchange cannot send the collector elsewhere."""

    async def scenario() -> None:
        async with bench.serving(_wait_for_end) as server:
            server.refuse.append((302, {"Location": server.ws_url + "/elsewhere"}, b""))
            with pytest.raises(ExchangeRefused) as caught:
                await opened(bench, server.ws_url, Inbox())
            assert caught.value.status == 302
            assert server.opened == 0

    run(scenario())


def test_proxies_of_the_environment_are_not_used(bench: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a configured proxy is used, whatever the environment says."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def scenario() -> None:
        async with bench.serving(_wait_for_end) as server:
            connection = await opened(bench, server.ws_url, Inbox())
            await connection.close()
            with pytest.raises(ConnectionLost):
                await opened(bench, server.ws_url, Inbox(), proxy="http://127.0.0.1:1")

    run(scenario())


def test_nobody_listens(bench: Any, run: Any) -> None:
    """A refused connection is one that can be tried again."""

    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionLost) as caught:
                await opened(bench, f"ws://127.0.0.1:{unused.getsockname()[1]}", Inbox())
        assert caught.value.retryable

    run(scenario())


def test_a_server_that_says_nothing(bench: Any, run: Any) -> None:
    """A server that accepts and never answers costs no more than the timeout."""

    async def scenario() -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            with pytest.raises(ConnectionLost, match="timed out"):
                await opened(bench, f"ws://127.0.0.1:{mute.getsockname()[1]}", Inbox(), open_timeout_s=0.05)

    run(scenario())


def test_a_server_of_another_kind(bench: Any, run: Any) -> None:
    """An answer that is no HTTP is a lost connection."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
            with pytest.raises(ConnectionLost):
                await opened(bench, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", Inbox())

    run(scenario())


@pytest.mark.parametrize("changes", [{}, {"proxy": "nonsense"}])
def test_wrong_addresses(bench: Any, run: Any, changes: dict[str, str]) -> None:
    """An address that is none is the configuration's fault."""

    async def scenario() -> None:
        url = "ws://127.0.0.1:1" if changes else "http://127.0.0.1"
        with pytest.raises(ConfigError):
            await opened(bench, url, Inbox(), **changes)

    run(scenario())


def test_a_certificate_that_nobody_signed(bench: Any, run: Any, self_signed: ssl.SSLContext) -> None:
    """TLS fails closed, and says that waiting will not help."""

    async def scenario() -> None:
        async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, ssl=self_signed) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionLost, match="certificate") as caught:
                await opened(bench, f"wss://127.0.0.1:{port}", Inbox())
            assert not caught.value.retryable

    run(scenario())


MAX_BYTES = 1000


def _frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(Opcode(opcode), payload, fin=fin).serialize(mask=mask)


FRAMES = st.one_of(
    st.builds(_frame, st.just(Opcode.TEXT), st.binary(max_size=8)),
    st.builds(lambda size: _frame(Opcode.TEXT, b"t" * size), st.sampled_from([0, 1, 125, 126, 127, 600, 999, 1000])),
    st.builds(_frame, st.sampled_from([Opcode.BINARY, Opcode.PING, Opcode.PONG]), st.binary(max_size=8)),
    st.builds(_frame, st.sampled_from([Opcode.TEXT, Opcode.CONT]), st.binary(max_size=8), fin=st.booleans()),
    st.sampled_from(
        [
            _frame(Opcode.CLOSE, b"\x03\xe8end"),
            _frame(Opcode.CLOSE, b""),
            _frame(Opcode.TEXT, b"x" * (MAX_BYTES + 1)),
            _frame(Opcode.TEXT, b"x" * 70_000),
            _frame(Opcode.TEXT, b"masked", mask=True),
            b"\xc1\x02zz",  # a reserved bit without an extension
            b"\x83\x00",  # an opcode that is none
            b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02ab",  # a short length in eight bytes
            b"\x81\x7e\x00\x02ab",  # and in two
            b"\x81",
        ]
    ),
)


def _drive(chunks: list[bytes], *, ours: bool) -> tuple[list[tuple[int, bytes, bool]], bytes, State, object]:
    """Return the frames that came out of a protocol in order, what it answered, and how it stands."""
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN, max_size=MAX_BYTES)
    frames: list[tuple[int, bytes, bool]] = []
    if ours:

        def take(payload: bytes) -> None:
            frames.append((Opcode.TEXT, payload, True))

        def fail(error: Exception) -> None:
            raise error

        protocol.reader = _Reader(protocol, take, fail, MAX_BYTES)
        protocol.parser = protocol.parse()
        next(protocol.parser)
    for chunk in chunks:
        protocol.receive_data(chunk)
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            frames.append((event.opcode, bytes(event.data), event.fin))
    protocol.receive_eof()
    return frames, b"".join(protocol.data_to_send()), protocol.state, (protocol.close_rcvd, protocol.close_sent is None)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(0, 400), max_size=12))
@example([b"\x81\x00", b"\x81\x01a"], [1, 2, 3, 4])
@example([_frame(Opcode.TEXT, b"t" * 126)] * 3, [1, 2, 3, 4, 5, 131, 132])
def test_bytes_mean_what_the_library_says(frames: list[bytes], cuts: list[int]) -> None:
    """Whatever comes, cut anywhere, gives the same frames, answers and ending as the library alone."""
    stream = b"".join(frames)
    places = [0, *sorted(cut for cut in set(cuts) if 0 < cut < len(stream)), len(stream)]
    chunks = [stream[begin:end] for begin, end in pairwise(places) if begin < end]
    expected, found = _drive(chunks, ours=False), _drive(chunks, ours=True)
    assert (found[0], found[2], found[3]) == (expected[0], expected[2], expected[3])
    assert _unmasked(found[1]) == _unmasked(expected[1])


def test_plain_text_does_not_reach_the_library() -> None:
    """A whole text message costs no frame of the library: what makes receiving cheap is still there."""
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN)
    texts: list[bytes] = []
    errors: list[Exception] = []
    protocol.reader = _Reader(protocol, texts.append, errors.append, MAX_BYTES)
    protocol.parser = protocol.parse()
    next(protocol.parser)
    stream = _frame(Opcode.TEXT, b"a" * 300) * 3
    protocol.receive_data(stream[:400])
    protocol.receive_data(stream[400:])
    assert texts == [b"a" * 300] * 3
    assert (protocol.events_received(), errors) == ([], [])


def _unmasked(stream: bytes) -> list[tuple[int, bytes]]:
    """Return what a client sent: masks are random."""
    sent = []
    while stream:
        length = stream[1] & 0x7F
        mask, payload = stream[2:6], stream[6 : 6 + length]
        sent.append((stream[0], bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))))
        stream = stream[6 + length :]
    return sent


async def _wait_for_end(connection: ServerConnection, _: int) -> None:
    await connection.wait_closed()
