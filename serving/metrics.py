"""What the server counts, for Prometheus.

Each application has a registry of its own. Children of labels are bound once: looking one up costs
more than counting.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ServerMetrics:
    """The server's counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "millrace_http_requests",
            "Requests by route and status.",
            ["route", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "millrace_http_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._bound: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
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

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one answered request."""
        bound = self._bound.get((route, code))
        if bound is None:
            bound = (self._requests.labels(route, str(code)), self._seconds.labels(route))
            self._bound[route, code] = bound
        bound[0].inc()
        bound[1].observe(seconds)

    def set_lags(self, lags_s: dict[tuple[str, str], float]) -> None:
        """Say how far each (view, version) is behind; others are forgotten."""
        self._lag.clear()
        for (view, version), lag_s in lags_s.items():
            self._lag.labels(view, version).set(lag_s)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text form."""
        return generate_latest(self._registry)
