"""``session.json``: the truth about a session, of which the database's row is a replica.

It is replaced atomically, so a reader finds the old one or the new one; a ``session.json.tmp`` beside it was never
finished and means nothing. It holds no secret.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from collector.candles.compare import CandleScore
from collector.clock import ClockStep
from collector.errors import CollectorError, LogError, ManifestError
from collector.storage.csv_log import Released
from collector.storage.files import Files
from collector.streams import BOOK_LEVELS

if TYPE_CHECKING:
    from collector.config import Config  # pydantic costs a tenth of a second, and reading a manifest needs none of it

MANIFEST_FILE = "session.json"
FORMAT_VERSION = 1
_MAX_BYTES = 64 * 1024 * 1024
_SECRET_WORDS = ("password", "secret", "token", "api_key", "apikey", "private")

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From each older format version, the function that makes a manifest of it into one of the next version."""


class StateChange(msgspec.Struct, frozen=True):
    """That a session entered a state, when, and why (empty where it goes without saying)."""

    state: str
    at_us: int
    reason: str = ""


class FileRecord(msgspec.Struct):
    """One stream's file of one symbol. ``path`` is relative to the session's directory.

    ``next_seq`` is above every number that was ever used in it. ``hashes`` holds the SHA-256 of what each of its
    segments holds uncompressed, by the name of the uncompressed one, once the session has ended. ``released`` says
    which rows only QuestDB has any more.
    """

    stream: str
    symbol: str | None
    path: str
    rows: int = 0
    bytes: int = 0
    next_seq: int = 1
    first_id: str = ""
    last_id: str = ""
    hashes: dict[str, str] = {}
    released: Released | None = None

    def release(self, last_seq: int, rows: int, from_us: int, to_us: int) -> None:
        """Take note that the next rows are deleted: to be saved before that is done."""
        before = self.released or Released(from_us=from_us, to_us=to_us)
        self.released = Released(last_seq, before.rows + rows, min(before.from_us, from_us), max(before.to_us, to_us))
        self.hashes = {name: value for name, value in self.hashes.items() if not _holds_only(name, last_seq)}


Span = tuple[int, int]
"""Bucket starts from the first to before the second, in microseconds."""


class Backfill(msgspec.Struct):
    """What a session of the kind ``history`` is for, and how far it has come.

    Args:
        task: what asked for it: ``backfill``, ``hourly``, ``fill_gaps`` or ``import``.
        interval: of its candles.
        from_us, to_us: bucket starts from the first to before the second.
        sources: by name, first to last.
        done: the symbols that have been dealt with.
        failed: the symbols of which nothing could be had, with the reason.
        held: by symbol and source, the spans of the candles in its files: what need not be asked for again. It is
            complete once the session is; before that its files say it.
        empty: by symbol, the spans in which nothing was traded, as two exchanges say.
        requests: by source, how many were sent.
        file: of an import, how its file is to be read.
    """

    task: str
    interval: str
    from_us: int
    to_us: int
    sources: list[str] = []
    done: list[str] = []
    failed: dict[str, str] = {}
    held: dict[str, dict[str, list[Span]]] = {}
    empty: dict[str, list[Span]] = {}
    requests: dict[str, int] = {}
    file: dict[str, Any] = {}


