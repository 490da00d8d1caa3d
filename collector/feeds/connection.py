"""One websocket connection: the only place of the project (``sim/`` aside) that knows the websocket library.

Messages are delivered by calling a function from the protocol's own callback, not through ``recv()``: the library's
queue and the wake-up of a waiting coroutine cost 1.2 of the 4.2 µs that receiving a 210-byte frame takes
(``bench/receive.py``). So at any moment everything that was received has been delivered, and the receiver's pace is
what slows the sender down.

Two of the remaining 3.0 µs were the library's parser, frame by frame. It now sees only the frames that are more than a
whole, plain text message: those are taken out of its buffer between two frames (``_Reader``).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Generator, Mapping
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event, Protocol, State
from websockets.streams import StreamReader

from collector import config
from collector.errors import ConfigError, ConnectionLost, ExchangeRefused
from collector.feeds.backoff import parse_retry_after

_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_WHOLE_TEXT: Final = 0x81
"""A frame's first byte where it is a text message in one frame, without an extension."""
_TWO_BYTE_LENGTH: Final = 126
_CROWDED_BYTES_PER_S: Final = 2_000_000  # several times what a whole exchange sends, a fraction of what we can read
_CROWDED_BYTES: Final = 64 * 1024  # are read between two pauses, so that there are not too many
_log = logging.getLogger("collector.websocket")
# The library logs what it also raises; an operator should read it once, from the feed.
_log.setLevel(logging.CRITICAL)


def _never() -> bool:
    return False


class Receiver(msgspec.Struct, frozen=True):
    """Whom a connection calls: with each text message, each binary message, and once when it has ended.

    The functions must not wait. What they raise ends the connection, and ``Connection.failure`` is that error. While
    ``crowded`` says so, no more than 2 MB/s are read, and TCP slows the sender down.
    """

    text: Callable[[bytes], None]
    binary: Callable[[bytes], None]
    ended: Callable[[], None]
    crowded: Callable[[], bool] = _never


class Ending(msgspec.Struct, frozen=True):
    """How a connection ended: the close code and reason on the wire, and a sentence for a person.

    ``code`` is 1006 where the peer went without a word. ``ours`` says that this side began the closing.
    """

    code: int
    reason: str
    ours: bool
    sentence: str


