#!/usr/bin/env bash
# The indexer.
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

service indexer indexer "Cuts documents, embeds them and keeps them in Chroma" --model \
    --port 50051 --command 'serve indexer --config /etc/sluice/sluice.yaml' --bound 650
