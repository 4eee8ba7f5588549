"""``python -m bench NAME``: one benchmark, its result as one JSON object on stdout.

A benchmark that can show its result as a table for a page does so without ``--json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import machine

# With the options that each has besides --quick; a benchmark is loaded when it is run.
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "hdfs": ("uri",),
    "ingest": ("corpus", "files"),
    "memory": (),
    "query": ("corpus",),
    "ranking": ("folders",),
    "rerank": ("corpus",),
    "swap": (),
}


def main() -> None:
    """Run one benchmark; what it is doing goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument(
        "folders", type=Path, nargs="*", help="judged collections, or folders of such"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON, and no table")
    parser.add_argument("--quick", action="store_true", help="less of everything, under 60 s")
    parser.add_argument(
        "--corpus", type=Path, help="folder of documents; for query and rerank in BEIR layout"
    )
    parser.add_argument("--files", type=int, help="how many of its files, in order of their paths")
    parser.add_argument("--uri", help="folder of a cluster to work in; default is one of its own")
    arguments = parser.parse_args()
    given = {name: value for name, value in vars(arguments).items() if value not in (None, [])}
    own = BENCHMARKS[arguments.name]
    if foreign := given.keys() - {"name", "json", "quick", *own}:
        parser.error(f"{arguments.name} takes no {min(foreign)}")
    options = {name: getattr(arguments, name) for name in ("quick", *own)}
    benchmark = import_module(f"bench.{arguments.name}")
    try:
        result: dict[str, Any] = benchmark.run(**options)
    except ValueError as error:
        sys.exit(f"error: {error}")
    result |= {"machine": machine.describe(), "versions": machine.versions()}
    if not arguments.json and hasattr(benchmark, "markdown"):
        print(benchmark.markdown(result))
    else:
        print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
