"""The Envoy example fits the service it stands before; what no Envoy is needed for to see."""

import pytest
import yaml

from common.rpc.channel import IDEMPOTENT
from query.serve import QueryConfig
from query.service import SERVICE
from tests.unit.deploy.rendering import DEPLOY, only, render


@pytest.fixture(scope="module")
def resources():
    return yaml.safe_load((DEPLOY / "envoy/envoy.yaml").read_text())["static_resources"]


def routes(resources):
    [listener] = resources["listeners"]
    [chain] = listener["filter_chains"]
    [connections] = chain["filters"]
    [host] = connections["typed_config"]["route_config"]["virtual_hosts"]
    return host["routes"]


def seconds(duration):
    return float(duration.removesuffix("s"))


def test_it_follows_the_pods_behind_the_headless_service(resources):
    [cluster] = resources["clusters"]
    assert cluster["type"] == "STRICT_DNS"
    [locality] = cluster["load_assignment"]["endpoints"]
    [endpoint] = locality["lb_endpoints"]
    service = only(render("secured"), "Service", "query")
    name, space = service["metadata"]["name"], service["metadata"]["namespace"]
    assert service["spec"]["clusterIP"] == "None"
    assert endpoint["endpoint"]["address"]["socket_address"] == {
        "address": f"{name}.{space}.svc.cluster.local",
        "port_value": service["spec"]["ports"][0]["port"],
    }


def test_it_asks_for_the_health_of_the_service_itself(resources):
    [cluster] = resources["clusters"]
    [check] = cluster["health_checks"]
    assert check["grpc_health_check"] == {"service_name": SERVICE}


def test_it_repeats_only_what_is_safe_to_repeat(resources):
    repeated = [route["match"] for route in routes(resources) if "retry_policy" in route["route"]]
    assert repeated
    idempotent = {f"/{service}/{method}" for service, method in IDEMPOTENT}
    assert {match["path"] for match in repeated} <= idempotent


def test_every_route_is_bounded_and_none_reaches_what_changes_collections(resources):
    clusters = {cluster["name"] for cluster in resources["clusters"]}
    for route in routes(resources):
        [place] = route["match"].values()
        assert place.startswith((f"/{SERVICE}/", "/grpc.health.v1.Health/"))
        action = route["route"]
        assert action["cluster"] in clusters
        bounded = action.get("max_stream_duration", {}).get("max_stream_duration")
        limit_s = seconds(bounded or action["timeout"])
        assert limit_s > 0
        if place.startswith(f"/{SERVICE}/"):
            assert limit_s > QueryConfig().query.deadline_s


def test_both_sides_use_the_files_of_the_secret(resources):
    [listener] = resources["listeners"]
    [cluster] = resources["clusters"]
    down = listener["filter_chains"][0]["transport_socket"]["typed_config"]
    up = cluster["transport_socket"]["typed_config"]
    assert down["require_client_certificate"] is True
    environment = next(
        document["data"]
        for document in render("secured")
        if document["metadata"]["name"].startswith("sluice-environment")
    )
    assert up["sni"] == environment["SLUICE_CLIENT__CHANNEL__TLS_SERVER_NAME"]
    for side in (down, up):
        tls = side["common_tls_context"]
        [pair] = tls["tls_certificates"]
        assert [
            pair["certificate_chain"]["filename"],
            pair["private_key"]["filename"],
            tls["validation_context"]["trusted_ca"]["filename"],
        ] == [
            environment[f"SLUICE_CLIENT__CHANNEL__{key}"]
            for key in ("TLS_CERTIFICATE", "TLS_KEY", "TLS_CA")
        ]
