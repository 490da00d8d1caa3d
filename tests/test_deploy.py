"""What is under deploy/ fits what the product is: names of metrics, tables, options and files."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from collector.cli.main import cli
from collector.metrics import METRICS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
MACROS = {
    "$__fromTime": "'2020-01-01T00:00:00.000000Z'", "$__toTime": "'2100-01-01T00:00:00.000000Z'",
    "$__sampleByInterval": "1m", "${symbol}": "'BTC_USDT', 'ETH_USDT'",
}  # fmt: skip


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """With their labels; each says how bad it is, and what happened."""
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    rules = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 10
    for rule in rules:
        asked = re.findall(r"\bcollector_\w+", rule["expr"])
        assert set(asked) <= set(labels), rule["alert"]
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= set().union(*(labels[name] for name in asked)), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def queries() -> list[tuple[str, str]]:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    found = [(panel["title"], target["rawSql"]) for panel in board["panels"] for target in panel["targets"]]
    return [
        *found,
        *((one["name"], one["query"]["rawSql"]) for one in board["templating"]["list"] if one["type"] == "query"),
    ]


@pytest.mark.parametrize(("title", "sql"), queries(), ids=[title for title, _ in queries()])
def test_every_panels_query_runs(questdb: Any, title: str, sql: str) -> None:
    """On the real server, with what Grafana would put in place of its macros."""
    for macro, value in MACROS.items():
        sql = sql.replace(macro, value)
    assert "$" not in sql, title
    with questdb.connect() as connection:
        assert isinstance(connection.rows(sql), list)


def test_the_unit_starts_what_there_is() -> None:
    """Its command and options exist, and it is told of readiness as the daemon tells it."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "collector.service").read_text(encoding="utf-8"))
    service = unit["Service"]
    assert service["Type"] == "notify"
    program, command, *arguments = service["ExecStart"].split()
    assert program.endswith("/bin/collector")
    known = cli.get_command(None, command)  # type: ignore[arg-type]
    assert known is not None
    options = {option for parameter in known.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        command = [verify, "verify", str(DEPLOY / "collector.service")]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
        assert [line for line in said if "collector.service" in line and ("Unknown" in line or "Failed" in line)] == []


def test_the_container_copies_what_there_is() -> None:
    """And runs a command that there is."""
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    command = json.loads(re.search(r"^CMD (\[\"up\".*\])$", text, re.MULTILINE)[1])  # type: ignore[index]
    assert cli.get_command(None, command[0]) is not None  # type: ignore[arg-type]
