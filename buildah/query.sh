#!/usr/bin/env bash
# The query server.
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

service query query "Answers queries over gRPC, ranked by meaning and by words" --model \
    --port 50052 --command 'serve query --config /etc/sluice/sluice.yaml' --bound "${QUERY_MAX_MB:-450}"
