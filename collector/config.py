"""The configuration: every key with its type and default; ``config.toml`` beside the project says what each means.

Order of precedence: command line (``overrides``), environment, the file, the defaults here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from collector.errors import ConfigError, UnknownName, nearest_names
from collector.streams import ALL_DATA_TYPES, BOOK_LEVELS, DATA_TYPES, MAX_BOOK_LEVELS

DEFAULT_FILE = "config.toml"

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True)


class Daemon(_Section):
    """Where things are, and how the daemon ends and begins."""

    data_dir: Path = Path("data")
    log_dir: Path = Path("logs")
    stop_deadline_s: Seconds = 30
    interrupted: Literal["resume", "close"] = "resume"
    on_sigterm: Literal["complete", "leave"] = "complete"


class Logging(_Section):
    """What is written to collector.log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: Count = 50_000_000
    backup_count: Count = 10
    queue_max_records: Count = 10_000


class SessionDefaults(_Section):
    """What a session is, unless its start says otherwise."""

    data_types: list[str] = ["prices", "orderbook"]
    flush_interval_s: Seconds = 0.5
    heartbeat_interval_s: Seconds = 10
    max_symbols: Count = 1000
    record_raw: bool = False
    record_open_klines: bool = False

    @field_validator("data_types")
    @classmethod
    def _known_data_types(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in (*DATA_TYPES, ALL_DATA_TYPES):
                raise ValueError(str(UnknownName("data type", name, [*DATA_TYPES, ALL_DATA_TYPES])))
        return names


class OrderBook(_Section):
    """What is recorded of an order book."""

    levels: Annotated[int, Field(ge=1, le=MAX_BOOK_LEVELS)] = BOOK_LEVELS


class Buffer(_Section):
    """How many rows may wait in memory."""

    max_rows: Count = 500_000


class Csv(_Section):
    """The session log."""

    enabled: bool = True
    max_open_files: Count = 256
    rotate: Literal["daily", "none"] = "daily"
    rotate_bytes: Annotated[int, Field(ge=0)] = 0
    compress: bool = False
    keep_days: Annotated[float, Field(ge=0)] = 0
    upkeep_interval_s: Seconds = 10
    reserve_bytes: Annotated[int, Field(ge=0)] = 100_000_000
    spool_rotate_bytes: Count = 16 * 1024 * 1024
    spool_rotate_s: Seconds = 60
    spool_keep_s: Annotated[float, Field(ge=0)] = 1200


class Feed(_Section):
    """Connections to exchanges: time limits, sizes, back-off."""

    open_timeout_s: Seconds = 10
    close_timeout_s: Seconds = 1
    ping_interval_s: Seconds = 5
    ping_timeout_s: Seconds = 10
    max_message_bytes: Count = 16 * 1024 * 1024
    first_data_timeout_s: Seconds = 10
    stall_timeout_s: Seconds = 60
    overlap_timeout_s: Seconds = 30
    reorder_grace_s: Seconds = 1
    backoff_initial_s: Seconds = 0.5
    backoff_cap_s: Seconds = 30
    snapshot_timeout_s: Seconds = 10
    snapshots_per_s: Annotated[float, Field(gt=0)] = 4
    rest_max_bytes: Count = 64 * 1024 * 1024
    poll_interval_s: Seconds = 10
    proxy: str = ""
    compression: bool = False


class Repair(_Section):
    """Asking an exchange again for trades that were missed."""

    enabled: bool = True
    interval_s: Seconds = 1
    max_concurrent: Count = 2
    max_age_s: Annotated[float, Field(ge=0)] = 7 * 86_400
    budget_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    backoff_cap_s: Seconds = 60
    kline_delay_s: Annotated[float, Field(ge=0)] = 10


class SourceAllowance(_Section):
    """What a source of history allows, for who is allowed more (or wants to ask for less) than its public limits."""

    weight: Count
    per_s: Seconds
    pace_s: Annotated[float, Field(ge=0)] = 0


class History(_Section):
    """Past candles: whom to ask for them, and how."""

    enabled: bool = False
    sources: list[str] = []
    symbols: list[str] = []
    quote: str = "USDT"
    default_coins: Count = 100
    parallel_symbols: Count = 4
    attempts: Count = 6
    source_pause_s: Seconds = 300
    limits: dict[str, SourceAllowance] = {}


class Retention(_Section):
    """For how many days tables keep their rows; 0 keeps them for ever. ``collector retention apply`` sets it."""

    candles_1m_days: Annotated[int, Field(ge=0)] = 180
    market_data_days: Annotated[int, Field(ge=0)] = 0
    tick_prices_days: Annotated[int, Field(ge=0)] = 0
    tick_orderbook_days: Annotated[int, Field(ge=0)] = 0
    tick_open_interest_days: Annotated[int, Field(ge=0)] = 120
    tick_funding_days: Annotated[int, Field(ge=0)] = 365
    aggregated_ohlcv_days: Annotated[int, Field(ge=0)] = 0


class Endpoint(_Section):
    """Addresses in place of an exchange's own, empty keeps its own; ``options`` are ccxt's, for ``ccxt:NAME``."""

    ws_url: str = ""
    rest_url: str = ""
    options: dict[str, Any] = {}


class Candles(_Section):
    """When candles close."""

    grace_s: Annotated[float, Field(ge=0)] = 2


class QuestDB(_Section):
    """The database: ours, somebody else's or none, and how rows get there."""

    mode: Literal["embedded", "external", "off"] = "embedded"
    ilp_host: str = "127.0.0.1"
    ilp_port: Port = 9000
    http_user: str = ""
    http_password: SecretStr = SecretStr("")
    pg_host: str = "127.0.0.1"
    pg_port: Port = 8812
    pg_user: str = "admin"
    pg_password: SecretStr = SecretStr("quest")
    pg_database: str = "qdb"
    heap_max: str = Field(default="1g", pattern=r"^[0-9]+[mg]$")
    start_timeout_s: Seconds = 60
    batch_max_rows: Count = 50_000
    batch_max_bytes: Count = 8 * 1024 * 1024
    request_timeout_s: Seconds = 5
    check_interval_s: Seconds = 10
    retry_initial_s: Seconds = 0.1
    retry_cap_s: Seconds = 30


class Sim(_Section):
    """The simulated exchange."""

    port: Port = 8765
    seed: int = 1
    rate: Annotated[float, Field(gt=0)] = 50
    symbols: list[str] = ["BTC_USDT", "ETH_USDT"]
    faults: list[str] = []


class Control(_Section):
    """The daemon's control socket."""

    max_connections: Count = 64
    request_timeout_s: Seconds = 10


class Api(_Section):
    """The REST API and the dashboard, on loopback."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8780
    dashboard: bool = True
    max_connections: Count = 256
    max_body_bytes: Count = 1_048_576
    request_timeout_s: Seconds = 30
    max_streams: Count = 64

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        """Refuse to be reachable from elsewhere: there is no TLS."""
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("only loopback (127.0.0.1, ::1 or localhost) is served; use an SSH tunnel from elsewhere")
        return host


ENVIRONMENT = {
    "COLLECTOR_DATA_DIR": ("daemon", "data_dir"),
    "QUESTDB_ILP_HOST": ("questdb", "ilp_host"),
    "QUESTDB_ILP_PORT": ("questdb", "ilp_port"),
    "QUESTDB_HTTP_USER": ("questdb", "http_user"),
    "QUESTDB_HTTP_PASSWORD": ("questdb", "http_password"),
    "QUESTDB_PG_HOST": ("questdb", "pg_host"),
    "QUESTDB_PG_PORT": ("questdb", "pg_port"),
    "QUESTDB_PG_USER": ("questdb", "pg_user"),
    "QUESTDB_PG_PASSWORD": ("questdb", "pg_password"),
    "QUESTDB_PG_DATABASE": ("questdb", "pg_database"),
    "USE_CSV_STORAGE": ("csv", "enabled"),
}
"""The environment variables that override the file, each with its section and key."""


class Config(_Section):
    """The whole configuration; immutable once loaded."""

    daemon: Daemon = Daemon()
    logging: Logging = Logging()
    session: SessionDefaults = SessionDefaults()
    orderbook: OrderBook = OrderBook()
    buffer: Buffer = Buffer()
    csv: Csv = Csv()
    feed: Feed = Feed()
    repair: Repair = Repair()
    exchange: dict[str, Endpoint] = {}
    candles: Candles = Candles()
    history: History = History()
    retention: Retention = Retention()
    questdb: QuestDB = QuestDB()
    sim: Sim = Sim()
    control: Control = Control()
    api: Api = Api()


def load_config(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Read the configuration; ``path`` None means ``config.toml`` in the working directory, or defaults without it.

    A ``QUESTDB_…`` variable means a server of somebody's own (``mode = "external"``) unless the file says "off".

    Args:
        environment: variables to look in (``os.environ`` is the caller's to pass).
        overrides: section → key → value, as the command line gave them.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (with the nearest one), a value is impossible.
    """
    merged = _read_file(path)
    from_environment = _merge_environment(merged, environment or {})
    for section, values in (overrides or {}).items():
        merged.setdefault(section, {}).update({key: value for key, value in values.items() if value is not None})
    _refuse_line_tcp_port(merged)
    try:
        return Config(**merged)
    except ValidationError as error:
        raise _explain(error, path, from_environment) from error


def warnings_of(config: Config) -> list[str]:
    """Return what a configuration asks for in vain, a sentence each."""
    found = []
    if not config.csv.enabled and config.questdb.mode == "off":
        found.append(
            'csv.enabled is false, but with questdb.mode = "off" nobody takes the rows over: they stay in CSV for ever.'
        )
    if config.daemon.on_sigterm == "leave" and config.daemon.interrupted == "close":
        found.append(
            'daemon.on_sigterm = "leave" leaves sessions to a start that fails them: daemon.interrupted = "close".'
        )
    return found


def _merge_environment(merged: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Let the environment override the file; return, by key, the variable that set it."""
    given = {variable: environment[variable] for variable in ENVIRONMENT if environment.get(variable)}
    for variable, value in given.items():
        section, key = ENVIRONMENT[variable]
        merged.setdefault(section, {})[key] = value
    questdb = merged.setdefault("questdb", {})
    if any(variable.startswith("QUESTDB_") for variable in given) and questdb.get("mode") != "off":
        questdb["mode"] = "external"
    return {".".join(ENVIRONMENT[variable]): variable for variable in given}


def _read_file(path: Path | None) -> dict[str, Any]:
    chosen = path or Path(DEFAULT_FILE)
    if path is None and not chosen.exists():
        return {}
    try:
        content = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {chosen}.", hint="Give its path with --config.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The configuration file {chosen} cannot be read: {error}.") from error
    for section, keys in content.items():
        if section in Config.model_fields and not isinstance(keys, dict):
            raise ConfigError(f"{section!r} in {chosen} is a section, no value.", hint=f"Write it as [{section}].")
    return content


def _refuse_line_tcp_port(merged: Mapping[str, Any]) -> None:
    if str(merged.get("questdb", {}).get("ilp_port", "")) == "9009":
        raise ConfigError(
            "Port 9009 is ILP over TCP, which acknowledges nothing: rows that QuestDB loses would look delivered.",
            hint="Set QUESTDB_ILP_PORT (or questdb.ilp_port) to the HTTP port, 9000 by default.",
        )


def _explain(error: ValidationError, path: Path | None, from_environment: Mapping[str, str]) -> ConfigError:
    """Turn pydantic's first complaint into a sentence that names the key, and the nearest one where it is unknown."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    where = f" in {path or DEFAULT_FILE}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        nearest = nearest_names(location[-1], known)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Known here: {', '.join(known)}."
        return ConfigError(f"Unknown key {key!r}{where}.", hint=hint)
    subject = f"{key!r}{where}"
    if key in from_environment:
        subject = f"the environment variable {from_environment[key]}"
    reason = first["msg"].removeprefix("Value error, ").removesuffix(".")
    return ConfigError(f"The value of {subject} is wrong: {reason}.", hint=f"{DEFAULT_FILE} has a comment on each key.")


def _known_keys(location: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else Endpoint
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else Endpoint
    return list(model.model_fields)
