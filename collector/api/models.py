"""What the API answers and takes, as its OpenAPI document shows it. Times are microseconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_ID = "20261121-081500-sim-7f3a"
_T = 1_795_248_900_000_000

State = Literal["starting", "active", "degraded", "stopping", "completed", "failed", "interrupted"]


class SessionSummary(BaseModel):
    """A row of the list of sessions."""

    session_id: str = Field(examples=[_ID])
    exchange: str = Field(examples=["sim"])
    state: State = Field(examples=["active"])
    reason: str = ""
    label: str = ""
    kind: Literal["live", "replay", "history"] = "live"
    symbols: list[str] = Field(examples=[["BTC_USDT"]])
    data_types: list[str] = Field(examples=[["prices", "orderbook"]])
    created_us: int = Field(examples=[_T])
    started_us: int | None = None
    ended_us: int | None = None
    heartbeat_us: int | None = None
    rows: dict[str, int] = Field(examples=[{"prices": 14515, "orderbook": 3000, "ohlcv": 12, "gaps": 0}])
    gaps: int = 0
    gaps_open: int = 0
    live: bool = Field(description="whether a daemon runs it now")


class SessionPage(BaseModel):
    """Some sessions, newest first, and where the next page begins."""

    sessions: list[SessionSummary]
    total: int = Field(description="how many there are in all pages")
    next: str | None = Field(None, description="pass it as `cursor` for the next page; none: this is the last")


class SessionDetail(BaseModel):
    """All that is known of a session."""

    summary: SessionSummary
    manifest: dict[str, Any]
    status: dict[str, Any] | None = Field(None, description="what the daemon says of it, where it runs it")


class GapRow(BaseModel):
    """A known hole: bounds are inclusive, null where nobody knows them."""

    gap_id: str = Field(examples=["g000001"])
    detected_us: int
    symbol: str
    stream: str
    cause: str = Field(examples=["disconnect"])
    state: Literal["open", "repaired", "partial", "unrecoverable"]
    from_us: int | None
    to_us: int | None
    from_id: int | None
    to_id: int | None
    expected_rows: int | None
    repaired_rows: int
    repaired_from: str
    detail: str
    revision: int


class GapPage(BaseModel):
    """Some gaps in the order of their detection."""

    gaps: list[GapRow]
    total: int
    next: str | None = None


class SymbolQuality(BaseModel):
    """A symbol's coverage over the session."""

    symbol: str
    coverage: float = Field(description="share of the session's time that is in no gap, 0 to 1", examples=[0.9993])
    missing_s: float
    missing_rows: int = Field(description="exact where the exchange numbers its rows, else a minimum")
    gaps: int
    gaps_open: int
    causes: dict[str, int]


class HourQuality(BaseModel):
    """One hour (UTC) of a symbol."""

    symbol: str
    hour_us: int
    coverage: float


class Quality(BaseModel):
    """How whole a session is, by its ledger."""

    session_id: str
    from_us: int
    to_us: int
    symbols: list[SymbolQuality]
    hours: list[HourQuality]
    dropped: int
    errors: int
    candles: dict[str, Any] = Field(description="how the candles compare with the exchange's own, where it has any")


class StartOrder(BaseModel):
    """What session to start."""

    model_config = ConfigDict(extra="forbid")

    exchange: str = Field(max_length=64, examples=["sim"])
    symbols: list[str] = Field(min_length=1, max_length=1000, examples=[["BTC_USDT", "ETH_USDT"]])
    data_types: list[str] = Field([], max_length=32, examples=[["prices", "orderbook"]])
    duration_s: float | None = Field(None, gt=0, le=315_360_000, examples=[3600])
    label: str = Field("", max_length=200)
    session_id: str = Field("", max_length=64, pattern="^[A-Za-z0-9_-]*$")
    raw_trades: bool = False
    record_raw: bool | None = None


class Exchanges(BaseModel):
    """What can be collected from."""

    exchanges: list[dict[str, Any]] = Field(
        examples=[[{"name": "sim", "streams": ["prices", "orderbook", "klines"], "verified": True}]]
    )


class SymbolList(BaseModel):
    """The symbols that sessions in this data directory have."""

    symbols: list[dict[str, Any]] = Field(examples=[[{"symbol": "BTC_USDT", "exchange": "sim", "sessions": 3}]])


class BacktestPage(BaseModel):
    """Some backtests, newest first: what went in, its hash, and the statistics."""

    backtests: list[dict[str, Any]] = Field(
        examples=[[{"backtest_id": "breakout-1f3a77b0c2d4", "session_id": _ID, "statistics": {"return_pct": 1.5}}]]
    )
    total: int
    next: str | None = None


class HistoryRows(BaseModel):
    """Rows of one of the tables of history; times end in ``_us``."""

    rows: list[dict[str, Any]] = Field(
        examples=[[{"symbol": "BTC_USDT", "timeframe": "1h", "earliest_us": _T, "latest_us": _T, "total_records": 1}]]
    )


class HistoryCandles(BaseModel):
    """Past candles by time; each row has a value for each of the columns."""

    symbol: str = Field(examples=["BTC_USDT"])
    interval: str = Field(examples=["1h"])
    columns: list[str] = Field(examples=[["timestamp", "open", "high", "low", "close", "volume"]])
    rows: list[list[Any]] = Field(examples=[[[_T, 60000.0, 60100.0, 59900.0, 60050.0, 12.5]]])
    next: str | None = None


class Health(BaseModel):
    """Whether the daemon does what it was asked to do."""

    live: bool = Field(description="whether the daemon answers")
    ready: bool
    reasons: list[str]
    version: str = ""
    uptime_s: float = 0.0
    questdb: str = ""
    lag_rows: int = 0
    sessions: dict[str, str] = {}
