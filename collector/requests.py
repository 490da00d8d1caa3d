"""What the command line asks of the daemon: the arguments of the control socket's commands, as structs.

``ping`` → the daemon's pid and version · ``start`` StartRequest → SessionStatus · ``stop`` StopRequest → SessionStatus
of those it stopped · ``sessions`` → SessionStatus of each that the daemon knows · ``status`` → DaemonStatus ·
``symbols`` SymbolsRequest, ``reconnect`` ReconnectRequest → SessionStatus ·
``show``, ``verify``, ``import`` SessionRequest · ``resync`` ResyncRequest ·
``backfill`` BackfillRequest → what became of each symbol ·
``import_candles`` CandleFileRequest → as ``backfill`` ·
``quality`` QualityRequest, ``coins`` CoinsRequest, ``schedule`` → what is known of past candles ·
``repair`` RepairRequest → what became of each gap · ``shutdown`` → nothing, once it has begun.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from collector.errors import UsageError


class StartRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Start a session. What is empty or None comes from the configuration.

    Args:
        exchange: the exchange's name.
        symbols: ``BASE_QUOTE`` each.
        data_types: what to collect, of ``streams.DATA_TYPES``, or ``all``.
        duration_s: after how long to stop it; None runs until it is stopped.
        label: a note of the person's own.
        session_id: the id to give it; empty makes one.
        ws_url: the websocket address in place of the exchange's own; ``rest_url`` likewise.
        raw_trades: collect single trades where the exchange also sends aggregated ones.
        book_levels: levels of each side in a row of the order book; None as ``orderbook.levels`` says.
        record_raw: write the raw messages beside the session.
        go_on: continue the existing session ``session_id`` where it was interrupted.
        reach_timeout_s: refuse (ConnectionLost, nothing written) when the exchange does not answer within this time;
            None waits as the feed's own limits say.
        whatever_offered: a data type that one of the symbols' markets does not have is left out there, and is no error.
        recording: the name of the recording that is replayed; empty for a live session.
    """

    exchange: str
    symbols: tuple[str, ...]
    data_types: tuple[str, ...] = ()
    duration_s: float | None = None
    label: str = ""
    session_id: str = ""
    ws_url: str = ""
    rest_url: str = ""
    raw_trades: bool = False
    book_levels: int | None = None
    record_raw: bool | None = None
    go_on: bool = False
    reach_timeout_s: float | None = None
    whatever_offered: bool = False
    recording: str = ""


class StopRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Stop some sessions, or ``every`` one that runs; the answer comes when their last rows are durable."""

    sessions: tuple[str, ...] = ()
    every: bool = False


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Concern one session: its id, or for ``import`` the absolute path of its directory."""

    session: str


class RepairRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Ask the exchange for what a session's ledger says is missing, of some symbols or (empty) of all.

    ``dry_run`` tells what would be asked for, and asks nothing.
    """

    session: str
    symbols: tuple[str, ...] = ()
    dry_run: bool = False


class BackfillRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Collect past candles; what is empty or None comes from the configuration.

    Args:
        task: what it is for: ``backfill``, ``hourly`` or ``fill_gaps``.
        interval: of the candles.
        from_us: the first bucket start, ``to_us`` the end (not included; None is now): microseconds since the epoch.
        symbols: ``BASE_QUOTE`` each; empty means the first ``max_coins`` by market cap.
        sources: by name, first to last.
    """

    from_us: int
    to_us: int | None = None
    task: str = "backfill"
    interval: str = "1h"
    symbols: tuple[str, ...] = ()
    max_coins: int | None = None
    sources: tuple[str, ...] = ()


class CandleFileRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bring in the candles of a file (an absolute path): ``history.importing.Options`` says what the fields mean."""

    path: str
    interval: str = "1h"
    mapping: dict[str, str] = {}
    symbol: str = ""
    source: str = "import"
    asset_type: str = "crypto"


class QualityRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Examine the past candles of some symbols (empty: all that are held); ``compare`` asks a second source, too."""

    symbols: tuple[str, ...] = ()
    interval: str = "1h"
    compare: bool = False


class CoinsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Return the master list of symbols; ``refresh`` asks for it anew whatever its age, and asks who trades them."""

    count: int | None = None
    refresh: bool = False


class SymbolsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Have a running session collect more symbols (or rules, as at its start), and some no more."""

    session: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class ReconnectRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Replace a running session's connections without a gap; to another address where ``ws_url`` names one."""

    session: str
    ws_url: str = ""


class ResyncRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Send a session's rows to QuestDB again, from a ``seq`` on."""

    session: str
    from_seq: int = 0


Asked = TypeVar("Asked", bound=msgspec.Struct)


def to_arguments(request: msgspec.Struct) -> dict[str, Any]:
    """Return a request as the arguments that go over the socket."""
    arguments: dict[str, Any] = msgspec.to_builtins(request)
    return arguments


def from_arguments(arguments: dict[str, Any], kind: type[Asked]) -> Asked:
    """Read a command's arguments; raise UsageError where they are not what the command takes."""
    try:
        return msgspec.convert(arguments, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"The arguments are wrong: {error}.") from error
