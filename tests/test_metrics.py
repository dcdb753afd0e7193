from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from homeserver.metrics import Metrics


def test_a_request_is_counted_by_route_and_status_and_its_time_by_route() -> None:
    metrics = Metrics()
    metrics.answered("GET", "/_matrix/client/versions", 200, 0.002)
    samples = {
        sample.name: sample
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    counted = samples["restante_http_requests_total"]
    assert counted.labels == {"method": "GET", "route": "/_matrix/client/versions", "status": "200"}
    assert counted.value == 1
    assert samples["restante_http_request_seconds_count"].value == 1


def test_two_servers_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.events.inc()
    assert b"restante_events_written_total 0.0" in other.render()
