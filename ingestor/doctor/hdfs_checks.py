"""What ``sluice doctor`` finds out about HDFS, in the order in which a job would meet it.

Configuration files, nameservice, Kerberos, each name node, the folders that a job needs. It looks
at the default file system of the cluster's configuration and at ``ingest.state_uri``; what a fault
keeps from being looked at is not mentioned. Every call is made in a process of its own and has a
bound of some seconds; nothing is written to HDFS.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from common.doctor import Check
from common.errors import ConfigurationError
from ingestor.doctor.hdfs_probe import Finding, Outcome, Probe, run
from ingestor.doctor.kerberos_checks import log_in_with_keytab, own_ticket
from ingestor.storage.hadoop_configuration import (
    NAME_NODE_PORT,
    NAME_NODES_OF,
    configuration,
    with_port,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ingestor.settings import HdfsSettings, IngestSettings

_AUTHENTICATION = "hadoop.security.authentication"
_DEFAULT = "fs.defaultFS"
_FILES = ("core-site.xml", "hdfs-site.xml")
_MAX_PORT = 2**16 - 1
_DENIED = re.compile(r'user=(?P<user>[^,]+), access=(?P<access>\w+), inode="(?P<path>[^"]*)"')
_NO_LIBHDFS = (
    "set JAVA_HOME, HADOOP_HOME or ARROW_LIBHDFS_DIR, and CLASSPATH to the output of "
    "`hadoop classpath --glob`; or set ingest.hdfs.client to native"
)
# A name node that refuses who asks, or what, is an active one: a standby refuses before it looks.
_SERVING = {Outcome.WORKS, Outcome.DENIED, Outcome.MISSING}


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to list, and the setting that names it."""

    name: str
    authority: str
    path: str
    setting: str
    access: str


@dataclass(frozen=True, slots=True)
class _NameNode:
    """One of a nameservice, or one that a URI names by itself (without ``service``)."""

    address: str
    id: str = ""
    service: str = ""

    @property
    def title(self) -> str:
        return f"{self.id} of {self.service}" if self.service else "it"

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """None if the address is none."""
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > _MAX_PORT:
            return None
        return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class _Caller:
    """Makes probes, all of one kind at the same time; without ``may_call`` it only connects."""

    client: str
    settings: HdfsSettings
    environ: Mapping[str, str]
    may_call: bool

    def ask(self, nodes: Sequence[_NameNode]) -> list[Finding]:
        """Connect to name nodes and call them, each directly."""
        path = "/" if self.may_call else None
        return self._run([self.probe(node.address, node.host_and_port, path) for node in nodes])

    def look_into(self, folders: Sequence[_Folder]) -> list[Finding]:
        """List folders as a job would, through the nameservice."""
        return self._run([self.probe(folder.authority, None, folder.path) for folder in folders])

    def probe(self, authority: str, connect: tuple[str, int] | None, path: str | None) -> Probe:
        """A probe with what the settings say of clients."""
        folder = self.settings.conf_dir
        conf_dir = None if folder is None else str(folder)
        return Probe(self.client, authority, connect, path, conf_dir, dict(self.settings.options))

    def _run(self, probes: Sequence[Probe]) -> list[Finding]:
        async def gather() -> list[Finding]:
            return await asyncio.gather(*(run(probe, self.environ) for probe in probes))

        return asyncio.run(gather())


