"""What the service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gpnas_requests", "Requests answered", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "gpnas_request_seconds",
            "Seconds to an answer",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.streams = Gauge("gpnas_event_streams", "Event streams that are open", registry=self._registry)
        self.searches = Gauge("gpnas_searches", "Searches by state", ("state",), registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request by its route, never by its path, whose values are without end."""
        method = method if method in ("GET", "HEAD", "POST", "DELETE") else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' own form."""
        return bytes(generate_latest(self._registry))
