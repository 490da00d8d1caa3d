"""Logging: readable lines on the terminal, JSON lines in a rotated file, and no secret in either.

Writing happens in a thread of its own behind a bounded queue, so that neither a slow disk nor a stopped terminal holds
up the event loop; what the queue cannot take is dropped and counted.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

FILE = "collector.log"
NAME = "collector"
MASK = "***"

_SECRET_KEY = re.compile(r"password|passwd|secret|token|authorization|cookie|api_?key|credential", re.IGNORECASE)
_SECRET_PAIR = re.compile(
    r"((?:password|passwd|secret|token|api_?key|credentials?)[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s;,&\"']+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"(authorization[\"']?\s*[=:]\s*[\"']?)(?:(?:basic|bearer)\s+)?[^\s,;\"']+", re.IGNORECASE)
_BEARER = re.compile(r"\b(basic|bearer)\s+[A-Za-z0-9+/=_.~-]{8,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)")


def get_log(**facts: Any) -> FilteringBoundLogger:
    """Return the project's logger, with facts that each of its lines shall carry."""
    return cast("FilteringBoundLogger", structlog.get_logger(NAME, **facts))


class Logs:
    """The logging of a process while it is entered.

    Args:
        level: the lowest level that is written: ``debug``, ``info``, ``warning`` or ``error``.
        terminal: where readable lines go, coloured where it is a terminal; None for nowhere.
        folder: where ``collector.log`` is written, rotated by size; None for nowhere.
        max_bytes: at which size the file is rotated.
        backup_count: how many rotated files are kept.
        queue_max_records: how many records may wait to be written.
    """

    def __init__(
        self,
        *,
        level: str = "info",
        terminal: TextIO | None = None,
        folder: Path | None = None,
        max_bytes: int = 50_000_000,
        backup_count: int = 10,
        queue_max_records: int = 10_000,
    ) -> None:
        self._level = level
        self._terminal = terminal
        self._folder = folder
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self._front = _Queueing(queue.Queue(queue_max_records))
        self._outputs: list[logging.Handler] = []
        self._listener: logging.handlers.QueueListener | None = None

    @property
    def dropped(self) -> int:
        """Count the records that the queue could not take."""
        return self._front.dropped

    @property
    def file(self) -> Path | None:
        return self._folder / FILE if self._folder else None

    def __enter__(self) -> Self:
        self._outputs = self._make_outputs()
        self._listener = logging.handlers.QueueListener(self._front.queue, *self._outputs)
        self._listener.start()
        logging.raiseExceptions = False  # a full disk must not print a traceback for each line
        root = logging.getLogger()
        root.addHandler(self._front)
        root.setLevel(logging.WARNING)  # what libraries say matters from there on
        logging.getLogger(NAME).setLevel(self._level.upper())
        structlog.configure(
            processors=[*_shared_processors(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._front)
        if self._listener is not None:
            self._listener.stop()
        for output in self._outputs:
            output.close()
        structlog.reset_defaults()

    def _make_outputs(self) -> list[logging.Handler]:
        outputs: list[logging.Handler] = []
        if self._terminal is not None:
            on_terminal = logging.StreamHandler(self._terminal)
            on_terminal.setFormatter(_formatter(*_for_terminal(colors=self._terminal.isatty())))
            outputs.append(on_terminal)
        if self._folder is not None:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            in_file = _PrivateFile(
                self._folder / FILE, maxBytes=self._max_bytes, backupCount=self._backup_count, encoding="utf-8"
            )
            in_file.setFormatter(_formatter(structlog.processors.JSONRenderer(default=str)))
            outputs.append(in_file)
        return outputs


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o640)


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """Files that others cannot read, whatever the umask was when they were made."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_open_private)


class _Queueing(logging.handlers.QueueHandler):
    """Hands records over as they are: they are rendered in the listener's thread."""

    queue: queue.Queue[Any]
    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def dropped_records() -> int:
    """Count the records that the queue of this process' logging could not take; 0 where none is entered."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, _Queueing))


def mask_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace what must not be in a log: values of telling keys, and telling parts of any text."""
    return {key: MASK if _SECRET_KEY.search(key) else mask(value) for key, value in event.items()}


def mask(value: Any) -> Any:
    """Return a value without the secrets that text in it gives away (conf strings, headers, addresses)."""
    if isinstance(value, str):
        masked = _AUTHORIZATION.sub(rf"\g<1>{MASK}", value)
        masked = _SECRET_PAIR.sub(rf"\g<1>{MASK}", masked)
        return _URL_PASSWORD.sub(rf"\g<1>{MASK}\g<2>", _BEARER.sub(rf"\g<1> {MASK}", masked))
    if isinstance(value, Mapping):
        return {key: MASK if _SECRET_KEY.search(str(key)) else mask(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask(part) for part in value]
    if isinstance(value, BaseException):
        return mask(str(value))
    return value


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]


def _formatter(*renderers: Processor) -> structlog.stdlib.ProcessorFormatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *_shared_processors()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )


def _for_terminal(*, colors: bool) -> list[Processor]:
    return [_shorten_time, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)]


def _shorten_time(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Show the time of day (UTC): a person at a terminal knows the date."""
    if isinstance(stamp := event.get("timestamp"), str):
        event["timestamp"] = stamp[11:23] + "Z"
    return event
