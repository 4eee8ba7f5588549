"""Every overlay is what Kubernetes takes, and what the services really are."""

import importlib
import itertools
import shutil
import tomllib

import pytest
import yaml

from client import cli
from client.settings import ClientConfig
from common.config import PREFIX, load
from common.discovery import Target
from common.embedding.settings import EmbeddingSettings
from common.rpc.server import LAME_DUCK_S
from common.telemetry.telemetry import FLUSH_S
from indexer.serve import INDEX_SERVICE, IndexerConfig
from ingestor.flags import WITH_DEAD_LETTERS
from ingestor.settings import IngestorConfig
from query.serve import QueryConfig
from query.service import SERVICE as QUERY_SERVICE
from tests.unit.deploy.command_line import parsed
from tests.unit.deploy.rendering import (
    DEPLOY,
    OVERLAYS,
    container,
    missing,
    only,
    pod_templates,
    render,
    rendered_folder,
)

KUBERNETES = ("1.30", "1.37")  # the oldest that has all that is used, and the newest in the wheel
USER = 10001
MIB = 2**20
SERVERS = {
    "indexer": (IndexerConfig, INDEX_SERVICE),
    "query": (QueryConfig, QUERY_SERVICE),
}
# docs/MEASUREMENTS.md: what the job's process may take beside its workers.
JOB_BYTES = 600_000_000
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
every_server = pytest.mark.parametrize("server", SERVERS)


def schemas():
    try:
        return importlib.import_module("kubernetes_validate")
    except ModuleNotFoundError:
        return missing("kubernetes-validate is not installed: pip install kubernetes-validate")


def file_of(documents, name):
    """The ConfigMap that a workload's volumes or environment name, once kustomize named it."""
    [found] = [
        document["data"]
        for document in documents
        if document["kind"] == "ConfigMap" and document["metadata"]["name"] == name
    ]
    return found


def settings_of(documents, workload, model, folder):
    """What a workload's process reads: the mounted file and its environment, by the real loader."""
    template = dict(pod_templates(documents))[workload]["spec"]
    one = container(documents, workload)
    mounted = next(v for v in template["volumes"] if v["name"] == "configuration")
    written = folder / "sluice.yaml"
    written.write_text(file_of(documents, mounted["configMap"]["name"])["sluice.yaml"])
    [mount] = [m["mountPath"] for m in one["volumeMounts"] if m["name"] == "configuration"]
    args = one["args"]
    assert args[args.index("--config") + 1] == f"{mount}/sluice.yaml"
    [reference] = one["envFrom"]
    environ = dict(file_of(documents, reference["configMapRef"]["name"]))
    for variable in one.get("env", []):
        what = variable["valueFrom"]["resourceFieldRef"]["resource"]
        assert what == "requests.cpu"
        environ[variable["name"]] = one["resources"]["requests"]["cpu"]
    assert all(name.startswith(PREFIX) for name in environ)
    return load(model, file=written, environ=environ)


def bytes_of(quantity):
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def matches(selector, labels):
    """Whether a label selector of Kubernetes takes these labels."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


def let_through(documents, source, target, port):
    """Whether the policies let pods of one workload reach a port of another's."""
    labels = {name: made["metadata"]["labels"] for name, made in pod_templates(documents)}
    names = {one["containerPort"]: one["name"] for one in container(documents, target)["ports"]}

    def allows(policy, direction, side, own, peer):
        return matches(policy["spec"]["podSelector"], labels[own]) and any(
            any(one["port"] in {port, names[port]} for one in rule["ports"])
            and (
                side not in rule
                or any(
                    "podSelector" in other and matches(other["podSelector"], labels[peer])
                    for other in rule[side]
                )
            )
            for rule in policy["spec"].get(direction, [])
        )

    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    goes = any(allows(one, "egress", "to", source, target) for one in policies)
    comes = any(allows(one, "ingress", "from", target, source) for one in policies)
    return goes and comes


def test_there_are_overlays_for_etcd_outside_and_inside():
    assert {"outside-etcd", "small-etcd", "secured"} <= set(OVERLAYS)


@every_overlay
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_document_follows_the_schema_of_kubernetes(overlay, version):
    checker = schemas()
    documents = render(overlay)
    assert len(documents) > 15
    for document in documents:
        checker.validate(document, version, strict=True)


def test_a_key_that_kubernetes_does_not_know_is_found(tmp_path):
    checker = schemas()
    copy = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", copy)
    manifest = copy / "base/query.yaml"
    written = manifest.read_text()
    manifest.write_text(written.replace("periodSeconds: 20", "periodSecond: 20"))
    assert manifest.read_text() != written
    broken = only(rendered_folder(copy / "overlays/outside-etcd"), "Deployment", "query")
    with pytest.raises(checker.ValidationError, match="periodSecond"):
        checker.validate(broken, KUBERNETES[0], strict=True)


