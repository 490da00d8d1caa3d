"""A daemon that does not look whether the tables have their dedup keys: for showing what would happen without them."""

from __future__ import annotations

from collector.cli.main import main
from collector.storage import checks
from collector.streams import Stream


def _ignore_dedup() -> None:
    find = checks._fault

    def find_others(table: checks.TableFacts | None, stream: Stream) -> checks.Fault | None:
        fault = find(table, stream)
        return None if fault is not None and fault.kind == "dedup" else fault

    checks._fault = find_others


if __name__ == "__main__":
    _ignore_dedup()
    main()
