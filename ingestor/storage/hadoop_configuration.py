"""Hadoop's configuration files, as far as a client of HDFS needs them: names and values.

Hadoop's clients find them by HADOOP_CONF_DIR, else HADOOP_HOME; so does this. Includes and
substitutions within them are not followed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from ingestor.settings import HdfsSettings

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
