"""Rows over a websocket as they are written, from a real process to a real client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
import websockets

from collector.api.server import ApiServer
from collector.api.token import ensure_token
from collector.streams import PRICES

from .conftest import store_session
from .test_server import BOUND_S, configured

LINE = "{0},1.5,2,3,buy,{0},{0},{0},ws,,\n"


async def receive(client: websockets.ClientConnection) -> Any:
    async with asyncio.timeout(BOUND_S):
        return json.loads(await client.recv())


def test_rows_come_as_they_are_written(tmp_path: Path, free_port: int) -> None:
    """Those that are added after the client came, with their columns' names; what is unknown is said."""
    directory = store_session(tmp_path, "s1", state="active")
    live = directory / "BTC_USDT" / "prices.csv"
    live.parent.mkdir()
    live.write_text(PRICES.header + LINE.format(1), encoding="utf-8")

    async def scenario() -> None:
        server = ApiServer(configured(tmp_path, free_port), log=structlog.get_logger())
        headers = {"Authorization": f"Bearer {ensure_token(tmp_path)}"}
        url = f"ws://127.0.0.1:{free_port}/api/data-collection/live"
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            await server.start(tasks)
            async with websockets.connect(
                f"{url}?session=s1&streams=prices,ohlcv", additional_headers=headers, proxy=None
            ) as client:
                assert await receive(client) == {"following": [["prices", "BTC_USDT"], ["ohlcv", "BTC_USDT"]]}
                with live.open("a", encoding="utf-8") as file:
                    file.write(LINE.format(2) + LINE.format(3))
                message = await receive(client)
                assert (message["stream"], message["symbol"]) == ("prices", "BTC_USDT")
                assert [(row["seq"], row["price"]) for row in message["rows"]] == [("2", "1.5"), ("3", "1.5")]
            for query, sentence in (("session=nope", "no session"), ("session=s1&symbols=ETH_USDT", "ETH_USDT"),
                                    ("session=s1&streams=x", "no stream")):  # fmt: skip
                async with websockets.connect(f"{url}?{query}", additional_headers=headers, proxy=None) as client:
                    assert sentence in (await receive(client))["error"]
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(f"{url}?session=s1", proxy=None)
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(
                    f"{url}?session=s1",
                    additional_headers=headers,
                    origin="http://evil.example",
                    proxy=None,  # type: ignore[arg-type]
                )
            await server.stop()

    asyncio.run(scenario())