@every_overlay
@every_server
def test_a_server_listens_where_its_pod_says(overlay, server, tmp_path):
    documents = render(overlay)
    model, _ = SERVERS[server]
    settings = settings_of(documents, server, model, tmp_path)
    ports = {one["name"]: one["containerPort"] for one in container(documents, server)["ports"]}
    own = getattr(settings, server)
    assert own.server.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.telemetry.metrics_listen == f"0.0.0.0:{ports['metrics']}"
    service = only(documents, "Service", server)["spec"]
    assert service["clusterIP"] == "None"
    assert [(one["port"], one["targetPort"]) for one in service["ports"]] == [
        (ports["grpc"], "grpc")
    ]
    context = parsed(container(documents, server)["args"])
    assert context.command_path == f"sluice serve {server}"
    cores = int(container(documents, server)["resources"]["requests"]["cpu"])
    assert settings.embedding.threads == cores != EmbeddingSettings().threads


@every_overlay
@every_server
def test_the_probes_ask_for_services_that_the_server_has(overlay, server, tmp_path):
    documents = render(overlay)
    model, name = SERVERS[server]
    settings = getattr(settings_of(documents, server, model, tmp_path), server)
    one = container(documents, server)
    port = int(settings.server.listen.rpartition(":")[2])
    for probe, asked in (("startupProbe", name), ("readinessProbe", name), ("livenessProbe", "")):
        if settings.server.tls_certificate is None:
            assert one[probe]["grpc"]["port"] == port
            assert one[probe]["grpc"].get("service", "") == asked
            continue
        # The kubelet speaks no TLS.
        assert "grpc" not in one[probe]
        program, *arguments = one[probe]["exec"]["command"]
        assert [program] == one["command"]
        context = parsed(arguments)
        assert context.command_path == "sluice health"
        assert context.params["target"] == f"127.0.0.1:{port}"
        assert context.params["service"] == asked
        assert one[probe]["timeoutSeconds"] > context.params["timeout_s"]


@every_overlay
@every_server
def test_a_server_has_time_to_drain(overlay, server, tmp_path):
    documents = render(overlay)
    model, _ = SERVERS[server]
    settings = getattr(settings_of(documents, server, model, tmp_path), server)
    template = dict(pod_templates(documents))[server]["spec"]
    waits_s = container(documents, server)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = waits_s + LAME_DUCK_S + settings.server.drain_s + FLUSH_S
    assert template["terminationGracePeriodSeconds"] > needed_s


@every_overlay
def test_a_query_servers_caches_fit_into_its_memory(overlay, tmp_path):
    documents = render(overlay)
    settings = settings_of(documents, "query", QueryConfig, tmp_path).query
    limit = bytes_of(container(documents, "query")["resources"]["limits"]["memory"])
    caches = settings.rerank.term_store_bytes + settings.chunk_cache_bytes
    assert caches + settings.word_statistics_bytes + 512 * MIB <= limit


@every_overlay
def test_the_job_ends_in_time_and_fits_into_its_memory(overlay, tmp_path):
    documents = render(overlay)
    settings = settings_of(documents, "ingest", IngestorConfig, tmp_path).ingest
    template = dict(pod_templates(documents))["ingest"]["spec"]
    assert template["terminationGracePeriodSeconds"] > settings.stop_timeout_s + FLUSH_S
    limit = bytes_of(container(documents, "ingest")["resources"]["limits"]["memory"])
    workers = settings.extraction.workers * settings.extraction.worker_memory_bytes
    assert JOB_BYTES + workers <= limit
    [conf_dir] = [
        one["mountPath"]
        for one in container(documents, "ingest")["volumeMounts"]
        if one["name"] == "hadoop"
    ]
    assert str(settings.hdfs.conf_dir) == conf_dir
    assert settings.state_uri
    assert not settings.state_uri.startswith("file:")


