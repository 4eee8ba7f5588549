"""Generates the Python stubs beside the contracts, or proves with --check that they are fresh."""

from __future__ import annotations

import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "protos"
PATTERN = "*_pb2*.py*"


def generate(target: Path) -> None:
    """Write the stubs of every contract under ``target``; exits on a fault in a contract."""
    contracts = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    # mypy-protobuf's plugins stand beside the interpreter, which need not be on PATH.
    plugins = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={Path(protoc.__file__).parent / '_proto'}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *contracts,
        ]
    )
    if status != 0:
        sys.exit(status)


def stale() -> list[str]:
    """Stubs that are missing, surplus or differ from what the contracts give."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        expected = {path.relative_to(fresh) for path in fresh.rglob(PATTERN)}
        present = {path.relative_to(ROOT) for path in ROOT.rglob(PATTERN)}
        present = {path for path in present if "__pycache__" not in path.parts}
        differing = {
            path
            for path in expected & present
            if not filecmp.cmp(fresh / path, ROOT / path, shallow=False)
        }
        return sorted(str(path) for path in (expected ^ present) | differing)


def main() -> None:
    """Generate, or check with --check."""
    if sys.argv[1:] == ["--check"]:
        if names := stale():
            sys.exit("stale stubs, run `make generate`:\n  " + "\n  ".join(names))
    else:
        for old in ROOT.rglob(PATTERN):
            old.unlink()
        generate(ROOT)


if __name__ == "__main__":
    main()
