"""The end of a stream's files, and what is added to it."""

from __future__ import annotations

import gzip
from pathlib import Path

from collector.reading.tail import Follower, last_rows
from collector.streams import PRICES


def line(seq: int) -> str:
    return f"{seq},1.5,2,3,buy,{seq},{seq},{seq},ws,,\n"


def write(path: Path, first: int, last: int, *, torn: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PRICES.header + "".join(map(line, range(first, last + 1))) + torn
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


def seqs(rows: list[dict[str, str]]) -> list[int]:
    return [int(row["seq"]) for row in rows]


def test_the_last_rows_come_from_as_many_segments_as_it_takes(tmp_path: Path) -> None:
    """Compressed ones too; a line that is still being written is no row."""
    folder = tmp_path / "BTC_USDT"
    write(folder / "prices.000000000001.csv.gz", 1, 50)
    write(folder / "prices.000000000051.csv", 51, 60)
    write(folder / "prices.csv", 61, 65, torn="66,1.5")
    assert seqs(last_rows(tmp_path, PRICES, "BTC_USDT", 3)) == [63, 64, 65]
    assert seqs(last_rows(tmp_path, PRICES, "BTC_USDT", 20)) == list(range(46, 66))
    assert seqs(last_rows(tmp_path, PRICES, "BTC_USDT", 1000)) == list(range(1, 66))
    assert last_rows(tmp_path, PRICES, "ETH_USDT", 3) == []


def test_the_last_rows_of_a_long_file_are_exact(tmp_path: Path) -> None:
    """Wherever its blocks happen to be cut."""
    write(tmp_path / "BTC_USDT" / "prices.csv", 1, 20_000)
    for count in (1, 10, 1_999, 2_000, 2_001, 20_000):
        assert seqs(last_rows(tmp_path, PRICES, "BTC_USDT", count)) == list(range(20_001 - count, 20_001))


def test_a_follower_tells_each_row_once(tmp_path: Path) -> None:
    """Over a torn line, two rotations between two looks, and a file that is not there yet."""
    live = tmp_path / "BTC_USDT" / "prices.csv"
    follower = Follower(tmp_path, PRICES, "BTC_USDT")
    assert follower.poll() == []
    write(live, 1, 3)
    assert seqs(follower.poll()) == [1, 2, 3]
    with live.open("a", encoding="utf-8") as file:
        file.write(line(4) + line(5)[:7])
    assert seqs(follower.poll()) == [4]
    with live.open("a", encoding="utf-8") as file:
        file.write(line(5)[7:])
    live.rename(live.with_name("prices.000000000001.csv"))
    write(live.with_name("prices.000000000006.csv"), 6, 8)
    write(live, 9, 9)
    assert seqs(follower.poll()) == [5, 6, 7, 8, 9]
    assert follower.poll() == []


def test_a_follower_begins_at_the_end(tmp_path: Path) -> None:
    """Somebody who comes later is told what comes then."""
    live = tmp_path / "BTC_USDT" / "prices.csv"
    write(live, 1, 3)
    follower = Follower(tmp_path, PRICES, "BTC_USDT")
    assert follower.poll() == []
    with live.open("a", encoding="utf-8") as file:
        file.write(line(4))
    assert seqs(follower.poll()) == [4]
