"""The metrics of ``/metrics``: names, help and where each value comes from, read from the daemon's status when asked.

Nothing is counted here: the parts of the daemon count what they do, their status says it, and this turns it into
Prometheus' words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from collector.status import DaemonStatus, LinkStatus, SessionStatus, SymbolStatus, unready_reasons

Sample = tuple[tuple[str, ...], float]
Samples = Iterable[Sample]

_PER_SESSION = ("session", "exchange")
_PER_STREAM = (*_PER_SESSION, "stream")
_PER_SYMBOL = (*_PER_SESSION, "symbol")
_PER_INTERVAL = (*_PER_SYMBOL, "interval")
_PER_LINK = (*_PER_SESSION, "connection")


class Metric(NamedTuple):
    """One metric: its name (a counter's ends in ``_total``), what it says, its labels, and how it is read."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...]
    read: Callable[[DaemonStatus], Samples]


def _once(read: Callable[[DaemonStatus], float | None]) -> Callable[[DaemonStatus], Samples]:
    def samples(status: DaemonStatus) -> Iterator[Sample]:
        value = read(status)
        if value is not None:
            yield (), float(value)

    return samples


def _each_session(read: Callable[[SessionStatus], float | None]) -> Callable[[DaemonStatus], Samples]:
    def samples(status: DaemonStatus) -> Iterator[Sample]:
        for session in status.sessions:
            value = read(session)
            if value is not None:
                yield (session.session_id, session.exchange), float(value)

    return samples


def _latencies(status: DaemonStatus) -> Iterator[Sample]:
    for session in status.sessions:
        if session.latency is not None:
            for quantile, value_us in (
                ("0.5", session.latency.p50_us),
                ("0.95", session.latency.p95_us),
                ("0.99", session.latency.p99_us),
            ):
                yield (session.session_id, session.exchange, quantile), value_us / 1e6


def _each_symbol(read: Callable[[SymbolStatus], float | None]) -> Callable[[DaemonStatus], Samples]:
    def samples(status: DaemonStatus) -> Iterator[Sample]:
        for session in status.sessions:
            for row in session.per_symbol:
                value = read(row)
                if value is not None:
                    yield (session.session_id, session.exchange, row.symbol), float(value)

    return samples


def _each_interval(read: Callable[[SymbolStatus], Mapping[str, int]]) -> Callable[[DaemonStatus], Samples]:
    def samples(status: DaemonStatus) -> Iterator[Sample]:
        for session in status.sessions:
            for row in session.per_symbol:
                for interval, value in read(row).items():
                    yield (session.session_id, session.exchange, row.symbol, interval), float(value)

    return samples


def _each_link(read: Callable[[LinkStatus], float | None]) -> Callable[[DaemonStatus], Samples]:
    def samples(status: DaemonStatus) -> Iterator[Sample]:
        for session in status.sessions:
            for link in session.links:
                value = read(link)
                if value is not None:
                    yield (session.session_id, session.exchange, str(link.number)), float(value)

    return samples


def _rows(status: DaemonStatus) -> Iterator[Sample]:
    for session in status.sessions:
        for stream, rows in session.rows.items():
            yield (session.session_id, session.exchange, stream), float(rows)


def _session_states(status: DaemonStatus) -> Iterator[Sample]:
    for session in status.sessions:
        yield (session.session_id, session.exchange, session.state), 1.0


def _replica_state(status: DaemonStatus) -> Iterator[Sample]:
    yield (status.questdb.state,), 1.0


METRICS: tuple[Metric, ...] = (
    Metric("collector_ready", "gauge", "1 while the daemon does all that it was asked to do.", (),
           _once(lambda s: not unready_reasons(s))),
    Metric("collector_uptime_seconds", "gauge", "Seconds since the daemon started.", (), _once(lambda s: s.uptime_s)),
    Metric("collector_memory_bytes", "gauge", "Resident memory of the daemon.", (), _once(lambda s: s.memory_bytes)),
    Metric("collector_cpu_seconds_total", "counter", "CPU time of the daemon.", (), _once(lambda s: s.cpu_s)),
    Metric("collector_loop_lag_seconds", "gauge", "How late the event loop's timer last ran.", (),
           _once(lambda s: s.loop_lag_s)),
    Metric("collector_clock_steps_total", "counter", "How often the wall clock was set while the daemon ran.", (),
           _once(lambda s: s.clock_steps)),
    Metric("collector_clock_last_step_seconds", "gauge", "By how much the wall clock was set last.", (),
           _once(lambda s: s.last_clock_step.step_s if s.last_clock_step else None)),
    Metric("collector_latency_seconds", "gauge", "Receipt minus exchange time, of a session's newest samples.",
           (*_PER_SESSION, "quantile"), _latencies),
    Metric("collector_clock_offset_seconds", "gauge",
           "The least latency: our clock minus the exchange's, and the shortest way.", _PER_SESSION,
           _each_session(lambda s: s.latency.minimum_us / 1e6 if s.latency else None)),
    Metric("collector_disk_free_bytes", "gauge", "Free space of the data directory's disk.", (),
           _once(lambda s: s.disk_free_bytes)),
    Metric("collector_open_files", "gauge", "Descriptors that the daemon has open.", (),
           _once(lambda s: s.open_files)),
    Metric("collector_open_files_max", "gauge", "Descriptors that the system allows the daemon.", (),
           _once(lambda s: s.open_files_max)),
    Metric("collector_log_dropped_records_total", "counter", "Records of the log that its full queue dropped.", (),
           _once(lambda s: s.log_dropped_records)),
    Metric("collector_control_refused_connections_total", "counter",
           "Connections to the control socket beyond control.max_connections, or of another user.", (),
           _once(lambda s: s.control_refused_connections)),
    Metric("collector_control_refused_commands_total", "counter",
           "Commands that were answered with an error, too long and too slow ones included.", (),
           _once(lambda s: s.control_refused_commands)),
    Metric("collector_api_refused_connections_total", "counter", "Requests to the REST API beyond api.max_connections.",
           (), _once(lambda s: s.api_refused_connections)),
    Metric("collector_api_refused_bodies_total", "counter", "Requests whose body was beyond api.max_body_bytes.", (),
           _once(lambda s: s.api_refused_bodies)),
    Metric("collector_api_delayed_streams_total", "counter",
           "Answers that stream rows and had to wait: api.max_streams were under way.", (),
           _once(lambda s: s.api_delayed_streams)),
    Metric("collector_ended_compressed_files_total", "counter", "Files of ended sessions that were compressed.", (),
           _once(lambda s: s.ended_compressed_files)),
    Metric("collector_ended_released_rows_total", "counter",
           "Rows of ended sessions that were deleted from CSV because QuestDB has them.", (),
           _once(lambda s: s.ended_released_rows)),
    Metric("collector_session_state", "gauge", "1 for the state that a session is in.", (*_PER_SESSION, "state"),
           _session_states),
    Metric("collector_session_errors_total", "counter", "Errors of a session.", _PER_SESSION,
           _each_session(lambda s: s.errors)),
    Metric("collector_rows_total", "counter", "Rows that are durable in CSV.", _PER_STREAM, _rows),
    Metric("collector_buffer_received_rows_total", "counter", "Rows that came into the buffer.", _PER_SESSION,
           _each_session(lambda s: s.buffer.received)),
    Metric("collector_buffer_written_rows_total", "counter", "Rows that went from the buffer to CSV.", _PER_SESSION,
           _each_session(lambda s: s.buffer.written)),
    Metric("collector_buffer_dropped_rows_total", "counter", "Rows that the full buffer dropped; each is in the gaps.",
           _PER_SESSION, _each_session(lambda s: s.buffer.dropped)),
    Metric("collector_buffer_pending_rows", "gauge", "Rows that wait in the buffer.", _PER_SESSION,
           _each_session(lambda s: s.buffer.pending)),
    Metric("collector_flushes_total", "counter", "Flushes of the buffer to CSV.", _PER_SESSION,
           _each_session(lambda s: s.flushes)),
    Metric("collector_flush_seconds", "gauge", "How long the last flush took.", _PER_SESSION,
           _each_session(lambda s: s.flush_s)),
    Metric("collector_flush_max_seconds", "gauge", "How long the longest flush took.", _PER_SESSION,
           _each_session(lambda s: s.flush_max_s)),
    Metric("collector_csv_rotations_total", "counter", "Live files that were closed for a new one.", _PER_SESSION,
           _each_session(lambda s: s.rotations)),
    Metric("collector_csv_compressed_files_total", "counter", "Closed files that were compressed.", _PER_SESSION,
           _each_session(lambda s: s.compressed_files)),
    Metric("collector_csv_released_rows_total", "counter", "Rows that were deleted from CSV because QuestDB has them.",
           _PER_SESSION, _each_session(lambda s: s.released_rows)),
    Metric("collector_csv_open_files", "gauge", "CSV files that are kept open.", _PER_SESSION,
           _each_session(lambda s: s.csv_open_files)),
    Metric("collector_csv_files_closed_early_total", "counter",
           "CSV files that were closed because csv.max_open_files were open.", _PER_SESSION,
           _each_session(lambda s: s.csv_files_closed_early)),
    Metric("collector_rest_requests_total", "counter", "Requests to the exchange's REST interface.", _PER_SESSION,
           _each_session(lambda s: s.rest_requests)),
    Metric("collector_rest_refused_total", "counter", "REST answers that were a refusal.", _PER_SESSION,
           _each_session(lambda s: s.rest_refused)),
    Metric("collector_rest_oversized_total", "counter", "REST answers beyond feed.rest_max_bytes, decompressed.",
           _PER_SESSION, _each_session(lambda s: s.rest_oversized)),
    Metric("collector_gaps_total", "counter", "Gaps in the ledger.", _PER_SESSION, _each_session(lambda s: s.gaps)),
    Metric("collector_gaps_open", "gauge", "Gaps that are neither repaired nor given up.", _PER_SESSION,
           _each_session(lambda s: s.gaps_open)),
    Metric("collector_candles_closed_total", "counter", "Candles that have closed.", _PER_SESSION,
           _each_session(lambda s: s.candles_closed)),
    Metric("collector_candles_compared", "gauge",
           "Closed candles compared with the exchange's own, each as its last revision stands.", _PER_SESSION,
           _each_session(lambda s: s.candles_compared)),
    Metric("collector_candles_different", "gauge",
           "Compared candles that differ from the exchange's own; fewer again once they are repaired.", _PER_SESSION,
           _each_session(lambda s: s.candles_different)),
    Metric("collector_repair_rows_total", "counter", "Missed trades that were fetched and recorded.", _PER_SESSION,
           _each_session(lambda s: s.repaired_rows)),
    Metric("collector_repair_requests_total", "counter",
           "Requests for missed trades, and for candles in place of those that are not to be had.", _PER_SESSION,
           _each_session(lambda s: s.repair_requests)),
    Metric("collector_symbol_last_event_age_seconds", "gauge", "Seconds since the last event of a symbol.", _PER_SYMBOL,
           _each_symbol(lambda r: r.last_event_age_s)),
    Metric("collector_symbol_candles_compared", "gauge", "Closed candles compared with the exchange's own.",
           _PER_INTERVAL, _each_interval(lambda r: r.candles_compared)),
    Metric("collector_symbol_candles_matching", "gauge", "Compared candles that match, as their last revision stands.",
           _PER_INTERVAL, _each_interval(lambda r: {i: r.candles_matching.get(i, 0) for i in r.candles_compared})),
    Metric("collector_symbol_prices_per_second", "gauge", "Trades of a symbol in a second.", _PER_SYMBOL,
           _each_symbol(lambda r: r.prices_per_s)),
    Metric("collector_symbol_gaps_total", "counter", "Gaps of a symbol.", _PER_SYMBOL, _each_symbol(lambda r: r.gaps)),
    Metric("collector_symbol_duplicates_total", "counter", "Events of a symbol that had been seen before.", _PER_SYMBOL,
           _each_symbol(lambda r: r.duplicates)),
    Metric("collector_symbol_book_refreshes_total", "counter",
           "Snapshots that were needed because the market had left the prices of the last one.", _PER_SYMBOL,
           _each_symbol(lambda r: r.book_refreshes)),
    Metric("collector_connection_open", "gauge", "1 while the websocket is open.", _PER_LINK,
           _each_link(lambda link: link.state == "open")),
    Metric("collector_connection_reconnects_total", "counter", "How often the websocket was opened again.", _PER_LINK,
           _each_link(lambda link: link.reconnects)),
    Metric("collector_connection_rotations_total", "counter", "How often a second websocket took over without a gap.",
           _PER_LINK, _each_link(lambda link: link.rotations)),
    Metric("collector_connection_messages_total", "counter", "Messages that came over the websocket.", _PER_LINK,
           _each_link(lambda link: link.messages)),
    Metric("collector_connection_bytes_total", "counter", "Bytes that came over the websocket.", _PER_LINK,
           _each_link(lambda link: link.bytes)),
    Metric("collector_connection_malformed_total", "counter", "Messages that could not be read.", _PER_LINK,
           _each_link(lambda link: link.malformed)),
    Metric("collector_connection_oversized_total", "counter", "Messages beyond feed.max_message_bytes, decompressed.",
           _PER_LINK, _each_link(lambda link: link.oversized)),
    Metric("collector_connection_slowed_total", "counter",
           "Pauses in reading because an eighth of buffer.max_rows waited.", _PER_LINK,
           _each_link(lambda link: link.slowed)),
    Metric("collector_connection_last_frame_age_seconds", "gauge", "Seconds since the last message.", _PER_LINK,
           _each_link(lambda link: link.last_frame_age_s)),
    Metric("collector_replica_state", "gauge", "1 for the state that the replication to QuestDB is in.", ("state",),
           _replica_state),
    Metric("collector_replica_lag_rows", "gauge", "Rows in CSV that QuestDB has not acknowledged.", (),
           _once(lambda s: s.questdb.lag_rows)),
    Metric("collector_replica_lag_bytes", "gauge", "Bytes of CSV that QuestDB has not acknowledged.", (),
           _once(lambda s: s.questdb.lag_bytes)),
    Metric("collector_replica_lag_seconds", "gauge", "Age of the oldest row that QuestDB has not acknowledged.", (),
           _once(lambda s: s.questdb.lag_s)),
    Metric("collector_replica_acknowledged_rows_total", "counter", "Rows that QuestDB acknowledged.", (),
           _once(lambda s: s.questdb.acknowledged_rows)),
    Metric("collector_replica_resent_rows_total", "counter", "Rows that were sent again.", (),
           _once(lambda s: s.questdb.resent_rows)),
    Metric("collector_replica_rejected_rows_total", "counter", "Rows that QuestDB refused (see rejected.csv).", (),
           _once(lambda s: s.questdb.rejected_rows)),
    Metric("collector_replica_failures_total", "counter", "Deliveries that failed and are tried again.", (),
           _once(lambda s: s.questdb.failures)),
    Metric("collector_replica_requests_total", "counter",
           "Requests with rows: of questdb.batch_max_rows and questdb.batch_max_bytes at most.", (),
           _once(lambda s: s.questdb.requests)),
    Metric("collector_replica_rewinds_total", "counter", "How often rows were sent again because the server lost some.",
           (), _once(lambda s: s.questdb.rewinds)),
)  # fmt: skip
"""Every metric; a test holds the documentation to this list."""


class StatusCollector(Collector):
    """Turn a status into metrics whenever they are asked for."""

    def __init__(self, status: Callable[[], DaemonStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        status = self._status()
        for metric in METRICS:
            family: CounterMetricFamily | GaugeMetricFamily
            if metric.kind == "counter":
                family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            else:
                family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.read(status):
                family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Say nothing in advance, so that registering it does not ask for a status."""
        return iter(())


def exposition(status: Callable[[], DaemonStatus]) -> bytes:
    """Return the metrics as Prometheus' text format has them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return generate_latest(registry)
