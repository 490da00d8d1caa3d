"""What may be written as a duration, a symbol, a speed; and whose data directory is meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.cli.options import (
    check_label,
    check_url,
    data_dir_of,
    parse_data_types,
    parse_duration,
    parse_speed,
    parse_symbol,
    parse_symbols,
    parse_symbols_or_rules,
)
from collector.errors import CollectorError, ConfigError, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800), ("1h30m", 5400), (" 0.5H ", 1800), ("1d1s", 86401)],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    """Units can be joined, and may be capital."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "0s", "-5m", "1 hour", "h", "1w", "1h 30m", "99999d", "٣s x", "1e3s"])
def test_anything_else_is_no_duration(text: str) -> None:
    """A number without a unit could mean anything."""
    with pytest.raises(UsageError, match="no duration"):
        parse_duration(text)


@given(st.dictionaries(st.sampled_from("dhms"), st.integers(1, 1000), min_size=1))
def test_the_parts_of_a_duration_add_up(parts: dict[str, int]) -> None:
    """In whatever order they are written."""
    seconds = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    text = "".join(f"{number}{unit}" for unit, number in parts.items())
    assert parse_duration(text) == sum(number * seconds[unit] for unit, number in parts.items())


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BTC_USDT", "BTC_USDT"),
        ("btc_usdt", "BTC_USDT"),
        ("BTC-USDT", "BTC_USDT"),
        ("btc/usdt", "BTC_USDT"),
        (" 1000pepe_usdt ", "1000PEPE_USDT"),
        ("BTC_USDT_260327", "BTC_USDT_260327"),
        ("BTC_USDT-260327", "BTC_USDT-260327"),
        ("btc-usdt-swap", "BTC_USDT-SWAP"),
        ("币安人生_USDT", "币安人生_USDT"),
    ],
)
def test_a_symbol_is_base_and_quote(text: str, symbol: str) -> None:
    """Whatever its case and its separator."""
    assert parse_symbol(text) == symbol


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("BTCUSDT", "BTC_USDT"),
        ("ethbtc", "ETH_BTC"),
        ("", "BTC_USDT"),
        ("_", "_"),
        ("A_", "_"),
        ("../x", "_"),
        ("A_B_C_D", "_"),
    ],
)
def test_nonsense_is_no_symbol(text: str, hint: str) -> None:
    """A likely meaning is offered where there is one."""
    with pytest.raises(UsageError) as caught:
        parse_symbol(text)
    assert hint in caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_a_symbol_that_parses_to_itself_or_an_error(text: str) -> None:
    """Normalising twice changes nothing, and a symbol can name a folder."""
    try:
        symbol = parse_symbol(text)
    except CollectorError:
        return
    assert parse_symbol(symbol) == symbol
    assert "/" not in symbol
    assert "." not in symbol


def test_rules_are_known_among_symbols() -> None:
    """A rule stands beside symbols, in any case; a misspelt one is refused, and so is one where only symbols go."""
    assert parse_symbols_or_rules("TOP:5, btc-usdt,all:EUR") == ("top:5", "BTC_USDT", "all:eur")
    for read, text in ((parse_symbols_or_rules, "top:x"), (parse_symbols, "top:5")):
        with pytest.raises(UsageError):
            read(text)


def test_symbols_come_once_in_their_order() -> None:
    """A symbol given twice is collected once."""
    assert parse_symbols("eth_usdt, BTC-USDT,ETH_USDT,") == ("ETH_USDT", "BTC_USDT")
    with pytest.raises(UsageError):
        parse_symbols(" , ")


def test_data_types_are_known_names() -> None:
    """A misspelt one is answered with the nearest."""
    assert parse_data_types("Prices,orderbook,prices") == ("prices", "orderbook")
    assert parse_data_types("open_interest,funding") == ("open_interest", "funding")
    assert parse_data_types("prices,ALL") == ("all",)
    with pytest.raises(UsageError, match="prices"):
        parse_data_types("price")
    with pytest.raises(UsageError):
        parse_data_types(",")


@pytest.mark.parametrize("text", ["real", "MAX", "10x", "0.5x"])
def test_a_speed_is_real_max_or_a_factor(text: str) -> None:
    """As a replay takes it."""
    assert parse_speed(text) == text.lower()


@pytest.mark.parametrize("text", ["", "fast", "10", "x", "0x", "-1x", "nanx", "infx"])
def test_anything_else_is_no_speed(text: str) -> None:
    """The complaint says what can be written."""
    with pytest.raises(UsageError, match="no speed"):
        parse_speed(text)


def test_a_label_is_one_line() -> None:
    """It stands in tables and in CSV."""
    assert check_label("my ü test") == "my ü test"
    for label in ("two\nlines", "x" * 201, "\x1b[31m"):
        with pytest.raises(UsageError):
            check_label(label)


@pytest.mark.parametrize("url", ["x", "http://h", "ws://", "ftp://h"])
def test_an_address_has_its_scheme(url: str) -> None:
    """A websocket address begins with ws or wss."""
    with pytest.raises(UsageError):
        check_url(url, ("ws", "wss"))
    assert check_url("ws://127.0.0.1:1/x", ("ws", "wss"))
    assert check_url("", ("ws", "wss")) == ""


def test_the_data_directory_is_the_options_the_files_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order, without loading the whole configuration."""
    monkeypatch.chdir(tmp_path)
    assert data_dir_of(None, None) == Path("data")
    (tmp_path / "config.toml").write_text('[daemon]\ndata_dir = "a"', encoding="utf-8")
    (tmp_path / "other.toml").write_text('[daemon]\ndata_dir = "b"', encoding="utf-8")
    (tmp_path / "bare.toml").write_text("", encoding="utf-8")
    assert data_dir_of(None, None) == Path("a")
    assert data_dir_of(Path("other.toml"), None) == Path("b")
    assert data_dir_of(Path("bare.toml"), None) == Path("data")
    assert data_dir_of(Path("other.toml"), Path("c")) == Path("c")


@pytest.mark.parametrize("content", [b"nonsense", b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    """Better than looking in the wrong place."""
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        data_dir_of(path, None)
