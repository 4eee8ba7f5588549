"""The rules name only what the services really export, and promtool takes them."""

import asyncio
import json
import re
import shutil
import subprocess
import urllib.request

import grpc
import pytest
import yaml

from common.telemetry import (
    Measure,
    Metric,
    Stage,
    Telemetry,
    TelemetrySettings,
    count,
    gauge_add,
    observe,
    span,
)
from common.telemetry.rpc_spans import ServerSpan
from sluice.query.v1 import query_pb2
from tests.unit.deploy.rendering import DEPLOY, container, only, pod_templates, render, tool

PROMETHEUS = DEPLOY / "prometheus"
PROMTOOL_S = 60
# Not ours: kube-state-metrics, etcd, and Prometheus itself.
FOREIGN = {
    "etcd_server_has_leader",
    "kube_cronjob_status_last_schedule_time",
    "kube_job_status_failed",
    "up",
}
CODES = {code.name for code in grpc.StatusCode}
SEARCHING = query_pb2.DESCRIPTOR.services_by_name["QueryService"]
METHODS = {f"{SEARCHING.full_name}/{method.name}" for method in SEARCHING.methods}
METRIC = re.compile(r"\b((?:sluice|kube|etcd)_[a-z_]+|up)\b(?=[{\[)])")
LABEL = re.compile(r'(\w+)(=~|=)"([^"]*)"')
SEARCH = next(iter(sorted(METHODS)))


def alerts():
    [group] = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def adapter_rule():
    [rule] = yaml.safe_load((PROMETHEUS / "adapter-rules.yaml").read_text())["rules"]
    return rule


def as_prometheus(rule):
    """The adapter's query as it sends it, for all pods of the namespace."""
    query = rule["metricsQuery"].replace("<<.Series>>", "sluice_requests_total")
    query = query.replace("<<.LabelMatchers>>", 'namespace="sluice",pod=~".+"')
    return query.replace("<<.GroupBy>>", "pod")


