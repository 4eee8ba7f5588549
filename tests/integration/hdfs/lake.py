"""A folder in the cluster of a test's own: its files are written and removed by a raw client."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

from hdfs_native import Client, WriteOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.integration.hdfs.minidfs import MiniDfs

_OPENED = re.compile(r"\tcmd=open\tsrc=(.*?)\tdst=")
_WRITERS = 8


class Lake:
    """Paths are relative to the folder.

    Attributes:
        path: of the folder, from the root of the file system.
        uri: of the folder.
    """

    def __init__(self, dfs: MiniDfs) -> None:
        self.dfs = dfs
        self.path = f"/lake-{uuid4().hex[:12]}"
        self.uri = dfs.uri + self.path
        self.client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
        self.client.mkdirs(self.path, create_parent=True)

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file, replacing the one that is there."""
        data = content.encode() if isinstance(content, str) else content
        options = WriteOptions(overwrite=True, create_parent=True)
        with self.client.create(f"{self.path}/{name}", options) as file:
            file.write(data)

    def write_all(self, files: Mapping[str, bytes | str]) -> None:
        """Write many files, some at a time."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(self.write, files.keys(), files.values()):
                pass

    def copy(self, folder: Path) -> list[str]:
        """Copy a local folder's files; their names, ascending."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
        self.write_all(files)
        return list(files)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files or folders."""
        for name in names:
            assert self.client.delete(f"{self.path}/{name}", recursive=True)

    def opened(self, since: int = 0) -> list[str]:
        """Files opened for reading after that many bytes of the audit log, by the name node."""
        with self.dfs.audit_log.open("rb") as log:
            log.seek(since)
            paths = _OPENED.findall(log.read().decode())
        return [path.removeprefix(f"{self.path}/") for path in paths if path.startswith(self.path)]

    def mark(self) -> int:
        """Bytes of the audit log by now."""
        return self.dfs.audit_log.stat().st_size
