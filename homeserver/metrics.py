"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "restante_requests", "Answered requests", ["method", "endpoint", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "restante_request_seconds",
            "Time to the answer; long polls are counted with their waiting",
            ["endpoint"],
            registry=self.registry,
        )
        self.events_written = Counter(
            "restante_events_written", "Events that local users sent", registry=self.registry
        )
        self.waiting_syncs = Gauge("restante_waiting_syncs", "Long polls that wait now", registry=self.registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count one answer."""
        key = (method, endpoint, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(method, endpoint, str(status)),
                self._seconds.labels(endpoint),
            )
        children[0].inc()
        children[1].observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
