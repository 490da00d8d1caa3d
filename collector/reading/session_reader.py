"""Sessions read back: ``open_session`` and ``sessions``, from QuestDB or the CSV, with the same values either way."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from collector.candles.intervals import INTERVALS
from collector.config import Config, QuestDB, load_config
from collector.errors import (
    DatabaseUnavailable,
    LogError,
    SessionNotFound,
    UnknownName,
    UsageError,
)
from collector.reading.arrow import chosen_columns, schema_of
from collector.reading.csv_rows import symbols_in
from collector.reading.fetching import DATABASE_ERRORS, CandleTask, Task, Where
from collector.reading.holdings import Plan, lacking, plan_of_csv, source_of
from collector.reading.rows import Reader, Rows, Source, SourceName
from collector.reading.sessions import find_session, list_sessions
from collector.reading.table_arrow import Held, ResearchReader
from collector.reading.tick_candles import candle_schema
from collector.reading.times import Time, interval_us, to_us
from collector.session.manifest import Manifest
from collector.session.states import FINAL
from collector.storage.embedded import EmbeddedServer, resolve_settings
from collector.storage.sessions import SessionRow, SessionRows
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES, STREAMS, Stream, stream_of

Symbols = str | Sequence[str] | None
"""One symbol, several, or (None) all of the session."""

Preference = Literal["auto", "questdb", "csv"]
"""``auto`` takes QuestDB when it has the session whole, and the CSV when it hasn't."""


