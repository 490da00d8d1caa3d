"""An exchange's REST interface: one client, one budget and one ban for everybody who asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from types import TracebackType
from typing import Self

import httpx

from collector.clock import Clock
from collector.errors import ConfigError, ConnectionLost, ExchangeRefused, UsageError
from collector.exchanges.base import Exchange, Listing, Request
from collector.feeds.allowance import RestAllowance
from collector.feeds.backoff import parse_retry_after, stay_away_s
from collector.feeds.sink import Recorder

_EXCERPT_CHARS = 300
_MAX_PAGES = 100
"""How many answers a list of instruments may take: a server that always names a next page would never end."""

_WHOLE_ANSWER = 3
"""How many timeouts a whole answer may take: one that comes byte by byte would otherwise never end."""


class Rest:
    """Ask an exchange over HTTP, within its budget of weights, and not at all while it wants to be left alone.

    Redirects are not followed and proxies of the environment are not used: the address is what the configuration says.

    Args:
        base_url: what every request's path is appended to.
        allowance: the budget of request weights and the ban, shared by all who ask the same exchange.
        timeout_s: for connecting, and for each wait for bytes; a whole answer may take three times as long.
        max_bytes: the longest body that is read.
        proxy: address of a proxy; empty for none.
        recorder: is given every answer, where raw messages are kept.
        headers: what to say besides with each request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        allowance: RestAllowance,
        timeout_s: float,
        max_bytes: int,
        clock: Clock,
        proxy: str = "",
        recorder: Recorder | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.requests = 0
        self.refused = 0
        self.oversized = 0
        self._allowance = allowance
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._recorder = recorder
        try:
            self._client = httpx.AsyncClient(
                timeout=timeout_s,
                trust_env=False,
                proxy=proxy or None,
                follow_redirects=False,
                headers={"User-Agent": "collector", "Accept": "application/json", **(headers or {})},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(f"The proxy {proxy!r} is no address: {error}.") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def banned_s(self) -> float:
        """For how many more seconds the exchange wants no request; 0 where it does not mind."""
        return self._allowance.rest_ban.remaining_s

    async def get(self, request: Request) -> bytes:
        """Send a request as soon as the budget allows, and return the body of its answer.

        Raises:
            ExchangeRefused: the answer's status is not 2xx, or a ban (418, 429) has not passed: nothing was sent then.
            ConnectionLost: there was no answer, or one that is too long.
        """
        self._refuse_while_banned()
        await self._allowance.spend(request.weight)
        # Others may have been banned while this one waited for its turn.
        self._refuse_while_banned()
        self.requests += 1
        url = self.base_url + request.path
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(_WHOLE_ANSWER * self._timeout_s),
                self._client.stream(
                    request.method, url, params=dict(request.params), content=request.body, headers=headers
                ) as response,
            ):
                body = await self._read(response, url)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigError(f"The REST address {url} is wrong: {error}.") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise ConnectionLost(f"{url} did not answer: {str(error) or type(error).__name__}.") from error
        self._allowance.hear(response.headers)
        self._record(response, body)
        if not response.is_success:
            self.refused += 1
            raise self._refusal(response, body, url)
        return body

    async def close(self) -> None:
        """Close the connections that are kept alive."""
        await self._client.aclose()

    async def _read(self, response: httpx.Response, url: str) -> bytes:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > self._max_bytes:
                self.oversized += 1
                raise ConnectionLost(
                    f"The answer of {url} is longer than {self._max_bytes} bytes.", hint="See feed.rest_max_bytes."
                )
        return bytes(body)

    def _record(self, response: httpx.Response, body: bytes) -> None:
        if self._recorder is not None:
            # A recording has one line for an answer; in JSON a line break is as good as a space.
            line = body.replace(b"\r", b" ").replace(b"\n", b" ")
            head = f"{response.status_code} {response.request.url} ".encode()
            self._recorder.frame(self._clock.now_us() * 1000, "http", "GET", head + line)

    def _refusal(self, response: httpx.Response, body: bytes, url: str) -> ExchangeRefused:
        excerpt = body[:_EXCERPT_CHARS].decode("utf-8", "replace")
        error = ExchangeRefused(
            f"{url} answered with HTTP status {response.status_code}: {excerpt}",
            status=response.status_code,
            retry_after_s=parse_retry_after(response.headers.get("Retry-After"), self._clock.now_us()),
            body=body,
        )
        if error.status in (418, 429):
            self._allowance.rest_ban.extend(stay_away_s(error) or 0.0)
        return error

    def _refuse_while_banned(self) -> None:
        remaining = self.banned_s
        if remaining > 0:
            raise ExchangeRefused(
                f"{self.base_url} wants no requests for another {remaining:.1f} s.",
                status=429,
                retry_after_s=remaining,
            )


async def fetch_volumes(exchange: Exchange, rest: Rest) -> dict[str, Decimal]:
    """Return what each instrument traded in 24 hours, in quote currency, by native spelling.

    Args:
        exchange: made for all of its listings.

    Raises:
        UsageError: the exchange doesn't say it.
        ExchangeRefused, ConnectionLost: as ``Rest.get``.
        MessageError: an answer cannot be read.
    """
    request = exchange.volumes_request()
    if request is None:
        raise UsageError(
            f"{exchange.name} does not say what was traded in 24 hours, so there is no top:N.",
            hint="Name the symbols, or write all:USDT for all of a quote currency.",
        )
    volumes: dict[str, Decimal] = {}
    for _ in range(_MAX_PAGES):
        if request is None:
            break
        body = await rest.get(request)
        volumes.update(exchange.parse_volumes(body))
        request = exchange.next_volumes_request(request, body)
    return volumes


async def fetch_listing(exchange: Exchange, rest: Rest) -> list[Listing]:
    """Return the exchange's instruments, each once.

    Raises:
        ExchangeRefused, ConnectionLost: as ``Rest.get``.
        MessageError: the answer is not a list of instruments.
    """
    listings: dict[str, Listing] = {}
    request: Request | None = exchange.listing_request()
    for _ in range(_MAX_PAGES):
        if request is None:
            break
        body = await rest.get(request)
        for listing in exchange.parse_listing(body):
            listings.setdefault(listing.symbol, listing)
        request = exchange.next_listing_request(request, body)
    return list(listings.values())
