"""The wheel carries the native library: it is of one platform, and is not built without it."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = Path("rerank_zig/zig-out/lib/libsluice_rerank.so")


class NativeLibrary(BuildHookInterface[Any]):
    """Sets the wheel's tag; an editable installation needs none and may come before the library."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds."""
        if version == "editable":
            return
        if not (Path(self.root) / LIBRARY).is_file():
            raise FileNotFoundError(f"{LIBRARY} is not built; run `make setup` first")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
