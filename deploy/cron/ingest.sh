#!/usr/bin/env bash
# The batch job as cron runs it: one at a time, bounded in time, its output in the system's log.
# Takes the arguments of `sluice ingest` and ends with its exit code; 124 or 137 means that the time
# was up. What it prints itself, cron mails: nothing if all is well.
set -euo pipefail

: "${SLUICE:=/opt/sluice/bin/sluice}" "${FLOCK:=flock}" "${TIMEOUT:=timeout}" "${LOGGER:=logger}"
: "${LOCK:=/run/lock/sluice-ingest}" "${LIMIT:=22h}" "${KILL_AFTER:=60s}"

log() { "$LOGGER" --tag sluice-ingest --priority "user.$1"; }
tell() {
    printf '%s\n' "$2" | log "$1"
    printf 'sluice ingest: %s\n' "$2" >&2
}

exec 9>"$LOCK"
if ! "$FLOCK" --nonblock 9; then
    printf 'the last job still runs, so none is begun\n' | log notice
    exit 0
fi

# SIGTERM lets the job finish the files in hand (ingest.stop_timeout_s, 25 s unless set).
statuses=(0)
"$TIMEOUT" --kill-after="$KILL_AFTER" "$LIMIT" "$SLUICE" ingest "$@" 2>&1 9>&- | log info ||
    statuses=("${PIPESTATUS[@]}")

case "${statuses[0]}" in
    0) ;;
    3) tell warning "done, but some documents went to the dead letters: see sluice dead-letters list" ;;
    124 | 137) tell err "stopped after $LIMIT; the next job goes on where it stopped" ;;
    *) tell err "failed with exit code ${statuses[0]}: journalctl -t sluice-ingest says why" ;;
esac
exit "${statuses[0]}"
