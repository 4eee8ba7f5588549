"""``python -m bench NAME``: one benchmark, its result as one JSON object on stdout."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import ingest, machine

BENCHMARKS = {"ingest": ingest.run}


def main() -> None:
    """Run one benchmark; what it is doing goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="one line instead of an indented one")
    parser.add_argument("--quick", action="store_true", help="less of everything, under 60 s")
    parser.add_argument("--corpus", type=Path, help="folder of documents; default as found")
    parser.add_argument("--files", type=int, help="how many of its files, in order of their paths")
    arguments = parser.parse_args()
    try:
        result = BENCHMARKS[arguments.name](
            corpus=arguments.corpus, files=arguments.files, quick=arguments.quick
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    result |= {"machine": machine.describe(), "versions": machine.versions()}
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
