"""What the README shows of reading works as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_examples_of_reading_run(
    make_session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a working directory whose data directory has a session, without any server."""
    session = make_session(["BTC_USDT"])
    session.write_market("BTC_USDT")
    monkeypatch.chdir(session.directory.parent.parent)
    Path("config.toml").write_text('[questdb]\nmode = "off"\n')
    section = README.read_text(encoding="utf-8").partition("### Reading it back")[2].partition("\n### ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"SESSION": session.session_id}
    exec(code[1], names)  # noqa: S102  it is our own documentation
    assert capsys.readouterr().out.splitlines() == [f"{session.session_id} completed csv", "360"]
    assert (len(names["trades"]), names["books"].height, names["recorded"].num_rows) == (360, 200, 12)
    assert (names["made"].num_rows, names["missing"].num_rows) == (2, 0)
    assert names["digits"]["price"][0].as_py() == session.lines(_prices(), "BTC_USDT")[0].split(",")[1]


def _prices() -> Any:
    from collector.streams import PRICES

    return PRICES