class Database:
    """How to ask QuestDB, or why it cannot be asked. Settings are looked up at each use: a server comes and goes."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def settings(self, *, read_only: bool = False) -> QuestDB:
        """Return where QuestDB answers; raise DatabaseUnavailable or InstallError where there is none.

        Args:
            read_only: as the user that may only read, where the server is ours.
        """
        if self._config.questdb.mode == "off":
            raise DatabaseUnavailable("questdb.mode is off.")
        if self._config.questdb.mode == "embedded":
            server = EmbeddedServer.from_config(self._config)
            if not server.running:
                raise DatabaseUnavailable(f"The embedded QuestDB in {server.root} does not run.")
        return resolve_settings(self._config, read_only=read_only)


class SessionReader:
    """One session, read back; made by ``open_session`` and ``sessions``. Nothing is read before it is asked for.

    Rows come symbol by symbol (in the order of their names), by exchange time, and by ``seq`` within one time.

    Attributes:
        manifest: what is known of the session (``collector.session.manifest.Manifest``; times in microseconds UTC).
        directory: where its files are; None where only QuestDB has it.
    """

    def __init__(
        self, manifest: Manifest, directory: Path | None, database: Database, preference: Preference = "auto"
    ) -> None:
        self.manifest = manifest
        self.directory = directory
        self._database = database
        self._preference = preference

    def __repr__(self) -> str:
        return f"SessionReader({self.session_id!r}, {self.manifest.state}, {self.directory or 'only in QuestDB'})"

    @property
    def session_id(self) -> str:
        return self.manifest.session_id

    @property
    def symbols(self) -> list[str]:
        """Return the session's symbols, in the order of their names."""
        return sorted(self.manifest.symbols)

    @property
    def source(self) -> SourceName:
        """Return where its rows come from, over all streams: ``questdb``, ``csv`` or ``both``."""
        return self._source().name

    @property
    def why(self) -> str:
        """Return why they come from there, in words."""
        return self._source().why

    def prices(
        self,
        symbol: Symbols = None,
        start: Time | None = None,
        end: Time | None = None,
        *,
        columns: Sequence[str] | None = None,
        exact: bool = False,
    ) -> Rows:
        """Return trades: ``price`` in quote currency, ``volume`` in base currency, ``side`` the taker's.

        Args:
            start: the first exchange time, included; None begins at the beginning.
            end: the exchange time before which it ends; None goes to the end.
            columns: which columns, by their names in the table; None gives all.
            exact: prices and sizes as text, in the exchange's own digits; only the CSV has them.

        Raises:
            UnknownName: the session has no such symbol, or the stream no such column.
            MissingExtra: pyarrow is not installed.
        """
        return self.stream(PRICES.name, symbol, start, end, columns=columns, exact=exact)

    def orderbook(
        self,
        symbol: Symbols = None,
        start: Time | None = None,
        end: Time | None = None,
        *,
        columns: Sequence[str] | None = None,
        exact: bool = False,
    ) -> Rows:
        """Return the best levels of each side after each 100 ms in which they changed; as many as the session keeps.

        For the rest as ``prices``.
        """
        return self.stream(ORDERBOOK.name, symbol, start, end, columns=columns, exact=exact)

    def ohlcv(
        self,
        symbol: Symbols = None,
        interval: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        *,
        columns: Sequence[str] | None = None,
        exact: bool = False,
    ) -> Rows:
        """Return the recorded candles, each in its last revision; ``timestamp`` is the start of the bucket.

        Args:
            interval: one of those that are recorded (1m, 5m, 15m, 1h, 4h, 1d); None gives all.

        Raises:
            UnknownName: it is not recorded (``candles`` makes any), or as ``prices``.
        """
        if interval is not None and interval not in INTERVALS:
            raise UnknownName(
                "recorded interval",
                interval,
                list(INTERVALS),
                hint="candles(symbol, interval) makes any of the trades.",
            )
        return self._rows(OHLCV, symbol, (to_us(start), to_us(end)), columns, exact=exact, interval=interval)

    def candles(self, symbol: Symbols, interval: str, start: Time | None = None, end: Time | None = None) -> Rows:
        """Return candles of any interval, made of the trades; buckets without a trade are left out.

        QuestDB makes them with ``SAMPLE BY``; from the CSV they are folded, with the same result to the last bit
        (``collector.reading.tick_candles`` says how). Nothing tells partial buckets apart: the first and last one of a
        session or of the bounds given, and those that ``gaps`` concern.

        Args:
            interval: as 250ms, 90s, 7m, 4h, 1d; buckets are aligned to the epoch, UTC.

        Raises:
            UsageError: the interval is none, or as ``prices``.
        """
        length_us = interval_us(interval)
        symbols = self._chosen(PRICES, symbol)
        plans, source = self._plans(PRICES, symbols, exact=False)
        task = CandleTask(self._where, (to_us(start), to_us(end)), interval.strip().lower(), length_us)
        return Rows(candle_schema(), source, self._reader(task, PRICES, plans, source))

    def gaps(self, start: Time | None = None, end: Time | None = None) -> Rows:
        """Return the gap ledger: each entry in its last revision, by when it was detected."""
        return self.stream(GAPS.name, None, start, end)

    def stream(
        self,
        name: str,
        symbol: Symbols = None,
        start: Time | None = None,
        end: Time | None = None,
        *,
        columns: Sequence[str] | None = None,
        exact: bool = False,
    ) -> Rows:
        """Return any stream of the registry (``collector.streams.STREAMS``) by its name; otherwise as ``prices``."""
        if name not in STREAMS:
            raise UnknownName("stream", name, list(STREAMS))
        stream = stream_of(name, self.manifest.book_levels) or STREAMS[name]
        return self._rows(stream, symbol, (to_us(start), to_us(end)), columns, exact=exact)

    # Where rows come from

    def _source(self) -> Source:
        found = [self._plans(stream, self._chosen(stream, None), exact=False)[1] for stream in STREAMS.values()]
        return next((source for source in found if source.name != "questdb"), found[0])

    def _chosen(self, stream: Stream, symbol: Symbols) -> list[str | None]:
        """Return the symbols asked for; raise UnknownName for one that the session does not have."""
        if not stream.per_symbol:
            return [None]
        known = {*self.manifest.symbols}
        known |= set(symbols_in(self.directory, stream)) if self.directory is not None else set()
        if symbol is None:
            return [*sorted(known)]
        chosen = [symbol] if isinstance(symbol, str) else list(symbol)
        for one in chosen:
            if one not in known:
                raise UnknownName(f"symbol of session {self.session_id}", one, sorted(known))
        return [*sorted(set(chosen))]

    def _plans(self, stream: Stream, symbols: list[str | None], *, exact: bool) -> tuple[list[Plan], Source]:
        """Decide from where each symbol's rows come, and say why."""
        if self.directory is None:
            if exact:
                raise UsageError("Only the CSV has the exchange's digits, and this session is only in QuestDB.")
            return [Plan(symbol, "questdb") for symbol in symbols], Source("questdb", "only QuestDB has the session")
        plans = plan_of_csv(self.manifest, stream, symbols)
        released = any(plan.name == "both" for plan in plans)
        if exact or self._preference == "csv":
            if released:
                raise LogError(
                    f"The CSV of {self.session_id} has released rows of {stream.name}: only QuestDB has them.",
                    hint="Read them without exact=True, and not from the CSV alone.",
                )
            return plans, Source("csv", "the exchange's digits were asked for" if exact else "the CSV was asked for")
        why = self._lacking(stream, symbols)
        if why and self._preference == "questdb":
            raise DatabaseUnavailable(f"Session {self.session_id} cannot be read from QuestDB: {why}.")
        if why:
            return plans, source_of(plans, why)
        return [Plan(symbol, "questdb") for symbol in symbols], Source("questdb", "QuestDB has the session whole")

    def _lacking(self, stream: Stream, symbols: Sequence[str | None]) -> str:
        if self.directory is None:
            return ""
        if self.manifest.state not in FINAL:
            return f"the session is {self.manifest.state}"
        try:
            held = self._held(stream)
        except DATABASE_ERRORS as error:
            return error.message.rstrip(".")
        return lacking(self.manifest, self.directory, stream, symbols, held)

    def _held(self, stream: Stream) -> dict[str | None, Held]:
        with ResearchReader(self._database.settings()) as reader:
            return reader.held(stream, self.session_id)

    # Reading

    def _rows(
        self,
        stream: Stream,
        symbol: Symbols,
        span: tuple[int | None, int | None],
        names: Sequence[str] | None,
        *,
        exact: bool,
        interval: str | None = None,
    ) -> Rows:
        columns = chosen_columns(stream, names)
        schema = schema_of(columns, exact=exact)
        symbols = self._chosen(stream, symbol)
        plans, source = self._plans(stream, symbols, exact=exact)
        task = Task(self._where, stream, columns, span, exact=exact, interval=interval)
        return Rows(schema, source, self._reader(task, stream, plans, source))

    @property
    def _where(self) -> Where:
        return Where(self.session_id, self.directory, self._database.settings)

    def _reader(self, task: Task | CandleTask, stream: Stream, plans: list[Plan], source: Source) -> Reader:
        alternative: Callable[[], list[Plan]] | None = None
        if source.name == "questdb" and self.directory is not None and self._preference == "auto":
            alternative = partial(plan_of_csv, self.manifest, stream, [plan.symbol for plan in plans])
        return Reader(partial(task.whole, plans, source, alternative), partial(task.pieces, plans))