class _Reader(StreamReader):
    """The library's buffer, which hands over plain text messages itself.

    Between two frames, and only there, the library's parser asks ``at_eof``. What stands in the buffer then begins with
    a frame's header, so the whole text messages that come next need no parser. Whatever else comes is left to the
    library: other opcodes, fragments, extensions, masks, lengths from 64 kB or beyond the limit, all that comes behind
    such a frame until that is delivered, and everything as soon as one side closes.
    """

    def __init__(
        self, protocol: Protocol, text: Callable[[bytes], None], failed: Callable[[Exception], None], max_size: int
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._text = text
        self._failed = failed
        self._max_size = max_size
        self._delivers = True

    def at_eof(self) -> Generator[None, None, bool]:
        protocol = self._protocol
        while True:
            waits = False
            if (
                protocol.state is State.OPEN
                and not protocol.events
                and protocol.current_size is None
                and self._delivers
            ):
                waits = self._take_texts()
            if self.eof:
                return not self.buffer
            if self.buffer and not waits:
                return False
            yield

    def _take_texts(self) -> bool:
        """Hand over the whole text messages at the buffer's start; return whether what follows is the start of one."""
        text = self._text
        data = bytes(self.buffer)
        end = len(data)
        at = 0
        try:
            while at < end and data[at] == _WHOLE_TEXT:
                start = at + 2
                length = data[at + 1] if start <= end else 0
                if length == _TWO_BYTE_LENGTH:
                    start = at + 4
                    length = data[at + 2] << 8 | data[at + 3] if start <= end else 0
                elif length > _TWO_BYTE_LENGTH:
                    return False
                if length > self._max_size:
                    return False
                stop = start + length
                if stop > end:
                    return True
                at = stop
                text(data[start:stop])
        except Exception as error:  # noqa: BLE001 - a bug in the receiver must end this connection, and not the process
            self._delivers = False
            self._failed(error)
        finally:
            del self.buffer[:at]
        return False


class _Socket(ClientConnection):
    """The library's connection, with messages handed over as they are parsed."""

    receiver: Receiver
    failure: Exception | None = None
    slowed = 0
    _read_bytes = 0
    _pause: asyncio.TimerHandle | None = None

    def take_over(self, receiver: Receiver, max_size: int) -> None:
        """Have messages handed to a receiver; before the handshake."""
        self.receiver = receiver
        protocol = self.protocol
        protocol.reader = _Reader(protocol, receiver.text, self._fail, max_size)
        # The parser holds on to the reader that it was started with.
        protocol.parser = protocol.parse()
        next(protocol.parser)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.receiver.crowded() and self._pause is None and self.protocol.state is State.OPEN:
            self._read_bytes += len(data)
            if self._read_bytes >= _CROWDED_BYTES and not self.transport.is_closing():
                self.transport.pause_reading()
                self.slowed += 1
                self._pause = self.loop.call_later(self._read_bytes / _CROWDED_BYTES_PER_S, self.read_on)

    def read_on(self) -> None:
        """End a pause."""
        self._read_bytes = 0
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def process_event(self, event: Event) -> None:
        if self.response is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        if self.failure is not None:
            return
        if event.opcode is _TEXT or event.opcode is _BINARY:
            self._opcode = event.opcode
            self._parts = bytearray(event.data)
        else:
            # The protocol bounds the sum of the fragments by max_size.
            self._parts += event.data
        if event.fin:
            whole, self._parts = bytes(self._parts), bytearray()
            try:
                (self.receiver.text if self._opcode is _TEXT else self.receiver.binary)(whole)
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pause is not None:
            self._pause.cancel()
        super().connection_lost(exc)
        if self.response is not None:
            self.receiver.ended()


class _Connect(connect):
    """The library's connector, without redirects: an exchange's address is what the configuration says."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Connection:
    """An open websocket connection. ``open_connection`` makes it."""

    def __init__(self, socket: _Socket, url: str) -> None:
        self._socket = socket
        self.url = url

    def __repr__(self) -> str:
        return f"<Connection {self.url} {self._socket.state.name}>"

    @property
    def failure(self) -> Exception | None:
        """What the receiver raised, where that is why the connection ended."""
        return self._socket.failure

    @property
    def slowed(self) -> int:
        """How often reading paused because the receiver was crowded."""
        return self._socket.slowed

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None while it is open."""
        return _ending(self._socket) if self._socket.connection_lost_waiter.done() else None

    async def send(self, frame: str) -> None:
        """Send one text message; raise ConnectionLost where the connection has ended."""
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise ConnectionLost(f"The connection to {self.url} ended while sending: {error}.") from error

    async def close(self) -> None:
        """Close in order: messages that arrive before the peer's answer are still delivered. Safe when it has ended."""
        self._socket.read_on()
        await self._socket.close()


async def open_connection(
    url: str,
    receiver: Receiver,
    *,
    settings: config.Feed,
    now_us: Callable[[], int],
    headers: Mapping[str, str] | None = None,
) -> Connection:
    """Open a websocket connection, with every timeout and limit of the configuration and no redirects.

    Args:
        receiver: is called from the first message on, which may be before this returns.
        now_us: the wall clock, to read a Retry-After that is a date.
        headers: what to say besides in the handshake.

    Raises:
        ExchangeRefused: the handshake was answered with an HTTP status; its ``retry_after_s`` is the exchange's.
        ConnectionLost: nothing, or something else than a websocket server, answered.
        ConfigError: the address or the proxy is none.
    """

    def create(*args: object, **kwargs: object) -> _Socket:
        socket = _Socket(*args, **kwargs)  # type: ignore[arg-type]
        socket.take_over(receiver, settings.max_message_bytes)
        return socket

    shown = url.partition("?")[0]  # what follows can hold a token
    try:
        socket = await _Connect(
            url,
            compression="deflate" if settings.compression else None,
            proxy=settings.proxy or None,
            open_timeout=settings.open_timeout_s,
            ping_interval=settings.ping_interval_s,
            ping_timeout=settings.ping_timeout_s,
            close_timeout=settings.close_timeout_s,
            max_size=settings.max_message_bytes,
            user_agent_header="collector",
            additional_headers=headers,
            logger=_log,
            create_connection=create,  # type: ignore[arg-type]
        )
    except ssl.SSLCertVerificationError as error:
        # Before ValueError, which it also is.
        lost = ConnectionLost(f"The certificate of {shown} is not valid: {error.verify_message}.")
        lost.retryable = False
        raise lost from error
    except (InvalidURI, InvalidProxy, ValueError) as error:
        raise ConfigError(f"The address {shown} (proxy {settings.proxy or 'none'}) is wrong: {error}.") from error
    except InvalidStatus as error:
        response = error.response
        raise ExchangeRefused(
            f"{shown} answered the websocket handshake with HTTP status {response.status_code}.",
            status=response.status_code,
            retry_after_s=parse_retry_after(response.headers.get("Retry-After"), now_us()),
        ) from error
    except (OSError, InvalidHandshake, WebSocketException, EOFError) as error:
        raise ConnectionLost(f"{shown} cannot be reached: {str(error) or type(error).__name__}.") from error
    return Connection(socket, shown)  # type: ignore[arg-type]


def _ending(socket: _Socket) -> Ending:
    sent, received = socket.protocol.close_sent, socket.protocol.close_rcvd
    if received is not None and (sent is None or socket.protocol.close_rcvd_then_sent):
        return Ending(received.code, received.reason, ours=False, sentence=f"closed by the server ({received})")
    if sent is not None and sent.code != 1000:
        return Ending(sent.code, sent.reason, ours=True, sentence=f"given up ({sent})")
    if sent is not None:
        return Ending(sent.code, sent.reason, ours=True, sentence="closed by us")
    cause = socket.connection_exc
    return Ending(1006, "", ours=False, sentence=f"broken off ({cause})" if cause else "broken off")