def promtool(*arguments, cwd=None):
    program = tool("promtool", "on Debian it is in prometheus")
    done = subprocess.run(
        [program, *map(str, arguments)],
        check=False,
        capture_output=True,
        cwd=cwd,
        text=True,
        timeout=PROMTOOL_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def exported():
    """Names and labels of all that services export, as Prometheus scrapes them."""

    async def scrape():
        settings = TelemetrySettings(metrics_listen="127.0.0.1:0", log_level="error")
        async with Telemetry.open("sluice-test", settings, {}) as telemetry:
            for metric in Metric:
                is_gauge = metric in {Metric.BYTES_IN_FLIGHT, Metric.ROUTES_STALE}
                (gauge_add if is_gauge else count)(metric, 1)
            for measure in Measure:
                observe(measure, 1.0)
            with span(Stage.SEARCH_RERANK):
                pass
            with ServerSpan(SEARCH, {}) as rpc:
                rpc.code = "UNAVAILABLE"
            address = f"http://{telemetry.metrics_address}/metrics"
            return await asyncio.to_thread(lambda: urllib.request.urlopen(address).read().decode())

    found: dict[str, set[str]] = {}
    for name, labels in re.findall(
        r"^(sluice_\w+?)(?:\{(.*)\})? \S+$", asyncio.run(scrape()), re.MULTILINE
    ):
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


def expressions():
    return [*(rule["expr"] for rule in alerts()), as_prometheus(adapter_rule())]


def test_every_metric_in_a_rule_is_exported(exported):
    named = {name for expression in expressions() for name in METRIC.findall(expression)}
    own = {name for name in named if name.startswith("sluice_")}
    assert named - own == FOREIGN
    assert own <= exported.keys()
    assert {"sluice_requests_total", "sluice_routes_stale", "sluice_documents_total"} <= own


def test_every_label_in_a_rule_has_a_value_that_occurs(exported):
    stages = {stage.value for stage in Stage}
    known = {
        "code": CODES,
        "stage": stages,
        "method": METHODS,
        # tests of the ingestor show that dead letters are counted under this name
        "outcome": {"dead_letter"},
    }
    seen = set()
    for expression in expressions():
        for selector in re.findall(r"sluice_\w+\{([^}]*)\}", expression):
            for label, how, value in LABEL.findall(selector):
                if label not in known:
                    assert label in {"namespace", "pod"}
                    continue
                seen.add(label)
                values = value.split("|") if how == "=~" and label == "code" else [value]
                for one in values:
                    pattern = one if how == "=~" else re.escape(one)
                    assert any(re.fullmatch(pattern, other) for other in known[label]), one
    assert seen == known.keys()
    assert {"code", "method"} <= exported["sluice_requests_total"]
    assert "stage" in exported["sluice_stage_duration_seconds_count"]


def test_every_alert_says_what_to_do():
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    for rule in rules:
        assert rule["annotations"].keys() == {"summary", "action"}
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_autoscaler_asks_for_what_the_adapter_makes():
    scaler = only(render("outside-etcd"), "HorizontalPodAutoscaler")["spec"]
    [asked] = [one["pods"]["metric"]["name"] for one in scaler["metrics"] if one["type"] == "Pods"]
    rule = adapter_rule()
    assert asked == rule["name"]["as"]
    assert re.fullmatch(rule["name"]["matches"], "sluice_requests_total")


def test_the_pods_of_every_service_are_scraped():
    documents = render("outside-etcd")
    [job] = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["scrape_configs"]
    kept = {
        rule["source_labels"][0]: rule["regex"]
        for rule in job["relabel_configs"]
        if rule.get("action") == "keep"
    }
    part = kept["__meta_kubernetes_pod_label_app_kubernetes_io_part_of"]
    port = kept["__meta_kubernetes_pod_container_port_name"]
    scraped = {
        name
        for name, template in pod_templates(documents)
        if template["metadata"]["labels"]["app.kubernetes.io/part-of"] == part
        and port in {one["name"] for one in container(documents, name)["ports"]}
    }
    assert scraped == {"indexer", "query", "ingest"}
    components = set(re.findall(r'component="(\w+)"', " ".join(expressions())))
    assert components <= scraped


def test_the_rules_are_prometheus_own(tmp_path):
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    # Debian builds Prometheus without the discovery of pods.
    [job] = configuration["scrape_configs"]
    assert job.pop("kubernetes_sd_configs")[0]["role"] == "pod"
    (tmp_path / "prometheus/prometheus.yaml").write_text(json.dumps(configuration))
    promtool("check", "rules", "alerts.yaml", cwd=tmp_path / "prometheus")
    promtool("check", "config", "prometheus.yaml", cwd=tmp_path / "prometheus")


# What a broken installation exports in half an hour, and the alerts that it must raise.
WRONG = {
    'up{job="sluice",component="query",pod="query-a"}': "0x30",
    'sluice_routes_stale{namespace="sluice",pod="query-a"}': "1x30",
    'etcd_server_has_leader{pod="etcd-0"}': "0x30",
    f'sluice_requests_total{{method="{SEARCH}",code="OK"}}': "0+600x30",
    f'sluice_errors_total{{method="{SEARCH}",code="UNAVAILABLE"}}': "0+200x30",
    f'sluice_errors_total{{method="{SEARCH}",code="RESOURCE_EXHAUSTED"}}': "0+200x30",
    f'sluice_errors_total{{method="{SEARCH}",code="FAILED_PRECONDITION"}}': "0+10x30",
    f'sluice_rpc_duration_seconds_bucket{{method="{SEARCH}",le="1"}}': "0x30",
    f'sluice_rpc_duration_seconds_bucket{{method="{SEARCH}",le="2.5"}}': "0+600x30",
    f'sluice_rpc_duration_seconds_bucket{{method="{SEARCH}",le="+Inf"}}': "0+600x30",
    'sluice_stage_duration_seconds_count{stage="search.retrieve"}': "0+600x30",
    'sluice_stage_duration_seconds_count{stage="search.rerank"}': "0+300x30",
    'sluice_documents_total{namespace="sluice",pod="ingest-1",outcome="dead_letter"}': "_x9 2x3",
    'kube_job_status_failed{namespace="sluice",job_name="ingest-1"}': "1x30",
    'kube_cronjob_status_last_schedule_time{namespace="sluice",cronjob="ingest"}': "-100000x30",
}
# The same installation while all is well; a job that ended yesterday left dead letters.
WELL = {
    'up{job="sluice",component="query",pod="query-a"}': "1x30",
    'up{job="sluice",component="indexer",pod="indexer-a"}': "1x30",
    'sluice_routes_stale{namespace="sluice",pod="query-a"}': "0x30",
    'etcd_server_has_leader{pod="etcd-0"}': "1x30",
    f'sluice_requests_total{{method="{SEARCH}",code="OK"}}': "0+600x30",
    f'sluice_errors_total{{method="{SEARCH}",code="UNAVAILABLE"}}': "5x30",
    f'sluice_errors_total{{method="{SEARCH}",code="RESOURCE_EXHAUSTED"}}': "5x30",
    f'sluice_errors_total{{method="{SEARCH}",code="FAILED_PRECONDITION"}}': "5x30",
    f'sluice_rpc_duration_seconds_bucket{{method="{SEARCH}",le="0.25"}}': "0+600x30",
    f'sluice_rpc_duration_seconds_bucket{{method="{SEARCH}",le="+Inf"}}': "0+600x30",
    'sluice_stage_duration_seconds_count{stage="search.retrieve"}': "0+600x30",
    'sluice_stage_duration_seconds_count{stage="search.rerank"}': "0+600x30",
    'sluice_documents_total{namespace="sluice",pod="ingest-1",outcome="indexed"}': "0+60x30",
    'kube_job_status_failed{namespace="sluice",job_name="ingest-1"}': "0x30",
    'kube_cronjob_status_last_schedule_time{namespace="sluice",cronjob="ingest"}': "0x30",
}


@pytest.mark.parametrize(("series", "fires"), [(WRONG, 1), (WELL, 0)], ids=["wrong", "well"])
def test_every_alert_fires_on_what_it_is_for_and_only_then(series, fires, tmp_path):
    watched = {
        "rule_files": [str(PROMETHEUS / "alerts.yaml")],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{rule["alert"]}",alertstate="firing"}})',
                        "eval_time": "28m",
                        "exp_samples": [{"labels": "{}", "value": 1}] * fires,
                    }
                    for rule in alerts()
                ],
            }
        ],
    }
    written = tmp_path / "alerts-test.yaml"
    written.write_text(yaml.safe_dump(watched))
    promtool("test", "rules", written)


def test_the_autoscaler_counts_requests_and_no_probes(tmp_path):
    rule = tmp_path / "adapter.yaml"
    recorded = {"record": "asked", "expr": as_prometheus(adapter_rule())}
    rule.write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": [recorded]}]}))
    labels = 'namespace="sluice",pod="query-a",code="OK"'
    series = {
        f'sluice_requests_total{{{labels},method="{SEARCH}"}}': "0+3000x20",
        f'sluice_requests_total{{{labels},method="grpc.health.v1.Health/Check"}}': "0+600x20",
    }
    watched = {
        "rule_files": [str(rule)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": "asked",
                        "eval_time": "15m",
                        "exp_samples": [{"labels": 'asked{pod="query-a"}', "value": 50}],
                    }
                ],
            }
        ],
    }
    written = tmp_path / "adapter-test.yaml"
    written.write_text(yaml.safe_dump(watched))
    promtool("test", "rules", written)
