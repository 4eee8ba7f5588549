#!/usr/bin/env bash
# Builds the images that are named, or all: build.sh [base|ingestor|indexer|query|all-in-one]…
# They share one builder. docs/IMAGES.md has the variables.
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($#)) || set -- base ingestor indexer query all-in-one
for image; do
    case $image in
    base | ingestor | indexer | query | all-in-one) ;;
    *) fail "$image: the images are base, ingestor, indexer, query and all-in-one" ;;
    esac
done
begin
for image; do
    # shellcheck source=/dev/null
    . "$root/buildah/$image.sh"
done
"$PYTHON" - "$OUTPUT" "$@" <<'EOF'
import json
import sys
from pathlib import Path

print(f"{'image':<12} {'MB':>6} {'system':>8} {'packages':>9} {'model':>6}")
for image in sys.argv[2:]:
    file = Path(sys.argv[1], f"{image}.sizes.json")
    if image != "base":
        sizes = json.loads(file.read_text())
        parts = [sizes["parts"].get(part, 0) / 1e6 for part in ("system", "packages", "model")]
        print("{:<12} {:>6.0f} {:>8.0f} {:>9.0f} {:>6.0f}".format(image, sizes["bytes"] / 1e6, *parts))
EOF
