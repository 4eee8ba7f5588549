"""Hadoop's configuration files, as far as a client of HDFS needs them: names and values.

Hadoop's clients find them by HADOOP_CONF_DIR, else HADOOP_HOME; so does this. Includes and
substitutions within them are not followed.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingestor.settings import HdfsSettings

NAME_NODES_OF = "dfs.ha.namenodes."  # and the nameservice
NAME_NODE_PORT = 8020  # Hadoop's clients take it where a URI names a host alone
_FILES = ("core-site.xml", "hdfs-site.xml")


def configuration_folder(settings: HdfsSettings) -> Path | None:
    """Where the files are; None if nobody says."""
    if settings.conf_dir is not None:
        return settings.conf_dir
    if folder := os.environ.get("HADOOP_CONF_DIR"):
        return Path(folder)
    if home := os.environ.get("HADOOP_HOME"):
        return Path(home, "etc", "hadoop")
    return None


def configuration(settings: HdfsSettings) -> dict[str, str]:
    """What the files say, under the settings' own options.

    ConfigurationError if a folder that the settings name, or a file in it, cannot be read.
    """
    values: dict[str, str] = {}
    folder = configuration_folder(settings)
    if settings.conf_dir is not None and not settings.conf_dir.is_dir():
        raise ConfigurationError(f"ingest.hdfs.conf_dir: there is no folder {settings.conf_dir}")
    files = [] if folder is None else [folder / name for name in _FILES]
    for file in files:
        if not file.exists():
            continue
        try:
            root = ET.parse(file).getroot()  # noqa: S314 — the administrator's own file
        except (OSError, ET.ParseError) as error:
            raise ConfigurationError(f"{file} cannot be read: {error}") from None
        for found in root.iter("property"):
            key, value = found.findtext("name"), found.findtext("value")
            if key and value is not None:
                values[key.strip()] = value.strip()
    return values | settings.options


def with_port(authority: str, values: Mapping[str, str]) -> str:
    """The authority of a URI as hdfs-native takes it, which knows no port of its own.

    A host that is no nameservice gets Hadoop's port. What is neither stays as it is. Asks the
    system's resolver, and so blocks.
    """
    if not authority or f"{NAME_NODES_OF}{authority}" in values:
        return authority
    host = authority.removeprefix("[").removesuffix("]")
    if ":" in host and host == authority:  # it has a port
        return authority
    try:
        socket.getaddrinfo(host, NAME_NODE_PORT, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return authority
    return f"{authority}:{NAME_NODE_PORT}"
