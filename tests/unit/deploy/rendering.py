"""What the tests of deploy/ read: files, overlays as kustomize renders them, tools that may lack.

A tool that is not there fails the test in CI and is a loud skip elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
OVERLAYS = sorted(
    path.parent.name for path in (DEPLOY / "kubernetes/overlays").glob("*/kustomization.yaml")
)
RENDER_S = 60
IS_CI = os.environ.get("CI") == "true"

Document = dict[str, Any]


def missing(what: str) -> None:
    """End the test: it cannot be made without this."""
    if IS_CI:
        pytest.fail(what)
    pytest.skip(what)


def tool(name: str, cure: str, *, path: str | None = None) -> str:
    """Where a program is, on ``path`` if that is given."""
    found = shutil.which(name, path=path)
    if found is None:
        missing(f"{name} is not installed: {cure}")
    return str(found)


def render(overlay: str) -> list[Document]:
    """The documents of an overlay."""
    return rendered_folder(DEPLOY / "kubernetes/overlays" / overlay)


def rendered_folder(folder: Path) -> list[Document]:
    """The documents of a kustomization; a warning of kustomize is an error."""
    return list(yaml.safe_load_all(_rendered(folder)))


@cache
def _rendered(folder: Path) -> str:
    done = subprocess.run(
        [*_kustomize(), str(folder)], capture_output=True, check=False, timeout=RENDER_S, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def _kustomize() -> list[str]:
    if own := os.environ.get("KUSTOMIZE") or shutil.which("kustomize"):
        return [own, "build"]
    kubectl = tool(
        "kubectl", "go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1, or kubectl 1.27 or newer"
    )
    return [kubectl, "kustomize"]


def only(documents: list[Document], kind: str, name: str | None = None) -> Document:
    """The document of this kind, and of this name where there are several."""
    [found] = [
        document
        for document in documents
        if document["kind"] == kind and name in {None, document["metadata"]["name"]}
    ]
    return found


def pod_templates(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """What every workload makes its pods of, by the workload's name."""
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield document["metadata"]["name"], spec["template"]


def container(documents: list[Document], workload: str) -> Document:
    """The only container of a workload's pods."""
    [found] = dict(pod_templates(documents))[workload]["spec"]["containers"]
    assert isinstance(found, dict)
    return found