@every_overlay
def test_the_job_is_not_repeated_where_that_changes_nothing(overlay):
    documents = render(overlay)
    job = only(documents, "CronJob")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    context = parsed(container(documents, "ingest")["args"])
    assert context.command_path == "sluice ingest"
    rules = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    [ends] = [one["onExitCodes"] for one in rules if one["action"] == "FailJob"]
    assert ends["containerName"] == container(documents, "ingest")["name"]
    assert ends["values"] == [cli.WRONG_USAGE, WITH_DEAD_LETTERS]
    assert cli.FAILED not in ends["values"]
    assert job["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@every_overlay
def test_clients_find_the_servers_where_these_announce_themselves(overlay, tmp_path):
    documents = render(overlay)
    clients = settings_of(documents, "ingest", ClientConfig, tmp_path).client
    for server, (model, _) in SERVERS.items():
        announced = settings_of(documents, server, model, tmp_path).coordinator
        target = Target.parse(clients.target if server == "indexer" else clients.queries)
        assert target.service == server
        assert target.prefix() == announced.prefix
        assert announced.kind == "etcd"
        assert len(announced.endpoints) == 3


@every_overlay
def test_the_stores_are_where_the_settings_say(overlay, tmp_path):
    documents = render(overlay)
    settings = settings_of(documents, "query", QueryConfig, tmp_path)
    service = only(documents, "Service", settings.chroma.host)
    assert [one["port"] for one in service["spec"]["ports"]] == [settings.chroma.port]
    arguments = container(documents, "chroma")["args"]
    assert arguments[arguments.index("--port") + 1] == str(settings.chroma.port)
    # Files of Chroma belong to one process.
    assert only(documents, "StatefulSet", "chroma")["spec"]["replicas"] == 1


def test_the_small_etcd_is_the_one_that_the_services_ask(tmp_path):
    documents = render("small-etcd")
    asked = settings_of(documents, "query", QueryConfig, tmp_path).coordinator.endpoints
    members = only(documents, "StatefulSet", "etcd")["spec"]
    service = only(documents, "Service", members["serviceName"])
    assert service["spec"]["publishNotReadyAddresses"]
    hosts = [f"etcd-{number}.{members['serviceName']}" for number in range(members["replicas"])]
    assert list(asked) == [f"{host}:2379" for host in hosts]
    flags = dict(one.split("=", 1) for one in container(documents, "etcd")["args"])
    cluster = dict(one.split("=", 1) for one in flags["--initial-cluster"].split(","))
    assert cluster == {host.partition(".")[0]: f"http://{host}:2380" for host in hosts}


@every_overlay
def test_everything_that_must_be_reached_is_let_through_and_nothing_else(overlay):
    documents = render(overlay)
    denied = only(documents, "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached = {
        ("ingest", "indexer", 50051),
        ("indexer", "query", 50052),
        ("indexer", "chroma", 8000),
        ("query", "chroma", 8000),
    }
    ports = {"indexer": [50051], "query": [50052], "chroma": [8000], "ingest": []}
    if overlay == "small-etcd":
        ports["etcd"] = [2379, 2380]
        reached |= {(one, "etcd", 2379) for one in ("ingest", "indexer", "query")}
        reached |= {("etcd", "etcd", 2380)}
    found = {
        (source, target, port)
        for source, target in itertools.product(ports, ports)
        for port in ports[target]
        if let_through(documents, source, target, port)
    }
    assert found == reached


@every_overlay
def test_no_pod_has_more_rights_than_it_needs(overlay):
    documents = render(overlay)
    namespace = only(documents, "Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, template in pod_templates(documents):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        # Variables of services may begin with SLUICE_, and the settings would refuse them.
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == USER
        assert spec["securityContext"]["fsGroup"] == USER
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [one] = spec["containers"]
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}
        assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]
        assert "/data" in {mount["mountPath"] for mount in one["volumeMounts"]}
        for volume in spec.get("volumes", ()):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440


@every_overlay
def test_what_selects_pods_finds_those_of_its_name(overlay):
    documents = render(overlay)
    labels = {name: made["metadata"]["labels"] for name, made in pod_templates(documents)}
    for document in documents:
        if document["kind"] not in {"Service", "PodDisruptionBudget"}:
            continue
        selector = document["spec"]["selector"]
        if document["kind"] == "Service":
            selector = {"matchLabels": selector}
        found = [name for name, own in labels.items() if matches(selector, own)]
        assert found == [document["metadata"]["name"]]
    for own in labels.values():
        assert own["app.kubernetes.io/part-of"] == "sluice"
    scaled = only(documents, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
    assert "replicas" not in only(documents, "Deployment", scaled)["spec"]


@every_overlay
def test_images_bear_the_version_of_the_project(overlay):
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    own = [
        one["image"]
        for _, template in pod_templates(render(overlay))
        for one in template["spec"]["containers"]
        if "sluice" in one["image"]
    ]
    assert len(own) == 4
    for image in own:
        name, _, tag = image.rpartition(":")
        assert name in {f"localhost/sluice-{kind}" for kind in ("ingestor", "indexer", "query")}
        assert tag == project["version"]


def test_the_secured_overlay_names_only_files_that_are_mounted(tmp_path):
    documents = render("secured")
    for workload, model in (
        *((name, model) for name, (model, _) in SERVERS.items()),
        ("ingest", IngestorConfig),
    ):
        settings = settings_of(documents, workload, model, tmp_path)
        mounts = {one["mountPath"] for one in container(documents, workload)["volumeMounts"]}
        dumped = yaml.safe_dump(settings.model_dump(mode="json"))
        if workload != "ingest":
            read = getattr(settings, workload).server
            assert read.tls_key
            assert read.tls_client_ca
        else:
            assert settings.client.channel.tls_certificate
            assert settings.client.channel.tls_server_name
            assert settings.ingest.hdfs.kerberos.keytab
        assert settings.coordinator.cert_file
        # One environment serves all, so only of its own sections are files needed.
        files = {line.split()[-1] for line in dumped.splitlines() if "/run/secrets/" in line}
        assert files
        assert {one.rpartition("/")[0] for one in files} <= mounts
