"""A websocket with a session's rows as they become part of its log: ticks, candles, gaps."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, WebSocket
from starlette.websockets import WebSocketDisconnect

from collector.api.context import Context
from collector.errors import CollectorError, UnknownName
from collector.reading.tail import Fields, Follower
from collector.streams import GAPS, STREAMS, Stream

router = APIRouter()

_POLL_S = 0.25
_HEARTBEAT_S = 10.0
_FOLLOWERS_MAX = 200
_ROWS_PER_MESSAGE = 1_000
_CLOSE_REFUSED = 1008
_encoder = msgspec.json.Encoder()


@router.websocket("/api/data-collection/live")
async def live(
    websocket: WebSocket,
    session: Annotated[str, Query(max_length=64)],
    symbols: Annotated[str, Query(max_length=8000)] = "",
    streams: Annotated[str, Query(max_length=200)] = "prices,ohlcv",
) -> None:
    """Send ``{"following"}``, then ``{"stream", "symbol", "rows"}`` as rows are written; ``{"heartbeat"}`` in between.

    A client that reads too slowly is not waited for by anyone: its rows come later, in larger messages.
    """
    context: Context = websocket.app.state.context
    await websocket.accept()
    try:
        followers = await asyncio.to_thread(_followers, context, session, symbols, streams)
    except CollectorError as error:
        await websocket.send_text(_encoder.encode({"error": error.message, "hint": error.hint}).decode())
        await websocket.close(_CLOSE_REFUSED, error.message[:120])
        return
    following = [[stream.name, symbol] for stream, symbol, _ in followers]
    await websocket.send_text(_encoder.encode({"following": following}).decode())
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(_send(websocket, followers))
        try:
            while True:
                await websocket.receive()
        except (WebSocketDisconnect, RuntimeError):
            pass  # they have gone
        finally:
            sending.cancel()


def _followers(context: Context, session: str, symbols: str, streams: str) -> list[tuple[Stream, str | None, Follower]]:
    stored = context.index.find(session)
    chosen = []
    for name in streams.split(","):
        if name not in STREAMS:
            raise UnknownName("stream", name, list(STREAMS))
        chosen.append(STREAMS[name])
    wanted = symbols.split(",") if symbols else stored.manifest.symbols
    for symbol in wanted:
        if symbol not in stored.manifest.symbols:
            raise UnknownName(f"symbol in session {session}", symbol, stored.manifest.symbols)
    pairs = [(stream, symbol) for stream in chosen if stream is not GAPS for symbol in wanted]
    followed: list[tuple[Stream, str | None]] = [*pairs, *([(GAPS, None)] if GAPS in chosen else [])]
    if len(followed) > _FOLLOWERS_MAX:
        raise CollectorError(f"At most {_FOLLOWERS_MAX} files can be followed at once.", hint="Name fewer symbols.")
    return [(stream, symbol, Follower(stored.directory, stream, symbol)) for stream, symbol in followed]


async def _send(websocket: WebSocket, followers: list[tuple[Stream, str | None, Follower]]) -> None:
    loop = asyncio.get_running_loop()
    sent_s = loop.time()
    while True:
        try:
            for message in await asyncio.to_thread(_poll, followers):
                await websocket.send_text(_encoder.encode(message).decode())
                sent_s = loop.time()
            if loop.time() - sent_s >= _HEARTBEAT_S:
                await websocket.send_text('{"heartbeat":true}')
                sent_s = loop.time()
        except (WebSocketDisconnect, RuntimeError):
            return  # they have gone
        await asyncio.sleep(_POLL_S)


def _poll(followers: list[tuple[Stream, str | None, Follower]]) -> list[dict[str, Any]]:
    messages = []
    for stream, symbol, follower in followers:
        rows: list[Fields] = follower.poll()
        for begin in range(0, len(rows), _ROWS_PER_MESSAGE):
            part = rows[begin : begin + _ROWS_PER_MESSAGE]
            messages.append({"stream": stream.name, "symbol": symbol, "rows": part})
    return messages
