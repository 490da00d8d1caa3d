"""What a person sees of a session's manifest."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from collector.cli.render import facts, make_table, state_text
from collector.session.manifest import Manifest
from collector.status import SessionStatus
from collector.wording import bytes_text, count_text, time_text


def manifest_view(manifest: Manifest, status: SessionStatus) -> RenderableType:
    """Return a session's whole story: what was asked, which states it had, which files it wrote, what it lacks."""
    pairs: list[tuple[str, RenderableType]] = [
        ("Session", manifest.session_id),
        ("Label", manifest.label or "-"),
        ("State", state_text(status.state).append(f": {status.reason}" if status.reason else "", style="default")),
        ("Exchange", manifest.exchange),
        *([("Unverified", "; ".join(manifest.unverified))] if manifest.unverified else []),
        ("Symbols", ", ".join(manifest.symbols)),
        ("Data types", ", ".join(manifest.data_types) + (" (raw trades)" if manifest.raw_trades else "")),
        ("Book levels", str(manifest.book_levels)),
        *[("Contract", f"{symbol}: {worth}") for symbol, worth in list(manifest.contracts.items())[:5]],
        ("Created", time_text(manifest.created_us)),
        ("Started", time_text(manifest.started_us)),
        ("Ended", time_text(manifest.ended_us)),
        ("Addresses", ", ".join(f"{kind} {url}" for kind, url in manifest.endpoints.items()) or "-"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items()) or "-"),
        ("Gaps", f"{count_text(status.gaps)}, {count_text(status.gaps_open)} open"),
        ("Dropped", f"{count_text(manifest.dropped)} rows"),
        ("Directory", status.directory),
    ]
    parts: list[RenderableType] = [facts(pairs), Text(), _history(manifest), Text(), _files(manifest)]
    parts += [Text(f"Lost: {line}", style="red") for line in manifest.lost]
    return Group(*parts)


def _history(manifest: Manifest) -> RenderableType:
    table = make_table("STATE", "SINCE", "WHY")
    for change in manifest.history:
        table.add_row(state_text(change.state), time_text(change.at_us), Text(change.reason or "-"))
    return table


def _files(manifest: Manifest) -> RenderableType:
    table = make_table("FILE", ">ROWS", ">SIZE", "FIRST ID", "LAST ID", "SHA-256")
    for file in manifest.files:
        digests = [digest[:12] for digest in file.hashes.values()]
        table.add_row(
            Text(file.path),
            count_text(file.rows),
            bytes_text(file.bytes),
            file.first_id or "-",
            file.last_id or "-",
            " ".join(digests) or "-",
        )
    return table
