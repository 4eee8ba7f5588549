#!/usr/bin/env bash
# The base of all images: Debian with Python and the C libraries that the wheels need, a user
# without rights, and the places where data and configuration are mounted.
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

begin
base=sluice-base-$$
packages=(python3 libstdc++6 ca-certificates)
say "building the base from $BASE"
case $BASE in
debootstrap)
    debian_root "$scratch/base.tar" "${packages[@]}"
    container "$base" scratch
    step "$BUILDAH" add --quiet "$base" "$scratch/base.tar" / >/dev/null
    "$RM" -f "$scratch/base.tar"
    ;;
*@sha256:*)
    container "$base" "$BASE"
    as_root "$base" -- sh -c 'command -v python3 >/dev/null' || debian_packages "$base" "${packages[@]}"
    ;;
*) fail "BASE=$BASE: name an image by its digest, NAME@sha256:…, or say BASE=debootstrap" ;;
esac
step "$BUILDAH" run --user 0:0 "$base" -- sh -c '
    echo "sluice:x:10001:10001:Sluice:/data:/usr/sbin/nologin" >>/etc/passwd
    echo "sluice:x:10001:" >>/etc/group
    rm -rf /var/lib/apt /var/cache/apt
    mkdir -p /data /etc/sluice /run/secrets
    chown 10001:10001 /data'
# the working folder is also where SQLite looks for room when /tmp is read-only; without being told,
# ONNX Runtime sends telemetry
step "$BUILDAH" config --user 10001:10001 --workingdir /data --env HOME=/data \
    --env PYTHONUNBUFFERED=1 --env ORT_DISABLE_TELEMETRY=1 \
    --volume /data --stop-signal SIGTERM --label "sluice.base=$(base_key)" "$base"
describe "$base" base "Debian with Python, the ground of Sluice's images"
commit "$base" base
