"""What the server counts, for Prometheus.

Each application has a registry of its own. What every request counts is kept in plain numbers and put
into the form of Prometheus when that asks: the loop is the only thread that counts, and the client
library's locks cost a request several microseconds.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Count(Collector):
    """A number that grows."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._value = 0

    def inc(self, amount: int = 1) -> None:
        """Add to it."""
        self._value += amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield it as Prometheus takes it."""
        yield CounterMetricFamily(self._name, self._text, value=self._value)


class RequestCounts(Collector):
    """Requests by route and status, and how long they took by route."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, int], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def add(self, route: str, code: int, seconds: float) -> None:
        """Count one answered request."""
        known = (route, code)
        self._codes[known] = self._codes.get(known, 0) + 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(_SECONDS) + 1)
            self._seconds[route] = 0.0
        buckets[bisect_left(_SECONDS, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """Yield both as Prometheus takes them."""
        requests = CounterMetricFamily(
            "millrace_http_requests", "Requests by route and status.", labels=["route", "code"]
        )
        for (route, code), count in self._codes.items():
            requests.add_metric([route, str(code)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "millrace_http_request_seconds",
            "Time from a request's headers to the end of its answer.",
            labels=["route"],
        )
        bounds = [*map(str, _SECONDS), "+Inf"]
        for route, buckets in self._buckets.items():
            upto = list(zip(bounds, accumulate(buckets), strict=True))
            seconds.add_metric([route], upto, self._seconds[route])
        yield seconds


class ServerMetrics:
    """The server's counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = RequestCounts()
        self._registry.register(self._requests)
        self.answered = self._requests.add
        self.in_flight = self._gauge("millrace_in_flight_requests", "Requests being answered.")
        self.keys = self._counter("millrace_lookup_keys", "Keys looked up.")
        self.row_hits = self._counter("millrace_row_cache_hits", "Rows answered as stored.")
        self.row_misses = self._counter(
            "millrace_row_cache_misses", "Rows that were absent or ended, so tiles were merged."
        )
        self.rows_kept = self._counter("millrace_rows_kept", "Merged rows written back.")
        self.rows_outrun = self._counter(
            "millrace_rows_outrun", "Merged rows not written back, as a tile had changed."
        )
        self.store_errors = self._counter("millrace_store_errors", "Failed calls of the store.")
        self.store_up = self._gauge("millrace_store_up", "1 while the store answers.")
        self.plans_age = self._gauge(
            "millrace_plans_age_seconds", "Since publications were last read."
        )
        self._lag = Gauge(
            "millrace_freshness_lag_seconds",
            "How far the pipeline of a view is behind now.",
            ["view", "version"],
            registry=self._registry,
        )

    def _counter(self, name: str, text: str) -> Count:
        counter = Count(name, text)
        self._registry.register(counter)
        return counter

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    def set_lags(self, lags_s: dict[tuple[str, str], float]) -> None:
        """Say how far each (view, version) is behind; others are forgotten."""
        self._lag.clear()
        for (view, version), lag_s in lags_s.items():
            self._lag.labels(view, version).set(lag_s)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text form."""
        return generate_latest(self._registry)
