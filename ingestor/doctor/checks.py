"""What ``sluice doctor`` checks of the ingestor: its state folder, its parser, and HDFS.

It only looks: nothing is created, and libhdfs is never loaded into this process.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import load
from common.doctor import Check
from common.errors import SluiceError
from ingestor.doctor.hdfs_checks import hdfs_checks
from ingestor.ingestion import default_state_uri
from ingestor.settings import IngestorConfig
from ingestor.storage.filesystems import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ingestor.settings import IngestSettings


def checks(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Whether a job could keep its state and read its files; as ``common.doctor`` asks."""
    settings = load(IngestorConfig, file=file, environ=environ).ingest
    yield _state(settings, environ)
    yield _parser()
    yield from hdfs_checks(settings, environ)


def _state(settings: IngestSettings, environ: Mapping[str, str]) -> Check:
    name = "ingest state"
    uri = settings.state_uri or default_state_uri(environ)
    if uri.lower().startswith("hdfs:"):
        return Check(name, ok=True, detail=f"{uri}, looked at with HDFS")
    cure = "set ingest.state_uri to a folder that this user may write"
    try:
        location = locate(uri, settings.hdfs)
    except SluiceError as error:
        return Check(name, ok=False, detail=error.message, cure=cure)
    if not location.is_local:
        return Check(name, ok=True, detail=f"{location.uri}, not called here")
    path = Path(location.path)
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, ok=False, detail=f"{existing} cannot be written", cure=cure)
    return Check(name, ok=True, detail=str(path))


def _parser() -> Check:
    name = "text extraction"
    if find_spec("kreuzberg") is not None:
        return Check(name, ok=True, detail="kreuzberg is installed")
    cure = "install sluice[ingestor]"
    return Check(name, ok=False, detail="kreuzberg is not installed", cure=cure)
