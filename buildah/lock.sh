#!/usr/bin/env bash
# Pins what goes into each image, with hashes, at the versions that the tests run with
# (requirements/dev.txt). Names no package index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${UV:=.venv/bin/uv}"

lock() { # NAME SOURCE_OR_OPTION…: writes requirements/NAME.txt
    "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --no-header --constraint requirements/dev.txt \
        --output-file "requirements/$1.txt" "${@:2}"
}

for image in ingestor indexer query all; do
    lock "$image" --extra "$image" --excludes buildah/left-out.txt pyproject.toml
done
# What the builder itself runs: the Zig compiler, the wheel's backend, the conversion of the model.
printf '%s\n' hatchling ziglang | lock builder --extra embedding pyproject.toml -
printf '%s\n' cyclonedx-bom debsbom pip-audit pip-licenses | lock audit -
