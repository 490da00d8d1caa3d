"""Options and arguments that several commands share: what may be written, and what the shell can complete."""

# ruff: noqa: ARG002  (the signatures are click's)

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from collector.errors import ConfigError, UnknownName, UsageError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_DURATION_MAX_S = 3650 * 86400
_FACTOR = re.compile(r"\d+(\.\d+)?")
_SYMBOL = re.compile(r"[^\W_]+_[^\W_]+(_[^\W_]+)?(-[^\W_]+){0,4}")
_QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "USD", "EUR", "BTC", "ETH", "BNB", "TRY")
_LABEL_MAX = 200

Command = TypeVar("Command", bound=Callable[..., Any])


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``15m``, ``1h``, ``2d`` or ``1h30m``; raise UsageError for anything else."""
    compact = text.strip().lower()
    seconds = 0.0
    if _DURATION.fullmatch(compact):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(compact))
    if not 0 < seconds <= _DURATION_MAX_S:
        raise UsageError(f"{text!r} is no duration.", hint="Write it as 90s, 15m, 1h, 2d or 1h30m.")
    return seconds


def parse_symbol(text: str) -> str:
    """Return a symbol as ``BASE_QUOTE``, whatever its case and separator; raise UsageError where it is none.

    What tells a contract from others of the pair stays behind it: ``BTC_USDT-SWAP``.
    """
    symbol = re.sub(r"[-/_]", "_", text.strip(), count=1).upper()
    if _SYMBOL.fullmatch(symbol):
        return symbol
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote) and symbol != quote), "")
    meant = f"{symbol.removesuffix(quote)}_{quote}" if quote and symbol.isalnum() else "BTC_USDT"
    raise UsageError(f"{text.strip()!r} is no symbol.", hint=f"Write BASE_QUOTE: {meant}.")


def parse_symbols(text: str) -> tuple[str, ...]:
    """Return comma-separated symbols as ``BASE_QUOTE``, each once, in their order."""
    return _each_once(text, parse_symbol)


def parse_symbols_or_rules(text: str) -> tuple[str, ...]:
    """Return comma-separated symbols and rules that choose symbols (``top:50``), each once, in their order."""
    from collector.exchanges.selection import parse_selector

    return _each_once(text, lambda part: part.strip().lower() if parse_selector(part) else parse_symbol(part))


def _each_once(text: str, read: Callable[[str], str]) -> tuple[str, ...]:
    symbols = tuple(dict.fromkeys(read(part) for part in text.split(",") if part.strip()))
    if not symbols:
        raise UsageError("No symbol was given.", hint="Write them as BTC_USDT,ETH_USDT.")
    return symbols


def parse_data_types(text: str) -> tuple[str, ...]:
    """Return comma-separated data types, each once, or ``all`` alone; raise UnknownName with the nearest names."""
    from collector.streams import ALL_DATA_TYPES, DATA_TYPES

    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in (*DATA_TYPES, ALL_DATA_TYPES):
            raise UnknownName("data type", name, [*DATA_TYPES, ALL_DATA_TYPES])
    if not names:
        raise UsageError("No data type was given.", hint=f"Known: {', '.join(DATA_TYPES)}, or {ALL_DATA_TYPES}.")
    return (ALL_DATA_TYPES,) if ALL_DATA_TYPES in names else names


def check_exchange(name: str) -> str:
    """Return the name of an exchange that exists; raise UnknownName with the nearest names."""
    from collector.exchanges.ccxt import Ccxt, is_ccxt
    from collector.exchanges.registry import EXCHANGES

    if is_ccxt(name):
        return Ccxt(name).name
    if name not in EXCHANGES:
        raise UnknownName("exchange", name, list(EXCHANGES))
    return name


def check_label(text: str) -> str:
    """Return a label that fits into one line."""
    if len(text) > _LABEL_MAX or not text.isprintable():
        raise UsageError(f"A label is one line of at most {_LABEL_MAX} characters.")
    return text


def parse_speed(text: str) -> str:
    """Return a replay's speed: ``real``, ``max`` or a factor (``10x``, ``0.5x``); raise UsageError otherwise."""
    speed = text.strip().lower()
    factor = speed.removesuffix("x")
    if speed in ("real", "max") or (speed.endswith("x") and _FACTOR.fullmatch(factor) and float(factor) > 0):
        return speed
    raise UsageError(f"{text!r} is no speed.", hint="Write real, max, or a factor: 10x.")


