"""Faults on demand: what can go wrong at an exchange, each bounded and counted, decided without I/O.

A fault waits until ``after`` occasions that it fits have passed, then happens ``count`` times. What an occasion is:

- for ``drop``, ``close``, ``shutdown``, ``stall``, ``skip``, ``duplicate``, ``reorder``, ``malformed``, ``oversized``
  and ``deaf`` (the channel falls silent until it is asked for anew): a message about to be sent;
- for ``reject`` and ``silent``: a channel asked for; for ``refuse``: a websocket about to be opened;
- for ``slow``, ``stale``, ``fail``, ``limit`` and ``ban``: a REST request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from collector.errors import UnknownName, UsageError

Kind = Literal[
    "drop", "close", "shutdown", "stall", "skip", "duplicate", "reorder", "malformed", "oversized", "deaf",
    "reject", "silent", "refuse",
    "slow", "stale", "fail", "limit", "ban",
]  # fmt: skip
KINDS: tuple[str, ...] = Kind.__args__  # type: ignore[attr-defined]
_MESSAGE_KINDS = frozenset(KINDS[:10])
_ENDINGS = frozenset({"drop", "close", "shutdown"})
_REST_KINDS = frozenset(KINDS[13:])


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault.

    Args:
        channel: a pattern (``btcusdt@*``, ``*@aggTrade``) of the channels that it fits.
        connection: only this connection, by its number.
        path: a pattern of the REST paths that it fits.
        after: how many occasions pass before the first.
        count: how many times it happens.
        n: how many ids are skipped, repeated or turned round; how many buckets a stale book is behind.
        seconds: how long a stall, a slow answer, a limit or a ban lasts; how long after ``serverShutdown`` the
            end comes.
        status: of a failed answer (HTTP); of ``close`` (websocket).
        size: of an oversized message, in bytes.
    """

    kind: Kind
    channel: str = "*"
    connection: int | None = None
    path: str = "*"
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    n: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0
    status: Annotated[int, msgspec.Meta(ge=400, le=4999)] = 500
    size: Annotated[int, msgspec.Meta(ge=1, le=256 * 1024 * 1024)] = 32 * 1024 * 1024