def open_session(
    session_id: str,
    data_dir: str | Path | None = None,
    *,
    config: str | Path | Config | None = None,
    source: Preference = "auto",
) -> SessionReader:
    """Open a session to read it back.

    Args:
        session_id: its id, or the path of its directory.
        data_dir: where sessions are; None takes the configuration's. It may be read-only, and another machine's.
        config: the configuration, or its file; None takes ``config.toml`` in the working directory, where there is one.
        source: ``auto`` takes QuestDB when it has the session whole and the CSV when it hasn't; the others insist.

    Raises:
        SessionNotFound: neither the data directory nor QuestDB has it.
        ManifestError: its manifest cannot be read.
        ConfigError: the configuration cannot be read.
    """
    settings = _config(data_dir, config)
    database = Database(settings)
    try:
        stored = find_session(settings.daemon.data_dir, session_id)
    except SessionNotFound:
        found = _in_database(database).get(session_id) if source != "csv" else None
        if found is None:
            raise
        return SessionReader(found, None, database, source)
    return SessionReader(stored.manifest, stored.directory, database, source)


def sessions(
    data_dir: str | Path | None = None,
    *,
    config: str | Path | Config | None = None,
    exchange: str | None = None,
    symbol: str | None = None,
    state: str | None = None,
    label: str | None = None,
    source: Preference = "auto",
) -> list[SessionReader]:
    """Return the sessions of the data directory and those that only QuestDB has, oldest first.

    Args:
        exchange, symbol, state, label: only sessions of these; ``label`` is a part of it.
        source: as ``open_session`` takes it; ``csv`` asks no QuestDB.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    settings = _config(data_dir, config)
    database = Database(settings)
    known = {one.session_id: one for one in list_sessions(settings.daemon.data_dir)[0]}
    found = [SessionReader(one.manifest, one.directory, database, source) for one in known.values()]
    if source != "csv":
        others = [manifest for name, manifest in _in_database(database).items() if name not in known]
        found += [SessionReader(manifest, None, database, source) for manifest in others]
    chosen = [
        one
        for one in found
        if exchange in (None, one.manifest.exchange)
        and (symbol is None or symbol in one.manifest.symbols)
        and state in (None, one.manifest.state)
        and (label or "") in one.manifest.label
    ]
    return sorted(chosen, key=lambda one: (one.manifest.created_us, one.session_id))


def _config(data_dir: str | Path | None, config: str | Path | Config | None) -> Config:
    folder = None if data_dir is None else Path(data_dir)
    if isinstance(config, Config):
        if folder is None:
            return config
        return config.model_copy(update={"daemon": config.daemon.model_copy(update={"data_dir": folder})})
    path = None if config is None else Path(config)
    return load_config(path, environment=os.environ, overrides={"daemon": {"data_dir": folder}})


def _in_database(database: Database) -> dict[str, Manifest]:
    """Return the sessions that QuestDB knows of; none where it cannot be asked."""
    try:
        settings = database.settings()
        return {row.session_id: _manifest_of(row) for row in SessionRows(lambda: settings).all()}
    except DATABASE_ERRORS:
        return {}


def _manifest_of(row: SessionRow) -> Manifest:
    """Return what a session's row tells of its manifest."""
    return Manifest(
        session_id=row.session_id,
        exchange=row.exchange,
        symbols=list(row.symbols),
        data_types=list(row.data_types),
        created_us=row.created_us,
        label=row.label,
        duration_s=row.duration_s,
        state=row.status,
        reason=row.error,
        started_us=row.start_us,
        ended_us=row.end_us,
        heartbeat_us=row.heartbeat_us,
        written=row.records_collected,
        errors=row.errors_count,
        gaps=row.gaps_count,
    )
