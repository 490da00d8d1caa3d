"""The session's buffer is what a feed writes into."""

from __future__ import annotations

from collector.feeds.sink import ResumePoint, Sink
from collector.session.buffer import SessionBuffer


def test_the_session_buffer_is_a_sink() -> None:
    """Every method of the protocol is there."""
    sink: Sink = SessionBuffer(10)
    wanted = [name for name in vars(Sink) if not name.startswith("_")]
    assert wanted
    assert all(callable(getattr(sink, name)) for name in wanted)


def test_a_fresh_resume_point_knows_nothing() -> None:
    """A symbol that was never recorded begins without ids, holes and times."""
    assert ResumePoint() == ResumePoint(None, (), None, None, None, None)