def check_url(url: str, schemes: Sequence[str]) -> str:
    """Return an address of one of these schemes, or empty for none; raise UsageError otherwise."""
    from urllib.parse import urlsplit

    if not url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise UsageError(f"{url!r} is no address.", hint=f"It begins with {' or '.join(f'{s}://' for s in schemes)}.")
    return url


class _Checked(click.ParamType[Any]):
    """A parameter that a function of this module reads; its errors stay ours."""

    def __init__(self, name: str, read: Callable[[str], Any], known: Callable[[], Sequence[str]] = tuple) -> None:
        self.name = name
        self._read = read
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._read(value) if isinstance(value, str) else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the last of comma-separated names."""
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + name) for name in self._known() if name.startswith(last)]


def _exchange_names() -> Sequence[str]:
    from collector.exchanges.registry import EXCHANGES

    return EXCHANGES


def _data_type_names() -> Sequence[str]:
    from collector.streams import ALL_DATA_TYPES, DATA_TYPES

    return (*DATA_TYPES, ALL_DATA_TYPES)


EXCHANGE = _Checked("exchange", check_exchange, _exchange_names)
SYMBOLS = _Checked("symbols", parse_symbols, lambda: ("BTC_USDT", "ETH_USDT"))
SYMBOLS_OR_RULES = _Checked("symbols", parse_symbols_or_rules, lambda: ("BTC_USDT", "ETH_USDT", "top:50", "all:USDT"))
DATA_TYPES = _Checked("data_types", parse_data_types, _data_type_names)
DURATION = _Checked("duration", parse_duration)
LABEL = _Checked("text", check_label)
SPEED = _Checked("speed", parse_speed, lambda: ("real", "max", "10x"))
WS_URL = _Checked("url", lambda url: check_url(url, ("ws", "wss")))
REST_URL = _Checked("url", lambda url: check_url(url, ("http", "https")))


class _SessionName(click.ParamType[Any]):
    """A session's id; the shell completes the ids in the data directory."""

    name = "session"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        folder = data_dir_of(ctx.params.get("config_path"), ctx.params.get("data_dir"))
        names = sorted((path.name.removeprefix("session_") for path in folder.glob("session_*")), reverse=True)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


SESSION = _SessionName()


def config_option(command: Command) -> Command:
    """Add ``--config``."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="COLLECTOR_CONFIG",
        help="Configuration file.  [default: config.toml, where there is one]",
    )(command)


def data_dir_option(command: Command) -> Command:
    """Add ``--data-dir``."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="COLLECTOR_DATA_DIR",
        help="Data directory.  [default: daemon.data_dir of the configuration]",
    )(command)


def place_options(command: Command) -> Command:
    """Add ``--config`` and ``--data-dir``, which say whose daemon and whose sessions are meant."""
    return config_option(data_dir_option(command))


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(command)


def data_dir_of(config_path: Path | None, data_dir: Path | None) -> Path:
    """Return the data directory, from the option or the file alone: the whole configuration takes too long to load.

    Raises:
        ConfigError: the file cannot be read.
    """
    if data_dir is not None:
        return data_dir
    import tomllib

    path = config_path or Path("config.toml")
    if config_path is None and not path.exists():
        return Path("data")
    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("daemon", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    found = section.get("data_dir", "data") if isinstance(section, dict) else "data"
    return Path(str(found))
