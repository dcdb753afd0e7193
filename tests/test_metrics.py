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


def test_the_times_of_a_route_are_counted_up_to_each_bound() -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.0011, 0.3, 29.9, 30.0, 31.0):
        metrics.answered("GET", "/sync", 200, seconds)
    metrics.answered("PUT", "/send", 200, 1.0)
    found = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "restante_http_request_seconds_bucket" and sample.labels["route"] == "/sync"
    }
    assert found["0.001"] == 2
    assert found["0.0025"] == found["0.25"] == 3
    assert found["0.5"] == 4
    assert found["10.0"] == 4
    assert found["30.0"] == 6
    assert found["+Inf"] == 7
    text = metrics.render().decode()
    assert 'restante_http_request_seconds_count{route="/sync"} 7.0' in text
    assert 'restante_http_request_seconds_sum{route="/send"} 1.0' in text


def test_two_servers_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.events.inc()
    assert b"restante_events_written_total 0.0" in other.render()
