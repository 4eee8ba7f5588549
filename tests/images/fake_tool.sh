#!/usr/bin/env bash
# Stands for each tool that the image scripts call: records the call in $FAKE/calls, keeps
# containers and images as files, fails at call $FAIL_AT and blocks at call $BLOCK_AT.
set -euo pipefail
tool=$(basename "$0")
number=$(($(wc -l <"$FAKE/calls") + 1))
echo "$tool $*" | tr '\n' ' ' >>"$FAKE/calls"
echo >>"$FAKE/calls"
if [[ $number == "${BLOCK_AT:-}" ]]; then
    echo $$ >"$FAKE/blocked"
    sleep 600
fi
case "$tool $*" in
"buildah from"*) touch "$FAKE/containers/$(shift && while [[ $1 != --name ]]; do shift; done && echo "$2")" ;;
esac
# what is begun stays, as a tool that is killed half-way leaves it
[[ $number != "${FAIL_AT:-}" ]] || exit 1
case "$tool $*" in
"buildah inspect --type container"*) [[ -e $FAKE/containers/${*: -1} ]] ;;
"buildah inspect --type image"*) [[ -e $FAKE/images/$(basename "${*: -1}") ]] && echo "$FAKE_BASE" ;;
"buildah rm "*) rm "$FAKE/containers/$2" ;;
"buildah commit"*) touch "$FAKE/images/$(basename "${*: -1}")" ;;
"python -m venv"*)
    mkdir -p "$3/bin"
    ln -s "$0" "$3/bin/python"
    touch "$3/bin/uv"
    ;;
"apt-get indextargets"*) echo "bookworm deb file:/nowhere bookworm main" ;;
esac
