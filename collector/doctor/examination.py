"""A whole data directory and its server, examined and, where asked, mended; beside a running daemon or without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from collector.clock import Clock, SystemClock
from collector.config import QuestDB
from collector.doctor.database import DatabaseExamination, exchange_of_rows, set_cursor_aside
from collector.doctor.directory import examine_directory
from collector.doctor.files import SessionFiles
from collector.doctor.findings import Case, Diagnosis, case, mend_all
from collector.errors import CollectorError, DatabaseMisconfigured, DatabaseUnavailable, SessionNotFound, nearest_names
from collector.session.names import session_directory
from collector.storage.files import Files, OperatingSystem


class Examination:
    """Examine a data directory.

    Args:
        settings: where QuestDB answers; None where none is to be asked, and ``reason`` says why.
        running: the sessions that a daemon runs now.
        resend: asks that daemon to send a session's rows again; None where no daemon runs.
        deep: compare files with the hashes of ended sessions, too.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: QuestDB | None = None,
        reason: str = "none was asked",
        running: Sequence[str] = (),
        resend: Callable[[str], object] | None = None,
        deep: bool = False,
        replicated: bool = True,
        files: Files | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._reason = reason
        self._running = frozenset(running)
        self._resend_by_daemon = resend
        self._deep = deep
        self._replicated = replicated
        self._files = files or OperatingSystem()
        self._clock = clock or SystemClock()

    def run(self, session: str | None = None, *, fix: bool = False) -> Diagnosis:
        """Examine one session or all of them, and mend what can be mended where ``fix`` says so.

        Raises:
            SessionNotFound: there is no session of that id.
        """
        diagnosis = Diagnosis(str(self._data_dir), database=self._reason)
        cases = [] if session else examine_directory(self._data_dir)
        if fix:
            mend_all(cases)
        sessions = []
        for directory in self._directories(session):
            found, files = self._examine_session(directory)
            if fix and any(each.mend for each in found):
                mend_all(found)
                _, files = self._examine_session(directory)
            cases += found
            sessions.append(files)
        diagnosis.examined = len(sessions)
        cases += self._examine_database(sessions, diagnosis, fix=fix)
        diagnosis.findings = [each.finding for each in cases]
        return diagnosis

    def _directories(self, session: str | None) -> list[Path]:
        found = sorted(path for path in self._data_dir.glob("session_*") if path.is_dir() and not path.is_symlink())
        if session is None:
            return found
        directory = session_directory(self._data_dir, session)
        if not directory.is_dir():
            known = [path.name.removeprefix("session_") for path in found]
            nearest = nearest_names(session, known)
            hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See `collector sessions`."
            raise SessionNotFound(f"There is no session {session!r} in {self._data_dir}.", hint=hint)
        return [directory]

    def _examine_session(self, directory: Path) -> tuple[list[Case], SessionFiles]:
        files = SessionFiles(
            directory,
            files=self._files,
            clock=self._clock,
            running=directory.name.removeprefix("session_") in self._running,
            deep=self._deep,
            replicated=self._replicated,
            exchange_of=self._exchange_of,
        )
        try:
            return files.examine(), files
        except (CollectorError, OSError) as error:
            return [case("unreadable", files.session_id, f"It cannot be examined: {error}")], files

    def _examine_database(self, sessions: Sequence[SessionFiles], diagnosis: Diagnosis, *, fix: bool) -> list[Case]:
        if self._settings is None:
            return []
        database = DatabaseExamination(self._settings, resend=self._resend)
        diagnosis.database = database.address
        cases: list[Case] = []
        try:
            cases += database.examine_tables()
            if fix:
                mend_all(cases)
                database.examine_tables()
            for files in sessions:
                if files.session_id not in self._running:
                    rows = database.examine_rows(files)
                    if fix:
                        mend_all(rows)
                    cases += rows
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            cases.append(case("database", database.address, error.message, error.hint or "See `collector db status`."))
        finally:
            database.close()
        return cases

    def _exchange_of(self, session_id: str) -> str:
        return "" if self._settings is None else exchange_of_rows(self._settings, session_id)

    def _resend(self, session_id: str) -> None:
        if self._resend_by_daemon is not None:
            self._resend_by_daemon(session_id)
        else:
            set_cursor_aside(session_directory(self._data_dir, session_id), self._files)
