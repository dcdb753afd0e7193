"""What is counted, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server, built once and handed to whoever counts."""

    content_type = CONTENT_TYPE_PLAIN_1_0_0

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="restante", registry=self.registry)
        self.requests = Counter(
            "restante_http_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "restante_http_request_seconds",
            "From a request to its answer, the waiting of long polls included",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rate_limited = Counter(
            "restante_rate_limited_requests",
            "Requests refused by a rate limit",
            ("limit",),
            registry=self.registry,
        )
        self.events = Counter("restante_events_written", "Events that entered a room", registry=self.registry)
        self.commit_seconds = Histogram(
            "restante_commit_seconds",
            "From the begin of a group commit to its end",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.writes_per_commit = Histogram(
            "restante_writes_per_commit",
            "How many writes shared a commit",
            buckets=_COUNTS,
            registry=self.registry,
        )
        self.waiting_syncs = Gauge(
            "restante_waiting_syncs", "Long polls that wait for something new", registry=self.registry
        )
        self.budgeted_syncs = Counter(
            "restante_budgeted_syncs",
            "Syncs answered part by part, since the client's link is weak",
            registry=self.registry,
        )
        self.position = Gauge(
            "restante_log_position", "The last position of the log that was told of", registry=self.registry
        )

        self.transactions_sent = Counter(
            "restante_federation_transactions_sent",
            "Transactions tried, by how that ended",
            ("outcome",),
            registry=self.registry,
        )
        self.sent_to_servers = Counter(
            "restante_federation_delivered",
            "What other servers have taken",
            ("kind",),
            registry=self.registry,
        )
        self.set_aside = Counter(
            "restante_federation_set_aside",
            "What another server refused again and again",
            registry=self.registry,
        )

        self.events_received = Counter(
            "restante_federation_events_received",
            "Events in the transactions of other servers, by what became of them",
            ("outcome",),
            registry=self.registry,
        )

        # The library looks for the same labels anew each time, which costs more than to count.
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the path of its route, with the names of the parameters, not their values."""
        counted = self._counted.get((method, route, status))
        if counted is None:
            counted = self.requests.labels(method, route, status), self.request_seconds.labels(route)
            self._counted[method, route, status] = counted
        requests, request_seconds = counted
        requests.inc()
        request_seconds.observe(seconds)

    def transaction_sent(self, outcome: str, pdus: int, edus: int) -> None:
        """Count a transaction that was tried: `delivered`, `refused`, `unreachable` or `bad_answer`."""
        self.transactions_sent.labels(outcome).inc()
        if outcome == "delivered":
            self.sent_to_servers.labels("event").inc(pdus)
            self.sent_to_servers.labels("edu").inc(edus)

    def item_set_aside(self) -> None:
        """Count what another server does not take."""
        self.set_aside.inc()

    def event_received(self, outcome: str, number: int = 1) -> None:
        """Count events that other servers sent: `taken`, `soft_failed`, `rejected`, `waiting`, `crowded_out`,
        `wrongly_signed`, `malformed`, `denied` (by the room's server ACL) or `not_here` (in rooms of others).
        """
        self.events_received.labels(outcome).inc(number)

    def render(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)
