#!/usr/bin/env bash
# Sends images on: push.sh IMAGE…, to DESTINATION, which is a registry with a path,
# docker://registry.example/sluice, or a folder, oci-archive:FOLDER. Credentials come from the
# standard file (REGISTRY_AUTH_FILE, or what `buildah login` wrote).
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

: "${DESTINATION:=}"

(($#)) || fail "say which images: push.sh query indexer"
begin
case $DESTINATION in
docker://?*) ;;
oci-archive:?*) mkdir -p "${DESTINATION#*:}" ;;
*) fail "DESTINATION=$DESTINATION: it is docker://REGISTRY/PATH or oci-archive:FOLDER" ;;
esac
for image; do
    case $DESTINATION in
    docker://*) target=${DESTINATION%/}/sluice-$image:$TAG ;;
    *) target=${DESTINATION%/}/sluice-$image-$TAG.tar ;;
    esac
    # an archive that is there already cannot be written to
    [[ $target == docker://* ]] || "$RM" -f "${target#*:}"
    step "$BUILDAH" push --quiet "$(image_name "$image")" "$target"
    say "sent $target"
done