GARBAGE = -1
"""The id of a message that carries nothing."""


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A message of a channel: the last id that it carries (or GARBAGE), and its text."""

    id: int
    text: str


class Outcome(msgspec.Struct):
    """What becomes of messages about to be sent: what goes out, which ids do not, and whether the connection ends."""

    out: list[Sent]
    withheld: list[tuple[str, int]] = []
    repeated: list[int] = []
    deaf: bool = False
    ending: Fault | None = None


class _Armed:
    """A fault that is still to happen: how many occasions it lets pass, and how many times are left."""

    __slots__ = ("fault", "left", "passing")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.passing = fault.after
        self.left = fault.count


def _fits(fault: Fault, connection: int, channel: str) -> bool:
    return fault.connection in (None, connection) and fnmatchcase(channel, fault.channel)


class Faults:
    """All faults of one server, with what became of them."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.fired: Counter[str] = Counter()
        self._waiting: list[_Armed] = [_Armed(fault) for fault in faults]
        self._stalls: list[tuple[Fault, float]] = []
        self._held: dict[tuple[int, str], list[Sent]] = {}

    def add(self, fault: Fault) -> None:
        """Arm a fault."""
        self._waiting.append(_Armed(fault))

    def clear(self) -> None:
        """Disarm all faults and end all stalls; what was counted stays."""
        self._waiting.clear()
        self._stalls.clear()

    def armed(self) -> list[Fault]:
        """Return the faults that have not yet happened as often as they should; ``count`` is what is left."""
        return [msgspec.structs.replace(armed.fault, count=armed.left) for armed in self._waiting]

    @property
    def quiet(self) -> bool:
        """Whether nothing can happen to a message: then it needs no look."""
        return not (self._stalls or self._held or any(armed.fault.kind in _MESSAGE_KINDS for armed in self._waiting))

    def on_messages(self, connection: int, channel: str, messages: Sequence[Sent], now_s: float) -> Outcome:
        """Decide what becomes of messages that a connection is about to be sent on one channel."""
        outcome = Outcome([])
        self._stalls = [(fault, until) for fault, until in self._stalls if until > now_s]
        queue = [*self._held.pop((connection, channel), ()), *messages]
        while queue:
            if any(_fits(fault, connection, channel) for fault, _ in self._stalls):
                outcome.withheld += [("stall", message.id) for message in queue]
                return outcome
            armed = self._take(_MESSAGE_KINDS, lambda fault: _fits(fault, connection, channel))
            if armed is None:
                outcome.out.append(queue.pop(0))
                continue
            if armed.kind == "shutdown":
                outcome.ending = armed
            elif armed.kind in _ENDINGS:
                outcome.ending = armed
                outcome.withheld += [(armed.kind, message.id) for message in queue]
                return outcome
            elif armed.kind == "deaf":
                outcome.deaf = True
                outcome.withheld += [("deaf", message.id) for message in queue]
                return outcome
            elif armed.kind == "stall":
                self._stalls.append((armed, now_s + armed.seconds))
            elif armed.kind == "reorder" and len(queue) <= armed.n:
                self._wait_for_more(armed, connection, channel, queue)
                return outcome
            else:
                queue = self._mangle(armed, queue, outcome)
        return outcome

    def on_subscription(self, connection: int, channel: str) -> str | None:
        """Decide whether a channel that is asked for is rejected (``reject``) or never delivers (``silent``)."""
        fault = self._take(frozenset({"reject", "silent"}), lambda fault: _fits(fault, connection, channel))
        return fault.kind if fault else None

    def on_opening(self) -> Fault | None:
        """Decide whether a websocket that is being opened is refused."""
        return self._take(frozenset({"refuse"}), lambda _: True)

    def on_request(self, path: str) -> Fault | None:
        """Decide what becomes of a REST request."""
        return self._take(_REST_KINDS, lambda fault: fnmatchcase(path, fault.path))

    def _mangle(self, fault: Fault, queue: list[Sent], outcome: Outcome) -> list[Sent]:
        """Do a fault to the messages at the head of the queue; return the rest."""
        head, rest = queue[: fault.n], queue[fault.n :]
        if fault.kind == "skip":
            outcome.withheld += [("skip", message.id) for message in head]
            if len(head) < fault.n:  # the next batches owe what this one had not
                self._rearm(msgspec.structs.replace(fault, n=fault.n - len(head)))
        elif fault.kind == "duplicate":
            outcome.out += [*head, *head]
            outcome.repeated += [message.id for message in head]
        elif fault.kind == "reorder":
            head, rest = queue[: fault.n + 1], queue[fault.n + 1 :]
            outcome.out += reversed(head)
        elif fault.kind == "malformed":
            outcome.out += [Sent(GARBAGE, message.text[: len(message.text) // 2]) for message in head]
            outcome.withheld += [("malformed", message.id) for message in head]
        else:
            outcome.out.append(Sent(GARBAGE, '{"e":"oversized","pad":"' + "x" * fault.size + '"}'))
            outcome.withheld.append(("oversized", queue[0].id))
            rest = queue[1:]
        return rest

    def _wait_for_more(self, fault: Fault, connection: int, channel: str, queue: list[Sent]) -> None:
        """Keep messages back until there are enough of them to turn round."""
        self._held[connection, channel] = queue
        self._rearm(fault)

    def _rearm(self, fault: Fault) -> None:
        """Let a fault that could not happen as a whole happen at the next occasion, counted once."""
        self._waiting.insert(0, _Armed(msgspec.structs.replace(fault, count=1, after=0)))
        self.fired[fault.kind] -= 1

    def _take(self, kinds: frozenset[str], fits: Callable[[Fault], bool]) -> Fault | None:
        """Return the first armed fault of these kinds whose time has come, and count it; the others see it pass."""
        taken: Fault | None = None
        for armed in self._waiting:
            if armed.fault.kind not in kinds or not fits(armed.fault):
                continue
            if armed.passing:
                armed.passing -= 1
            elif taken is None:
                taken = armed.fault
                armed.left -= 1
                self.fired[taken.kind] += 1
        self._waiting = [armed for armed in self._waiting if armed.left]
        return taken


def parse_fault(text: str) -> Fault:
    """Read a fault as the command line and the configuration write it: ``stall:channel=*@aggTrade,seconds=5``.

    Raises:
        UsageError: the kind or a key does not exist (with the nearest ones), or a value is impossible.
    """
    kind, _, rest = text.partition(":")
    values = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    return fault_from({"kind": kind, **values})


def fault_from(values: dict[str, str]) -> Fault:
    """Make a fault from its parameters as text; raise UsageError where they are wrong."""
    kind = values.get("kind", "")
    if kind not in KINDS:
        raise UnknownName("fault", kind, list(KINDS))
    for key in values:
        if key not in Fault.__struct_fields__:
            raise UnknownName("parameter of a fault", key, list(Fault.__struct_fields__))
    try:
        return msgspec.convert(values, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"The fault {kind!r} cannot be: {error}.") from error
