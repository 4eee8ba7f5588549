"""`sluice doctor` names each fault between this machine and HDFS, and its cure, within seconds.

The clusters and the KDC are real. The command itself runs once a kind of cluster; the other cases
ask the ingestor's part of it, whose probes are processes of their own all the same.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import hdfs_native
import pytest
import yaml

from common.doctor import Check
from ingestor.doctor.checks import checks
from ingestor.kerberos.files import read_cache

LONGEST_S = 60
FOREIGN = ("SLUICE_", "HADOOP_", "KRB5", "ARROW_", "CLASSPATH", "JAVA_HOME")


@pytest.fixture
def config(tmp_path):
    """A file of settings, and this machine's variables without those that lead to a cluster."""

    def write(state, hdfs, environ):
        ingest = {"hdfs": hdfs, "state_uri": state or str(tmp_path / "state")}
        file = tmp_path / "sluice.yaml"
        file.write_text(yaml.safe_dump({"ingest": ingest, "embedding": {"kind": "hashing"}}))
        own = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        return file, own | environ

    return write


@pytest.fixture
def doctor(config):
    """The findings of the command by name, with these settings and variables."""

    def run(environ, state=None, **hdfs):
        file, environ = config(state, hdfs, environ)
        done = subprocess.run(
            [sys.executable, "-m", "client", "doctor", "--config", str(file), "--json"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        assert done.returncode == 1, done.stderr  # no server runs
        found = {check["name"]: Check(**check) for check in json.loads(done.stdout)["checks"]}
        assert "ingest" not in found, found["ingest"]  # it did not stop halfway
        assert not found.pop("server").ok
        return found

    return run


@pytest.fixture
def look(config):
    """Likewise, of the ingestor's part of it alone, which takes less time."""

    def run(environ, state=None, **hdfs):
        file, environ = config(state, hdfs, environ)
        return {check.name: check for check in checks(file=file, environ=environ)}

    return run


@contextmanager
def bound_port(*, listening):
    """A port that refuses connections, or takes them and never says a word."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen(8)
        yield taken.getsockname()[1]


def faults(found):
    """What is wrong; each has a cure, and only these have one."""
    assert all(check.ok is not bool(check.cure) for check in found.values())
    return {name for name, check in found.items() if not check.ok}


def address(uri):
    return uri.removeprefix("hdfs://")


# --- Kerberos


@pytest.fixture
def keytab(kerberos_dfs):
    """Settings by which the ordinary user logs in; what is given takes another's place."""

    def settings(**other):
        given = {"principal": kerberos_dfs.principal, "keytab": str(kerberos_dfs.keytab)}
        return given | {"krb5_conf": str(kerberos_dfs.krb5_conf)} | other

    return settings


@pytest.fixture
def without_krb5(kerberos_dfs):
    """The variables of a cluster's client; krb5.conf comes from the settings."""
    return {"HADOOP_CONF_DIR": str(kerberos_dfs.conf_dir)}


def krb5_conf(cluster, folder, port):
    """The cluster's krb5.conf with another port of the KDC."""
    lines = cluster.krb5_conf.read_text().splitlines()
    changed = [f"kdc = 127.0.0.1:{port}" if "kdc = " in line else line for line in lines]
    path = folder / "krb5.conf"
    path.write_text("\n".join(changed))
    return str(path)


def made_keytab(path, principal):
    """A keytab of ktutil's making, with a key that no KDC knows."""
    words = f"add_entry -password -p {principal} -k 1 -e aes128-cts-hmac-sha1-96\nwrong\n"
    subprocess.run(
        [shutil.which("ktutil") or "ktutil"],
        input=f"{words}write_kt {path}\nquit\n",
        text=True,
        check=True,
        capture_output=True,
        timeout=10,
    )
    assert path.exists()
    return str(path)


def test_a_sound_kerberos_cluster_has_no_fault(doctor, kerberos_dfs, keytab, without_krb5):
    found = doctor(without_krb5, state=f"{kerberos_dfs.uri}/not-yet", kerberos=keytab())
    assert not faults(found)
    in_order = ["HDFS configuration", "Kerberos", f"name node {address(kerberos_dfs.uri)}"]
    in_order += ["HDFS root", "HDFS state"]
    assert [name for name in found if name in in_order] == in_order
    assert kerberos_dfs.principal in found["Kerberos"].detail
    assert found[in_order[2]].detail == "it is active"
    assert "not there yet" in found["HDFS state"].detail


def test_a_missing_keytab(look, keytab, without_krb5, tmp_path):
    found = look(without_krb5, kerberos=keytab(keytab=str(tmp_path / "no.keytab")))
    assert faults(found) == {"Kerberos"}
    assert found["Kerberos"].detail == f"the keytab {tmp_path}/no.keytab does not exist"
    assert "ingest.hdfs.kerberos.keytab" in found["Kerberos"].cure


def test_a_principal_that_is_not_in_the_keytab(look, kerberos_dfs, keytab, without_krb5):
    found = look(without_krb5, kerberos=keytab(principal="someone@EXAMPLE.COM"))
    assert faults(found) == {"Kerberos"}
    assert found["Kerberos"].detail == (
        f"the keytab {kerberos_dfs.keytab} has no key of someone@EXAMPLE.COM; "
        "it holds sluice@EXAMPLE.COM"
    )
    assert "ingest.hdfs.kerberos.principal" in found["Kerberos"].cure


def test_a_principal_that_the_kdc_does_not_know(look, keytab, without_krb5, tmp_path):
    theirs = made_keytab(tmp_path / "their.keytab", "someone@EXAMPLE.COM")
    settings = keytab(principal="someone@EXAMPLE.COM", keytab=theirs)
    found = look(without_krb5, kerberos=settings)
    assert faults(found) == {"Kerberos"}
    assert found["Kerberos"].detail == "the KDC knows no principal someone@EXAMPLE.COM"
    assert "ingest.hdfs.kerberos.principal" in found["Kerberos"].cure


def test_a_keytab_that_is_out_of_date(look, keytab, without_krb5, tmp_path):
    old = made_keytab(tmp_path / "old.keytab", "sluice@EXAMPLE.COM")
    found = look(without_krb5, kerberos=keytab(keytab=old))
    assert faults(found) == {"Kerberos"}
    assert "the keytab is out of date" in found["Kerberos"].detail
    assert "exported again" in found["Kerberos"].cure


def test_what_is_no_keytab(look, keytab, without_krb5, tmp_path):
    (tmp_path / "keytab").write_text("hello")
    found = look(without_krb5, kerberos=keytab(keytab=str(tmp_path / "keytab")))
    assert faults(found) == {"Kerberos"}
    assert found["Kerberos"].detail == f"{tmp_path}/keytab is no keytab: it does not begin like one"


def test_an_exposed_keytab_is_told_of(look, kerberos_dfs, keytab, without_krb5, tmp_path):
    exposed = tmp_path / "exposed.keytab"
    shutil.copy(kerberos_dfs.keytab, exposed)
    exposed.chmod(0o644)
    found = look(without_krb5, kerberos=keytab(keytab=str(exposed)))
    assert not faults(found)
    assert "any user may read this keytab: chmod 400 it" in found["Kerberos"].detail
    exposed.chmod(0o640)
    closed = look(without_krb5, kerberos=keytab(keytab=str(exposed)))
    assert "any user" not in closed["Kerberos"].detail


def test_a_kdc_that_refuses_connections(look, kerberos_dfs, keytab, without_krb5, tmp_path):
    with bound_port(listening=False) as port:
        conf = krb5_conf(kerberos_dfs, tmp_path, port)
        found = look(without_krb5, kerberos=keytab(krb5_conf=conf))
    assert faults(found) == {"Kerberos"}
    assert found["Kerberos"].detail == f"no KDC of the realm of {kerberos_dfs.principal} answers"
    assert conf in found["Kerberos"].cure
    node = found[f"name node {address(kerberos_dfs.uri)}"]
    assert node.detail == "it takes connections; its state was not asked"


def test_a_kdc_that_never_answers(look, kerberos_dfs, keytab, without_krb5, tmp_path, monkeypatch):
    monkeypatch.setattr("ingestor.doctor.kerberos_checks._TIMEOUT_S", 2)
    with bound_port(listening=True) as port:
        conf = krb5_conf(kerberos_dfs, tmp_path, port)
        started = time.monotonic()
        found = look(without_krb5, kerberos=keytab(krb5_conf=conf))
    assert time.monotonic() - started < 10
    assert faults(found) == {"Kerberos"}
    assert "answered within 2 s" in found["Kerberos"].detail
    assert conf in found["Kerberos"].cure


def test_a_realm_that_krb5_conf_does_not_know(look, keytab, without_krb5, tmp_path):
    theirs = made_keytab(tmp_path / "their.keytab", "sluice@ELSEWHERE.ORG")
    settings = keytab(principal="sluice@ELSEWHERE.ORG", keytab=theirs)
    found = look(without_krb5, kerberos=settings)
    assert faults(found) == {"Kerberos"}
    detail = "names no KDC of the realm of sluice@ELSEWHERE.ORG"
    assert found["Kerberos"].detail.endswith(detail)
    assert "[realms]" in found["Kerberos"].cure


def test_no_krb5_conf_and_no_kinit(look, keytab, without_krb5, tmp_path):
    found = look(without_krb5, kerberos=keytab(krb5_conf=str(tmp_path / "no.conf")))
    assert found["Kerberos"].detail == f"there is no krb5.conf to read at {tmp_path}/no.conf"
    assert "KRB5_CONFIG" in found["Kerberos"].cure
    found = look(without_krb5, kerberos=keytab(kinit=str(tmp_path / "kinit")))
    assert found["Kerberos"].detail == f"the program {tmp_path}/kinit is not there"
    assert "krb5-user" in found["Kerberos"].cure
    assert faults(found) == {"Kerberos"}


def test_a_ticket_of_ones_own_serves_until_it_expires(look, kerberos_dfs, tmp_path):
    cache = tmp_path / "cache"
    environ = kerberos_dfs.login(cache, lifetime_s=30)
    found = look(environ)
    assert not faults(found)
    assert kerberos_dfs.principal in found["Kerberos"].detail

    kerberos_dfs.login(cache, lifetime_s=1)
    ticket = read_cache(cache.read_bytes()).granting_ticket
    assert ticket is not None
    until = time.monotonic() + 10
    while time.time() <= ticket.end:
        assert time.monotonic() < until
        time.sleep(0.05)  # a ticket expires by the clock
    found = look(environ)
    assert faults(found) == {"Kerberos"}
    expired = f"the ticket of {kerberos_dfs.principal} in {cache} expired at "
    assert found["Kerberos"].detail.startswith(expired)
    assert "run kinit, or set ingest.hdfs.kerberos.principal" in found["Kerberos"].cure
    # klist tells of caches that are no files of a known name, and says the same of this one
    default = {"KRB5CCNAME": f"DIR::{tmp_path}/tktown"}
    shutil.copy(cache, tmp_path / "tktown")
    found = look(environ | default)
    assert faults(found) == {"Kerberos"}
    detail = f"the ticket of {kerberos_dfs.principal} in DIR::{tmp_path}/tktown has expired"
    assert found["Kerberos"].detail == detail


@pytest.mark.parametrize("cache", ["FILE:{}/none", "{}/none", "DIR:{}"])
def test_no_ticket_at_all(look, kerberos_dfs, tmp_path, cache):
    found = look(kerberos_dfs.environ | {"KRB5CCNAME": cache.format(tmp_path)})
    assert faults(found) == {"Kerberos"}
    assert found["Kerberos"].detail.startswith("there is no ticket: ")
    assert str(tmp_path) in found["Kerberos"].detail
    assert "run kinit" in found["Kerberos"].cure


def test_a_client_that_does_not_know_that_the_cluster_wants_kerberos(look, kerberos_dfs):
    simple = {"hadoop.security.authentication": "simple"}
    found = look(kerberos_dfs.environ | {"KRB5CCNAME": "FILE:/nowhere"}, options=simple)
    node = f"name node {address(kerberos_dfs.uri)}"
    assert faults(found) == {node}
    assert found[node].detail.startswith("it gives an error: ")
    assert "hadoop.security.authentication" in found[node].cure


# --- a nameservice of two name nodes


def name_nodes(cluster):
    """Addresses, the active one first."""
    text = (cluster.conf_dir / "hdfs-site.xml").read_text()
    found = [part.split("<")[0] for part in text.split("<value>") if part.startswith("127.0.0.1:")]
    assert len(found) == 2
    return found if cluster.command("active") == "0" else found[::-1]


def test_active_and_standby_are_told_apart(look, ha_dfs):
    active, standby = name_nodes(ha_dfs)
    found = look(ha_dfs.environ)
    assert not faults(found)
    assert found["HDFS nameservice"].detail == "minicluster has nn0, nn1"
    assert found[f"name node {active}"].detail.endswith("of minicluster is active")
    assert found[f"name node {standby}"].detail.endswith("of minicluster is a standby")
    assert found["HDFS root"].detail == "hdfs://minicluster/ can be listed"


def test_a_standby_that_is_named_alone(look, ha_dfs):
    _, standby = name_nodes(ha_dfs)
    found = look(ha_dfs.environ, options={"fs.defaultFS": f"hdfs://{standby}"})
    assert faults(found) == {f"name node {standby}"}
    fault = found[f"name node {standby}"]
    assert fault.detail == "it is a standby, which serves no files"
    assert "name the nameservice" in fault.cure


def test_a_wrong_nameservice(doctor, ha_dfs):
    found = doctor(ha_dfs.environ, state="hdfs://analytics/sluice")
    assert faults(found) == {"HDFS nameservice"}
    assert found["HDFS nameservice"].detail == (
        "ingest.state_uri names analytics, which is no nameservice of "
        f"{ha_dfs.conf_dir} (it has minicluster) and no host that this machine knows"
    )
    cure = found["HDFS nameservice"].cure
    assert cure.startswith("write minicluster or HOST:PORT of a name node in ingest.state_uri")
    assert found["HDFS root"].ok  # the other one is looked at all the same


def test_a_nameservice_without_an_active_name_node(look, ha_dfs):
    active, standby = name_nodes(ha_dfs)
    index = ha_dfs.command("active")
    ha_dfs.command("kill-namenode", index)
    try:
        found = look(ha_dfs.environ)
    finally:
        ha_dfs.command("restart-namenode", index)
        ha_dfs.command("failover")
    assert faults(found) == {f"name node {active}", "HDFS nameservice"}
    assert "does not answer: Connection refused" in found[f"name node {active}"].detail
    assert "hdfs-site.xml" in found[f"name node {active}"].cure
    assert found[f"name node {standby}"].detail.endswith("is a standby")
    assert found["HDFS nameservice"].detail == "no name node of minicluster is active"
    assert "hdfs haadmin" in found["HDFS nameservice"].cure


# --- one name node


def test_a_name_node_that_refuses_connections(look, dfs):
    with bound_port(listening=False) as port:
        found = look(dfs.environ, state=f"hdfs://127.0.0.1:{port}/sluice")
    assert faults(found) == {f"name node 127.0.0.1:{port}"}
    fault = found[f"name node 127.0.0.1:{port}"]
    assert fault.detail == "it does not answer: Connection refused"
    assert fault.cure.startswith("start it, open this port")
    assert found["HDFS root"].ok  # the other one is looked at all the same


def test_a_name_node_that_never_answers(look, dfs, monkeypatch):
    monkeypatch.setattr("ingestor.doctor.hdfs_probe._PROBE_TIMEOUT_S", 4)
    with bound_port(listening=True) as port:
        started = time.monotonic()
        found = look(dfs.environ, state=f"hdfs://127.0.0.1:{port}/sluice")
    assert time.monotonic() - started < 10
    assert faults(found) == {f"name node 127.0.0.1:{port}"}
    fault = found[f"name node 127.0.0.1:{port}"]
    assert fault.detail == "it takes connections and gives no answer within 4 s"
    assert fault.cure.startswith("look at its log")


def test_a_folder_that_this_user_may_not_list(doctor, look, dfs):
    hdfs_native.Client(dfs.uri).mkdirs("/closed-to-alice")
    dfs.command("chmod", "700", "/closed-to-alice")
    dfs.command("chown", "hdfs", "supergroup", "/closed-to-alice")
    state = f"{dfs.uri}/closed-to-alice"
    found = doctor(dfs.environ | {"HADOOP_USER_NAME": "alice"}, state=state)
    assert faults(found) == {"HDFS state"}
    detail = found["HDFS state"].detail
    assert detail.startswith(f"{state}: Permission denied: user=alice, access=READ_EXECUTE")
    cure = "let alice in: `hdfs dfs -setfacl -m user:alice:rwx /closed-to-alice`"
    assert found["HDFS state"].cure.startswith(cure)
    assert not faults(look(dfs.environ | {"HADOOP_USER_NAME": "hdfs"}, state=state))


def test_a_host_that_nobody_knows(look, dfs):
    found = look(dfs.environ, state="hdfs://no-such-host.invalid:8020/sluice")
    assert faults(found) == {"name node no-such-host.invalid:8020"}
    fault = found["name node no-such-host.invalid:8020"]
    assert "Name or service not known" in fault.detail
    assert "the URI that names it" in fault.cure


# --- files and programs of this machine


def test_configuration_that_is_not_there(look, tmp_path):
    found = look({"HADOOP_CONF_DIR": str(tmp_path)})
    assert faults(found) == {"HDFS configuration"}
    detail = f"{tmp_path} has neither core-site.xml nor hdfs-site.xml"
    assert found["HDFS configuration"].detail == detail
    assert "HADOOP_CONF_DIR" in found["HDFS configuration"].cure

    found = look({"HADOOP_CONF_DIR": str(tmp_path / "none")})
    assert faults(found) == {"HDFS configuration"}
    assert str(tmp_path / "none") in found["HDFS configuration"].detail

    (tmp_path / "core-site.xml").write_text("<configuration><property>")
    found = look({"HADOOP_CONF_DIR": str(tmp_path)})
    assert faults(found) == {"HDFS configuration"}
    assert f"{tmp_path}/core-site.xml cannot be read" in found["HDFS configuration"].detail


def test_a_name_node_without_an_address(look):
    options = {"fs.defaultFS": "hdfs://lake", "dfs.ha.namenodes.lake": "a,b"}
    options["dfs.namenode.rpc-address.lake.a"] = "127.0.0.1:1"
    found = look({}, options=options)
    assert faults(found) == {"HDFS nameservice"}
    detail = "dfs.namenode.rpc-address.lake.b is not set: there is no host and port"
    assert found["HDFS nameservice"].detail == detail


def test_libhdfs_that_is_not_there(look, tmp_path):
    found = look({"ARROW_LIBHDFS_DIR": str(tmp_path)}, client="libhdfs")
    assert faults(found) == {"HDFS client"}
    assert found["HDFS client"].detail.startswith("libhdfs: Unable to load lib")
    assert "CLASSPATH" in found["HDFS client"].cure


def test_a_client_that_takes_its_process_with_it(look, tmp_path):
    """As libhdfs does with a wrong class path."""
    (tmp_path / "crash.c").write_text(
        "#include <stdlib.h>\n__attribute__((constructor)) void die(void) { abort(); }\n"
    )
    library = tmp_path / "libhdfs.so"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*compiler, str(tmp_path / "crash.c")], check=True, timeout=60)
    java = Path(shutil.which("java") or "java").resolve()
    environ = {"ARROW_LIBHDFS_DIR": str(tmp_path), "JAVA_HOME": str(java.parents[1])}
    found = look(environ, client="libhdfs")
    assert faults(found) == {"HDFS client"}
    assert found["HDFS client"].detail == "libhdfs: libhdfs ended its process (status -6)"
    assert "CLASSPATH" in found["HDFS client"].cure
