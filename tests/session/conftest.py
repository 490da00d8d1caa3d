"""What a session's tests need: a clock that stands still, a log thread, files that can fail, captured log lines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest
import structlog
from structlog.testing import LogCapture

from collector.clock import ManualClock
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def files() -> FailingFiles:
    return FailingFiles(OperatingSystem())


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1, thread_name_prefix="log") as pool:
        yield pool


@pytest.fixture
def events() -> LogCapture:
    """Log lines as dictionaries, in ``entries``."""
    return LogCapture()


@pytest.fixture
def log(events: LogCapture) -> structlog.typing.FilteringBoundLogger:
    return structlog.wrap_logger(  # type: ignore[no-any-return]
        structlog.PrintLogger(), processors=[events], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