def hdfs_checks(settings: IngestSettings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Look at everything between this machine and a folder in HDFS, as far as it is configured."""
    hdfs = _with_folder(settings.hdfs, environ)
    client = _client(hdfs, environ)
    yield client[0]
    in_hdfs = urlsplit(settings.state_uri or "").scheme == "hdfs"
    if not (hdfs.conf_dir or hdfs.options or hdfs.kerberos or in_hdfs):
        return
    try:
        values = configuration(hdfs)
    except ConfigurationError as error:
        cure = "correct it, or set ingest.hdfs.conf_dir or HADOOP_CONF_DIR to another folder"
        yield Check("HDFS configuration", ok=False, detail=error.message, cure=cure)
        return
    yield _files(hdfs, values)
    folders = _folders(settings, values)
    nodes: dict[str, tuple[_NameNode, ...]] = {}
    for folder in folders:
        if folder.authority not in nodes:
            check, nodes[folder.authority] = _nameservice(folder, hdfs, values, client[1])
            if check is not None:
                yield check
    with tempfile.TemporaryDirectory(prefix="sluice-doctor-") as scratch:
        ticket, added = _ticket(hdfs, values, environ, Path(scratch))
        if ticket is not None:
            yield ticket
        may_call = bool(client[1]) and (ticket is None or ticket.ok)
        caller = _Caller(client[1], hdfs, {**environ, **added}, may_call)
        serving = set()
        for authority, of_service in nodes.items():
            findings = caller.ask(of_service)
            yield from _name_nodes(authority, of_service, findings, may_call=may_call)
            if any(finding.outcome in _SERVING for finding in findings):
                serving.add(authority)
        listed = [folder for folder in folders if may_call and folder.authority in serving]
        for folder, finding in zip(listed, caller.look_into(listed), strict=True):
            yield _listing(folder, finding)


def _with_folder(settings: HdfsSettings, environ: Mapping[str, str]) -> HdfsSettings:
    """With the folder of configuration files that a client would take."""
    if settings.conf_dir is not None:
        return settings
    if folder := environ.get("HADOOP_CONF_DIR"):
        return settings.model_copy(update={"conf_dir": Path(folder)})
    home = Path(environ.get("HADOOP_HOME") or "/nowhere", "etc", "hadoop")
    return settings.model_copy(update={"conf_dir": home}) if home.is_dir() else settings


def _client(settings: HdfsSettings, environ: Mapping[str, str]) -> tuple[Check, str]:
    """Which client a job takes, "" if it cannot have it."""
    name = "HDFS client"
    missing = find_spec("hdfs_native") is None
    install = "install sluice[ingestor]"
    if settings.client == "native" and missing:
        return Check(name, ok=False, detail="hdfs-native is not installed", cure=install), ""
    if settings.client != "libhdfs" and not missing:
        return Check(name, ok=True, detail="hdfs-native is installed"), "native"
    probe = _Caller("libhdfs", settings, environ, may_call=True).probe("", None, "/")
    found = asyncio.run(run(probe, environ))
    if found.outcome is not Outcome.NO_CLIENT:
        return Check(name, ok=True, detail="libhdfs loads"), "libhdfs"
    if settings.client == "auto":
        detail = f"hdfs-native is not installed, and there is no libhdfs: {found.text}"
        return Check(name, ok=False, detail=detail, cure=install), ""
    return Check(name, ok=False, detail=f"libhdfs: {found.text}", cure=_NO_LIBHDFS), ""


def _files(settings: HdfsSettings, values: Mapping[str, str]) -> Check:
    name = "HDFS configuration"
    folder = settings.conf_dir
    cure = "put the cluster's client configuration there, or set ingest.hdfs.conf_dir or "
    cure += "HADOOP_CONF_DIR to where it is"
    if folder is None:
        detail = "no files: neither ingest.hdfs.conf_dir nor HADOOP_CONF_DIR names a folder"
        return Check(name, ok=True, detail=detail)
    if not any((folder / file).exists() for file in _FILES):
        detail = f"{folder} has neither {' nor '.join(_FILES)}"
        return Check(name, ok=False, detail=detail, cure=cure)
    if not values.get(_DEFAULT):
        return Check(name, ok=True, detail=f"{folder}, without {_DEFAULT}")
    return Check(name, ok=True, detail=f"{folder}, {_DEFAULT} is {values[_DEFAULT]}")


def _folders(settings: IngestSettings, values: Mapping[str, str]) -> list[_Folder]:
    found = []
    default = urlsplit(values.get(_DEFAULT, ""))
    authority = with_port(default.netloc, values) if default.scheme == "hdfs" else ""
    if authority:
        found.append(_Folder("HDFS root", authority, "/", _DEFAULT, "r-x"))
    scheme, _, rest = (settings.state_uri or "").partition("://")
    if scheme.lower() == "hdfs":
        given, slash, path = rest.partition("/")
        path = normpath(unquote(slash + path) or "/")
        given = with_port(given, values) or authority
        found.append(_Folder("HDFS state", given, path, "ingest.state_uri", "rwx"))
    return found


def _nameservice(
    folder: _Folder, settings: HdfsSettings, values: Mapping[str, str], client: str
) -> tuple[Check | None, tuple[_NameNode, ...]]:
    """The name nodes behind a URI's authority; a finding unless it is a name node itself."""
    name, service = "HDFS nameservice", folder.authority
    ids = [i.strip() for i in values.get(f"{NAME_NODES_OF}{service}", "").split(",") if i.strip()]
    if ids and service:
        keys = [f"dfs.namenode.rpc-address.{service}.{i}" for i in ids]
        nodes = tuple(
            _NameNode(values.get(key, ""), i, service) for key, i in zip(keys, ids, strict=True)
        )
        for key, node in zip(keys, nodes, strict=True):
            if node.host_and_port is None:
                detail = f"{key} is {node.address or 'not set'}: there is no host and port"
                cure = "set it in hdfs-site.xml to HOST:PORT of that name node"
                return Check(name, ok=False, detail=detail, cure=cure), ()
        return Check(name, ok=True, detail=f"{service} has {', '.join(ids)}"), nodes
    node = _NameNode(service)
    if node.host_and_port is not None:
        return None, (node,)
    if client == "libhdfs" and service:
        return None, (_NameNode(f"{service}:{NAME_NODE_PORT}"),)
    known = [key.removeprefix(NAME_NODES_OF) for key in values if key.startswith(NAME_NODES_OF)]
    where = settings.conf_dir or "the configuration"
    detail = f"{folder.setting} names {service or 'no cluster'}, which is no nameservice of "
    detail += f"{where} (it has {', '.join(known) or 'none'}) and no host that this machine knows"
    cure = f"write {' or '.join([*known, 'HOST:PORT of a name node'])} in {folder.setting}, or set "
    cure += "ingest.hdfs.conf_dir or HADOOP_CONF_DIR to the configuration of that cluster"
    return Check(name, ok=False, detail=detail, cure=cure), ()


def _ticket(
    settings: HdfsSettings, values: Mapping[str, str], environ: Mapping[str, str], scratch: Path
) -> tuple[Check | None, dict[str, str]]:
    """What is found of Kerberos where it is used, and the variables that name the ticket."""
    if settings.kerberos is not None:
        return log_in_with_keytab(settings.kerberos, environ, scratch)
    if values.get(_AUTHENTICATION, "simple") != "simple":
        return own_ticket(environ), {}
    return None, {}


def _name_nodes(
    authority: str, nodes: Sequence[_NameNode], findings: Sequence[Finding], *, may_call: bool
) -> Iterator[Check]:
    for node, finding in zip(nodes, findings, strict=True):
        yield _name_node(node, finding, may_call=may_call)
    outcomes = {finding.outcome for finding in findings}
    if nodes and nodes[0].service and Outcome.STANDBY in outcomes and not outcomes & _SERVING:
        detail = f"no name node of {authority} is active"
        cure = "make one active: `hdfs haadmin -getAllServiceState`, `hdfs haadmin -failover`; "
        cure += "or look at the ZooKeeper failover controllers"
        yield Check("HDFS nameservice", ok=False, detail=detail, cure=cure)


def _name_node(node: _NameNode, finding: Finding, *, may_call: bool) -> Check:
    name = f"name node {node.address}"
    text = finding.text
    match finding.outcome:
        case outcome if outcome in _SERVING:
            state = "is active" if may_call else "takes connections; its state was not asked"
            return Check(name, ok=True, detail=f"{node.title} {state}")
        case Outcome.STANDBY if node.service:
            return Check(name, ok=True, detail=f"{node.title} is a standby")
        case Outcome.STANDBY:
            detail = "it is a standby, which serves no files"
            cure = "name the nameservice (hdfs://NAMESERVICE) instead of one of its name nodes"
        case Outcome.UNREACHABLE:
            detail = f"{node.title} does not answer: {text}"
            cure = "start it, open this port to this machine, or correct the address of it in "
            cure += "hdfs-site.xml" if node.service else "the URI that names it"
        case Outcome.UNAUTHENTICATED:
            detail = f"{node.title} does not accept this login: {text}"
            cure = f"set {_AUTHENTICATION} in core-site.xml as the cluster has it, and log in by "
            cure += "kinit or ingest.hdfs.kerberos"
        case Outcome.HUNG:
            detail = f"{node.title} takes connections and gives {text}"
            cure = "look at its log; it may be starting, overloaded, or no name node at all"
        case Outcome.NO_CLIENT:
            detail, cure = f"{node.title} was not asked: {text}", _NO_LIBHDFS
        case _:
            detail = f"{node.title} gives an error: {text}"
            cure = f"see that this is a name node's RPC port, that {_AUTHENTICATION} and "
            cure += "hadoop.rpc.protection in core-site.xml are the cluster's, and look at its log"
    return Check(name, ok=False, detail=detail, cure=cure)


def _listing(folder: _Folder, finding: Finding) -> Check:
    uri = f"hdfs://{folder.authority}{folder.path}"
    if finding.outcome is Outcome.WORKS:
        return Check(folder.name, ok=True, detail=f"{uri} can be listed")
    if finding.outcome is Outcome.MISSING:
        return Check(folder.name, ok=True, detail=f"{uri} is not there yet; the first job makes it")
    if finding.outcome is not Outcome.DENIED:
        detail = f"{uri} cannot be listed: {finding.text}"
        return Check(folder.name, ok=False, detail=detail, cure="look at the name node's log")
    cure = "be another user: set ingest.hdfs.kerberos.principal, or HADOOP_USER_NAME where there "
    cure += "is no Kerberos"
    if (denied := _DENIED.search(finding.text)) is not None:
        user, path = denied["user"], denied["path"]
        grant = f"hdfs dfs -setfacl -m user:{user}:{folder.access} {path}"
        cure = f"let {user} in: `{grant}`; or {cure}"
    return Check(folder.name, ok=False, detail=f"{uri}: {finding.text}", cure=cure)
