#!/usr/bin/env bash
# Everything in one process, with its data in /data.
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

service all-in-one all "All services of Sluice in one process" --model \
    --port 50051 --command 'up --data-dir /data --listen 0.0.0.0:50051' --bound 950
