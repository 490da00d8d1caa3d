"""Rows over HTTP: the same in every format, in pages or whole, and from where they come."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv as pa_csv

from collector.session.manifest import FileRecord
from collector.streams import OHLCV, PRICES

from .conftest import Application, store_session

SESSIONS = "/api/data-collection/sessions"
T = 1_700_000_000_000_000
TRADES = 2_503


def trade(n: int) -> str:
    # Three trades share each microsecond, so that only their numbers tell them apart.
    return f"{T + n // 3},{100 + n}.50,0.1,10.05,{'buy' if n % 2 else 'sell'},{n},{n},{T + n},ws,,\n"


def candle(minute: int, *, revision: int, seq: int, close: str) -> str:
    at = T - T % 60_000_000 + minute * 60_000_000
    return f"{at},1m,1,3,0.5,{close},7,7,4,3,1,4,true,full,trades,{revision},{seq}\n"


@pytest.fixture
def session(application: Application) -> Path:
    records = [FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", rows=TRADES, next_seq=TRADES + 1)]
    directory = store_session(application.data_dir, "s1", files=records, symbols=["BTC_USDT", "ETH_USDT"])
    folder = directory / "BTC_USDT"
    folder.mkdir()
    (folder / "prices.csv").write_text(PRICES.header + "".join(map(trade, range(1, TRADES + 1))), encoding="utf-8")
    lines = [candle(0, revision=0, seq=1, close="2"), candle(1, revision=0, seq=2, close="2.5"),
             candle(0, revision=1, seq=3, close="2.25")]  # fmt: skip
    (folder / "ohlcv.csv").write_text(OHLCV.header + "".join(lines), encoding="utf-8")
    return directory


def numbers(table: pa.Table) -> list[int]:
    return [int(number) for number in table.column("seq").to_pylist()]


@pytest.mark.usefixtures("session")
def test_pages_give_each_row_once(application: Application) -> None:
    """Also where a page ends between rows of one microsecond."""

    async def pages(client: httpx.AsyncClient) -> list[list[Any]]:
        rows: list[list[Any]] = []
        query: dict[str, str] = {"symbol": "BTC_USDT", "limit": "500"}
        while True:
            answer = await client.get(f"{SESSIONS}/s1/data", params=query)
            page = answer.json()
            assert answer.headers["x-source"] == page["source"] == "csv"
            assert page["why"]
            rows += [dict(zip(page["columns"], row, strict=True)) for row in page["rows"]]
            if page["next"] is None:
                return rows
            query["cursor"] = page["next"]

    rows: Any = application.run(pages)
    assert [row["seq"] for row in rows] == list(range(1, TRADES + 1))
    assert rows[0] == {
        "symbol": "BTC_USDT", "timestamp": T, "price": 101.5, "volume": 0.1, "quote_volume": 10.05, "side": "buy",
        "trade_id": "1", "seq": 1, "received_at": T + 1, "source": "ws", "first_raw_id": None, "last_raw_id": None,
    }  # fmt: skip


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("chosen", ["format", "accept"])
def test_every_format_holds_the_same_rows(application: Application, chosen: str) -> None:
    """Read back by the libraries that people read them with."""
    media = {
        "csv": "text/csv",
        "arrow": "application/vnd.apache.arrow.stream",
        "parquet": "application/vnd.apache.parquet",
    }
    read = {
        "csv": lambda body: pa_csv.read_csv(io.BytesIO(body)),
        "arrow": lambda body: pa.ipc.open_stream(body).read_all(),
        "parquet": lambda body: pq.read_table(io.BytesIO(body)),
    }
    for form, reader in read.items():
        query = {"symbol": "BTC_USDT", "from": str(T + 100), "to": str(T + 200)}
        if chosen == "format":
            query["format"] = form
        headers = {"authorization": "Bearer t0ken-of-the-test", "accept": media[form]}
        answer = application.run(
            lambda client, q=query, h=headers: client.get(f"{SESSIONS}/s1/data", params=q, headers=h)
        )
        assert answer.headers["content-type"].startswith(media[form])
        table = reader(answer.content)
        assert numbers(table) == list(range(300, 600)), form
        assert table.column("price")[0].as_py() == 400.5


@pytest.mark.usefixtures("session")
def test_a_stream_ends_at_its_limit_and_may_be_of_all_symbols(application: Application) -> None:
    """A download of everything needs no symbol."""
    answer = application.get(f"{SESSIONS}/s1/data?format=arrow&limit=7")
    assert numbers(pa.ipc.open_stream(answer.content).read_all()) == list(range(1, 8))
    assert answer.headers["content-disposition"] == 'attachment; filename="s1_prices.arrows"'


@pytest.mark.usefixtures("session")
def test_a_candle_is_given_in_its_last_revision(application: Application) -> None:
    """As the log has it, the last row of a key counts."""
    page = application.get(f"{SESSIONS}/s1/ohlcv?symbol=BTC_USDT&interval=1m").json()
    close = page["columns"].index("close")
    assert [row[close] for row in page["rows"]] == [2.25, 2.5]


@pytest.mark.usefixtures("session")
def test_another_interval_is_made_of_the_trades(application: Application) -> None:
    """In pages too, though such candles have no numbers."""
    url = f"{SESSIONS}/s1/ohlcv?symbol=BTC_USDT&interval=250ms&limit=1"
    page = application.get(url).json()
    assert page["next"] is None
    row = dict(zip(page["columns"], page["rows"][0], strict=True))
    assert (row["open"], row["close"], row["trades_count"]) == (101.5, 100 + TRADES + 0.5, TRADES)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "has several"),
        ("?symbol=NO_SUCH", "NO_SUCH"),
        ("?symbol=BTC_USDT&stream=nothing", "nothing"),
        ("?symbol=BTC_USDT&limit=10001", "at most 10000"),
        ("?symbol=BTC_USDT&limit=0", "limit"),
        ("?symbol=BTC_USDT&from=-1", "from"),
        ("?symbol=BTC_USDT&cursor=xx", "cursor"),
        ("?symbol=BTC_USDT&format=xls", "format"),
        ("?symbol=BTC_USDT&format=csv&cursor=WzEsMl0", "pages of JSON"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(application: Application, query: str, sentence: str) -> None:
    """And what to do about it."""
    answer = application.get(f"{SESSIONS}/s1/data{query}")
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"] + answer.json()["hint"]