class Manifest(msgspec.Struct):
    """Everything about a session that outlives it. Times are microseconds since the epoch, UTC.

    ``book_levels`` is how many levels of each side its ``orderbook.csv`` holds, for as long as it lives.
    ``unverified`` says what the session cannot promise, because its exchange has no dialect of ours (``ccxt:NAME``).
    ``candle_scores`` compare our candles with the exchange's own.
    ``kind`` is ``live``, ``replay`` or ``history``; ``backfill`` is what a history session is for.
    ``recording`` names what is replayed, and is empty for a live session. ``started_us`` is when it was first active;
    ``clock_steps`` are when our wall clock was set while it ran. ``lost`` describes rows that were given up, in words,
    because the ledger itself may have been unwritable then.
    ``contracts`` says, per symbol whose sizes are numbers of contracts, what one is worth (``100 USD``, ``0.01 BTC``).
    ``ids_ordered`` says whether numeric trade ids tell which of two trades at the same time came first.
    """

    session_id: str
    exchange: str
    symbols: list[str]
    data_types: list[str]
    created_us: int
    label: str = ""
    raw_trades: bool = False
    record_raw: bool = False
    book_levels: int = BOOK_LEVELS
    recording: str = ""
    kind: str = "live"
    backfill: Backfill | None = None
    contracts: dict[str, str] = {}
    unverified: list[str] = []
    duration_s: float | None = None
    state: str = "starting"
    reason: str = ""
    started_us: int | None = None
    ended_us: int | None = None
    heartbeat_us: int | None = None
    history: list[StateChange] = []
    endpoints: dict[str, str] = {}
    versions: dict[str, str] = {}
    config: dict[str, Any] = {}
    received: int = 0
    written: int = 0
    dropped: int = 0
    errors: int = 0
    gaps: int = 0
    open_gaps: int = 0
    removed_symbols: list[str] = []
    """Symbols that were collected once; their files stay."""
    lost: list[str] = []
    clock_steps: list[ClockStep] = []
    ids_ordered: bool = True
    candle_scores: list[CandleScore] = []
    files: list[FileRecord] = []
    format_version: int = FORMAT_VERSION

    def record(self, stream: str, symbol: str | None) -> FileRecord | None:
        """Return what is known of a file, None where nothing is."""
        return next((file for file in self.files if file.stream == stream and file.symbol == symbol), None)


def save_manifest(directory: Path, manifest: Manifest, files: Files) -> None:
    """Put a manifest in place of the one that stood, durably.

    Raises:
        LogError: it could not be written.
    """
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    try:
        files.replace(directory / MANIFEST_FILE, content)
    except OSError as error:
        raise LogError(f"{directory / MANIFEST_FILE} could not be written: {error.strerror or error}.") from error


def load_manifest(directory: Path) -> Manifest:
    """Read a session's manifest, upgraded to the present format.

    Raises:
        ManifestError: it is missing, damaged, or of a later format.
    """
    path = directory / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError as error:
        raise ManifestError(f"There is no manifest {path}.") from error
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}.") from error
    return decode_manifest(content, path)


def decode_manifest(content: bytes, path: Path) -> Manifest:
    """Read a manifest from its bytes; raises what ``load_manifest`` raises."""
    try:
        fields = msgspec.json.decode(content)
        if not isinstance(fields, dict):
            raise ManifestError(f"{path} is no manifest.")
        return msgspec.convert(_upgraded(fields, path), Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"{path} is damaged: {error}.", hint="Its CSV files can still be read and imported."
        ) from error


def _upgraded(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    version = fields.get("format_version", 0)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ManifestError(
            f"{path} has format {version}, this version of the collector reads up to {FORMAT_VERSION}.",
            hint="Use a newer collector.",
        )
    while version < FORMAT_VERSION:
        upgrade = UPGRADES.get(version)
        if upgrade is None:
            raise ManifestError(f"{path} has format {version}, which nothing can read.")
        fields = upgrade(fields)
        version += 1
        fields["format_version"] = version
    return fields


def find_sessions(data_dir: Path) -> tuple[list[Manifest], list[CollectorError]]:
    """Return the manifests of a data directory, oldest session first, and why others could not be read."""
    manifests: list[Manifest] = []
    errors: list[CollectorError] = []
    folders = sorted(data_dir.glob("session_*")) if data_dir.is_dir() else []
    for folder in folders:
        try:
            manifests.append(load_manifest(folder))
        except ManifestError as error:
            errors.append(error)
    return sorted(manifests, key=lambda manifest: manifest.created_us), errors


def _holds_only(name: str, last_seq: int) -> bool:
    """Say whether a closed segment of this name began at or before a ``seq`` that is its last, or later."""
    first_seq = name.removesuffix(".csv").rpartition(".")[2]
    return first_seq.isdigit() and int(first_seq) <= last_seq


def hash_file(path: Path) -> str:
    """Return what a segment holds uncompressed as a SHA-256 in hexadecimal; raise LogError where it cannot be read."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise LogError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def public_config(config: Config) -> dict[str, Any]:
    """Return a configuration without anything secret in it."""
    return _without_secrets(config.model_dump(mode="json"))


def public_url(url: str) -> str:
    """Return an address without the credentials or the query that may stand in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without_secrets(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        if any(word in key.lower() for word in _SECRET_WORDS):
            continue
        if isinstance(value, Mapping):
            kept[key] = _without_secrets(value)
        elif isinstance(value, str) and "://" in value:
            kept[key] = public_url(value)
        else:
            kept[key] = value
    return kept
