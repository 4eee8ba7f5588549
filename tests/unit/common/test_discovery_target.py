"""What may be written as a target, and what is said of everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from common.config import load
from common.connection import ConnectionSettings
from common.coordination import CoordinatorSettings
from common.discovery import Target
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:50051", "[::1]:50051", "etcd:2379", "dns:///query.sluice:50052", "unix:/run/s"],
)
def test_what_grpc_names_is_left_to_grpc(text: str):
    assert Target.parse(text) == Target(text)
    assert not Target.parse(text).is_announced
    assert Target.parse(text).of_service("query") == Target(text)


def test_an_etcd_target_names_installation_service_and_maybe_endpoints():
    assert Target.parse("etcd:///sluice/query") == Target(
        "etcd:///sluice/query", "sluice", "query", ()
    )
    found = Target.parse("etcd://one:2379,[::1]:2380/team/a/indexer")
    assert (found.installation, found.service) == ("team/a", "indexer")
    assert found.endpoints == ("one:2379", "[::1]:2380")
    assert found.of_service("query") == Target.parse("etcd://one:2379,[::1]:2380/team/a/query")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("etcd:/sluice/query", "etcd:///INSTALLATION/SERVICE"),
        ("etcd:///", "names no installation"),
        ("etcd:///query", "names no installation"),
        ("etcd:////query", "names no installation"),
        ("etcd:///../x y/query", "names no installation"),
        ("etcd:///sluice/", "ends with the name of a service"),
        ("etcd:///sluice/Query", "ends with the name of a service"),
        ("etcd://one/sluice/query", "endpoints of etcd, HOST:PORT each"),
        ("etcd://one:2379,/sluice/query", "endpoints of etcd, HOST:PORT each"),
        ("etcd://one:65536/sluice/query", "endpoints of etcd, HOST:PORT each"),
        (f"etcd://{','.join(['a:1'] * 17)}/sluice/query", "name 1 to 16 endpoints"),
        ("https://sluice.example:443", "https:// cannot be used here; write HOST:PORT"),
    ],
)
def test_what_is_no_target_is_refused_with_what_to_write(text: str, message: str):
    with pytest.raises(ConfigurationError, match=message) as caught:
        Target.parse(text)
    assert text in caught.value.message


def test_a_password_in_a_target_is_refused_and_not_repeated():
    with pytest.raises(ConfigurationError, match=r"set coordinator\.user") as caught:
        Target.parse("etcd://root:secret@one:2379/sluice/query")
    assert "secret" not in caught.value.message


def test_the_settings_say_where_etcd_is_unless_the_target_does(tmp_path: Path):
    settings = CoordinatorSettings(
        endpoints=("a:1",), ca_file=tmp_path, user="me", password_file=tmp_path
    )
    found = Target.parse("etcd:///acme/query").coordinator(settings)
    assert (found.kind, found.endpoints, found.prefix) == ("etcd", ("a:1",), "/acme/v1")
    assert (found.ca_file, found.user, found.password_file) == (tmp_path, "me", tmp_path)
    assert Target.parse("etcd://b:2/acme/query").coordinator(settings).endpoints == ("b:2",)


def test_an_installation_whose_prefix_has_no_version_is_named_where_the_settings_say_so():
    settings = CoordinatorSettings(prefix="/acme")
    assert Target.parse("etcd:///acme/query").coordinator(settings).prefix == "/acme"
    assert Target.parse("etcd:///other/query").coordinator(settings).prefix == "/other/v1"


def test_a_wrong_target_in_the_settings_is_named_by_its_key():
    class Config(ConnectionSettings):
        client: ConnectionSettings = ConnectionSettings()

    environ = {"SLUICE_CLIENT__QUERY_TARGET": "etcd:///query"}
    with pytest.raises(ConfigurationError, match=r"^client\.query_target: etcd:///query: names no"):
        load(Config, file=None, environ=environ)


def test_queries_of_an_etcd_target_go_to_the_query_servers():
    assert ConnectionSettings(target="etcd:///acme/indexer").queries == "etcd:///acme/query"
    assert ConnectionSettings(target="a:1").queries == "a:1"
    assert ConnectionSettings(target="a:1", query_target="b:2").queries == "b:2"
