"""Which files of a source a job takes: include and exclude globs, and what counts as hidden.

A glob is matched on the whole path relative to the root, with ``/`` between components:

    *       any characters within one component        ?  one character within a component
    [abc]   one of these characters, [!abc] none       **  as a component: any number of components

A glob without a slash matches at any depth (``*.md``); a leading slash holds it at the root
(``/README.md``); a trailing slash means everything beneath. An exclude that matches a folder leaves
out all of it. Excludes win over includes; no include means every file.

Hidden, unless asked for: names beginning with a dot, and what Hadoop's writers leave behind
(``_SUCCESS``, ``_temporary``, files still being copied …). Matching reads nothing from any source.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

_JOB_LEFTOVERS = re.compile(
    r"_SUCCESS|_FAILURE|_temporary|_metadata|_common_metadata|_delta_log|_logs"
    r"|_(?:committed|started)_.*|.*\._COPYING_",
    re.DOTALL,
)


# Without one of these in them, paths between line ends have no hidden component.
_SIGNS = ("\n.", "/.", "\n_", "/_", "._COPYING_")


def is_hidden(name: str) -> bool:
    """Whether one component of a path is hidden."""
    return name.startswith(".") or _JOB_LEFTOVERS.fullmatch(name) is not None


class Selection:
    """The files a job takes; paths are relative to the root, with ``/`` between components."""

    def __init__(
        self, *, include: Sequence[str] = (), exclude: Sequence[str] = (), hidden: bool = False
    ) -> None:
        self._include = [compile_glob(glob) for glob in include]
        self._exclude = [compile_glob(glob) for glob in exclude]
        self._exclude_folder = [compile_glob(_folder_glob(glob)) for glob in exclude]
        self._hidden = hidden
        # A walk asks for the same few folders again and again.
        self.enters = lru_cache(maxsize=1024)(self._enters)

    def _enters(self, folder: str) -> bool:
        """Whether files beneath this folder may be taken; the root is the empty path."""
        if not folder:
            return True
        parent, _, name = folder.rpartition("/")
        if not self._hidden and is_hidden(name):
            return False
        if any(glob.fullmatch(folder) for glob in self._exclude_folder):
            return False
        return self.enters(parent)

    def admits(self, path: str) -> bool:
        """Whether this file is taken."""
        parent, _, name = path.rpartition("/")
        if not self.enters(parent) or (not self._hidden and is_hidden(name)):
            return False
        if self._exclude and any(glob.fullmatch(path) for glob in self._exclude):
            return False
        return not self._include or any(glob.fullmatch(path) for glob in self._include)

    def admits_all(self, paths: Sequence[str]) -> bool:
        """Whether all these files are certainly taken; False may mean that they have to be asked.

        Most batches of a walk have nothing to be left out, which is seen at a glance.
        """
        if self._include or self._exclude:
            return False
        listed = "\n" + "\n".join(paths)
        return self._hidden or not any(sign in listed for sign in _SIGNS)


def compile_glob(glob: str) -> re.Pattern[str]:
    """The glob as an expression for the whole path; InvalidArgument if it is none."""
    anchored = "/" in glob.rstrip("/") or glob == "/"
    components = glob.strip("/").split("/")
    if glob.endswith("/"):
        components.append("**")
    if not all(components):
        raise InvalidArgument(f"{glob!r}: a glob has no empty components", field="glob")
    expression = "" if anchored else "(?:.*/)?"
    last = len(components) - 1
    for place, component in enumerate(components):
        if component == "**":
            expression += ".+" if place == last else "(?:[^/]+/)*"
        else:
            expression += _component(component) + ("" if place == last else "/")
    try:
        return re.compile(expression, re.DOTALL)
    except re.error:
        raise InvalidArgument(f"{glob!r}: a set of characters is malformed", field="glob") from None


def _component(component: str) -> str:
    expression = ""
    place = 0
    while place < len(component):
        character = component[place]
        place += 1
        match character:
            case "*":
                expression += "[^/]*"
            case "?":
                expression += "[^/]"
            case "[" if (end := component.find("]", place + 1)) > 0:
                chosen = component[place:end].replace("\\", r"\\").replace("[", r"\[")
                negated = chosen.startswith("!")
                expression += f"[^/{chosen[1:]}]" if negated else f"[{chosen}]"
                place = end + 1
            case _:
                expression += re.escape(character)
    return expression


def _folder_glob(glob: str) -> str:
    """The glob that names the folder whose whole content this exclude leaves out."""
    stem = glob.rstrip("/").removesuffix("/**")
    if not stem or stem == "**":
        return glob
    anchored = "/" in glob.rstrip("/")
    return f"/{stem.lstrip('/')}" if anchored else stem
