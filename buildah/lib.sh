# shellcheck shell=bash
# What all image scripts share: settings, containers that go away whatever happens, and the two
# recipes, a base image and a service on it. A script sources this file, then says what differs.
# Whatever fails, no container, no scratch folder and no half-made image is left behind.
[[ -z ${sluice_lib:-} ]] || return 0
sluice_lib=1
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

: "${BUILDAH:=buildah}" "${MMDEBSTRAP:=mmdebstrap}" "${APT_GET:=apt-get}" "${APT_CONFIG_DUMP:=apt-config}"
: "${GIT:=git}" "${PYTHON:=python3}" "${TAR:=tar}" "${MKTEMP:=mktemp}" "${RM:=rm}" "${MV:=mv}"

: "${IMAGE_PREFIX:=localhost/}" "${OUTPUT:=$root/build/images}"
: "${BASE:=debootstrap}"       # or NAME@sha256:…, an image of Debian
: "${SUITE:=bookworm}"         # of Debian
: "${MIRROR:=}"                # of Debian; this machine's own sources by default
: "${FORMAT:=oci}"             # or docker, which alone can hold a health check
: "${LICENSES:=NOASSERTION}"   # SPDX expression for what is Sluice's own
: "${VULNERABILITIES:=report}" # or refuse, or skip
: "${UV_CACHE:=}"              # folder of this machine where downloaded wheels are kept
# Works without privileges and inside other containers.
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

git_here() { "$GIT" -C "$root" -c "safe.directory=$root" "$@"; }

: "${VERSION:=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")}"
: "${TAG:=$VERSION}"
: "${SOURCE_DATE_EPOCH:=$(git_here log -1 --format=%ct)}"
if [[ -z ${REVISION:-} ]]; then
    REVISION=$(git_here rev-parse HEAD)
    [[ -z $(git_here status --porcelain) ]] || REVISION+=-modified
fi
export SOURCE_DATE_EPOCH

containers=()
scratch=
builder=

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Runs a command so that a signal ends it and all that it started.
step() {
    local status=0
    "$@" &
    wait "$!" || status=$?
    return "$status"
}

clean_up() {
    local status=$? name job
    trap - EXIT
    trap '' HUP INT TERM
    for job in $(jobs -p); do kill -TERM -- "-$job" 2>/dev/null || true; done
    for _ in {1..100}; do
        [[ -n $(jobs -pr) ]] || break
        sleep 0.1
    done
    for job in $(jobs -pr); do kill -KILL -- "-$job" 2>/dev/null || true; done
    for name in "${containers[@]}"; do
        if "$BUILDAH" inspect --type container "$name" >/dev/null 2>&1; then
            "$BUILDAH" rm "$name" >/dev/null || say "remove the container $name by hand"
        fi
    done
    [[ -z $scratch ]] || "$RM" -rf "$scratch"
    exit "$status"
}

begin() {
    [[ -z $scratch ]] || return 0
    exec </dev/null
    set -m # each step is a process group of its own
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    scratch=$("$MKTEMP" -d "${TMPDIR:-/tmp}/sluice-images.XXXXXXXX")
    mkdir -p "$OUTPUT"
}

image_name() { printf '%ssluice-%s:%s' "$IMAGE_PREFIX" "$1" "$TAG"; }

# container NAME IMAGE: a working container, removed in the end
container() {
    containers+=("$1")
    step "$BUILDAH" from --quiet --name "$1" "$2" >/dev/null
}

# as_root CONTAINER [OPTION…] -- COMMAND…, with a /run of its own: what buildah does in there would
# become part of the layer, and differ by storage driver.
as_root() {
    local name=$1 options=()
    shift
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    step "$BUILDAH" run --user 0:0 --mount type=tmpfs,destination=/run "${options[@]}" "$name" "$@"
}

# ---- Debian ---------------------------------------------------------------------------------

# Writes sources.list: MIRROR, or what this machine itself takes its packages from.
debian_sources() {
    local list=$scratch/sources.list keyring=/usr/share/keyrings/debian-archive-keyring.gpg trust=
    [[ ! -s $list ]] || return 0
    [[ ! -e $keyring ]] || trust="[signed-by=$keyring] "
    if [[ -f $MIRROR ]]; then
        cp "$MIRROR" "$list"
    elif [[ -n $MIRROR ]]; then
        echo "deb $trust$MIRROR $SUITE main" >"$list"
    else
        "$APT_GET" indextargets --format "\$(CODENAME) deb $trust\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
            'Created-By: Packages' 'Origin: Debian' 'Component: main' |
            sed -nE "s/^$SUITE(-updates|-security)? deb /deb /p" | sort -u >"$list"
    fi
    [[ -s $list ]] || fail "this machine has no source of Debian $SUITE: run apt-get update, or set" \
        "MIRROR to the address of one or to a sources.list"
    # how this machine's apt reaches its sources: proxies, certificates, what it lets pass
    "$APT_CONFIG_DUMP" dump 2>/dev/null | grep '^Acquire::' >"$scratch/apt.conf" || true
}

# Writes a root file system with Python and its C libraries, without apt.
debian_root() { # FILE.tar PACKAGE…
    local packages
    debian_sources
    packages=$(IFS=,; echo "${*:2}")
    # shellcheck disable=SC2016  # mmdebstrap's shell sets $1
    step "$MMDEBSTRAP" --quiet --variant=essential --include="$packages" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --skip=output/dev \
        --aptopt="$scratch/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook='cd "$1" && rm -rf etc/apt/sources.list* etc/apt/apt.conf.d/99mmdebstrap \
            etc/resolv.conf etc/hostname var/lib/apt var/cache/apt var/cache/debconf/*-old' \
        "$SUITE" "$1" "$scratch/sources.list" >"$scratch/debian.log" 2>&1 ||
        { cat "$scratch/debian.log" >&2 && return 1; }
}

# Installs packages of Debian in a container that has no apt, with what they need.
debian_packages() { # CONTAINER PACKAGE…
    local apt=$scratch/apt
    debian_sources
    mkdir -p "$apt"/{state/lists,cache/archives}/partial
    as_root "$1" -- cat /var/lib/dpkg/status >"$apt/status"
    local options=(
        -qq --yes --no-install-recommends
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
        -o Dir::Etc::sourcelist="$scratch/sources.list" -o Dir::Etc::sourceparts=-
        -o APT::Sandbox::User= -o Debug::NoLocking=true
    )
    step "$APT_GET" "${options[@]}" update
    step "$APT_GET" "${options[@]}" --download-only install "${@:2}" >/dev/null
    # shellcheck disable=SC2016  # for the shell within
    as_root "$1" --env DEBIAN_FRONTEND=noninteractive --volume "$apt/cache/archives:/mnt:ro" \
        -- sh -c '
            set -e
            install() { dpkg --install /mnt/*.deb >/tmp/dpkg 2>&1; }
            # dpkg does not sort by what must be set up first
            install || install || install || { cat /tmp/dpkg >&2 && exit 1; }
            rm -rf /tmp/dpkg /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig/aux-cache \
                /var/cache/debconf/*-old'
}

# ---- the builder ----------------------------------------------------------------------------

# Whatever reaches a package index comes along only while a command runs, never in a layer.
builder_settings() {
    local name value file=$scratch/work/settings
    for name in "${!UV_@}" http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        value=${!name:-}
        case $name in
        *CERT* | UV_CACHE* | UV_PYTHON* | UV_PROJECT*) ;; # paths of this machine
        *) [[ -z $value ]] || printf 'export %s=%q\n' "$name" "$value" ;;
        esac
    done >"$file"
    value=$("$scratch/uv/bin/python" -m pip config get global.index-url 2>/dev/null) || value=
    value=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$value}}
    [[ -z $value ]] || printf 'export UV_DEFAULT_INDEX=%q\n' "$value" >>"$file"
}

sources() { git_here ls-files -z "$@" -- . ':!tests' ':!docs' ':!deploy' ':!samples' | LC_ALL=C sort -zu; }

# Makes the builder: the sources, uv, and what in_builder.sh makes of them. Once for all images.
need_builder() {
    [[ -z $builder ]] || return 0
    local certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    say "building the library, the wheel and the model"
    mkdir -m 700 "$scratch/work"
    step "$PYTHON" -m venv "$scratch/uv"
    step "$scratch/uv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement "$root/requirements/uv.txt"
    cp "$scratch/uv/bin/uv" "$scratch/work/uv"
    builder_settings
    [[ ! -e $certificates ]] || cp "$certificates" "$scratch/work/certificates.crt"
    # what is deleted is still listed
    LC_ALL=C comm -z -23 <(sources --cached --others --exclude-standard) <(sources --deleted) |
        "$TAR" --create --file "$scratch/source.tar" --directory "$root" --null --files-from -
    builder=sluice-builder-$$
    container "$builder" "$(image_name base)"
    step "$BUILDAH" add --quiet "$builder" "$scratch/source.tar" /src >/dev/null
    in_builder tools
    in_builder wheel
    in_builder model
}

in_builder() {
    local cache=()
    if [[ -n $UV_CACHE ]]; then
        mkdir -p "$UV_CACHE"
        cache=(--volume "$UV_CACHE:/var/cache/uv")
    fi
    as_root "$builder" --volume "$scratch/work:/mnt" "${cache[@]}" \
        --env "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
        -- /bin/bash /src/buildah/in_builder.sh "$@"
}

# ---- images ---------------------------------------------------------------------------------

describe() { # CONTAINER IMAGE DESCRIPTION: the OCI annotations, as labels too
    local pair created options=()
    created=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
    for pair in "title=sluice-$2" "description=$3" "version=$VERSION" "revision=$REVISION" \
        "created=$created" "licenses=$LICENSES"; do
        options+=(--label "org.opencontainers.image.$pair" --annotation "org.opencontainers.image.$pair")
    done
    step "$BUILDAH" config "${options[@]}" "$1"
}

commit() { # CONTAINER IMAGE
    step "$BUILDAH" commit --quiet --format "$FORMAT" --timestamp "$SOURCE_DATE_EPOCH" "$1" \
        "$(image_name "$2")" >/dev/null
    say "made $(image_name "$2")"
}

base_key() { printf '%s %s' "$BASE" "$SUITE"; }

# Makes the base unless there is one of the same BASE.
need_base() {
    local found
    begin
    found=$("$BUILDAH" inspect --type image --format '{{index .OCIv1.Config.Labels "sluice.base"}}' \
        "$(image_name base)" 2>/dev/null) || found=
    # shellcheck source=buildah/base.sh
    [[ $found == "$(base_key)" ]] || . "$root/buildah/base.sh"
}

# service IMAGE LOCK DESCRIPTION [OPTION…]
#   --model           with the embedding model
#   --packages LIST   packages of Debian besides the base's
#   --port N          that it listens on
#   --command ARGS    of sluice, when none are given
#   --bound MB        that the unpacked image may have
service() {
    need_base
    need_builder
    local image=$1 lock=$2 description=$3 name=sluice-$1-$$ model=no debian='' port='' bound=0
    local config=()
    shift 3
    while (($#)); do
        case $1 in
        --model) model=yes && shift && continue ;;
        --packages) debian=$2 ;;
        --port) port=$2 && config+=(--port "$2/tcp") ;;
        --command) config+=(--cmd "$2") ;;
        --bound) bound=$2 ;;
        *) fail "$1: no such option of service" ;;
        esac
        shift 2
    done
    say "building $image"
    in_builder environment "$lock" "$model"
    container "$name" "$(image_name base)"
    # shellcheck disable=SC2086  # a list of words
    [[ -z $debian ]] || debian_packages "$name" $debian
    step "$BUILDAH" copy --quiet --from "$builder" "$name" /opt/sluice /opt/sluice >/dev/null
    if [[ $FORMAT == docker && -n $port ]]; then
        config+=(--healthcheck "CMD /opt/sluice/bin/sluice health 127.0.0.1:$port"
            --healthcheck-interval 30s --healthcheck-timeout 5s --healthcheck-start-period 60s)
    fi
    step "$BUILDAH" config --entrypoint '["/opt/sluice/bin/sluice"]' --env PATH=/opt/sluice/bin:/usr/bin:/bin \
        --port 9464/tcp "${config[@]}" "$name"
    describe "$name" "$image" "$description"
    report "$name" "$image" "$bound"
    commit "$name" "$image"
    "$MV" "$scratch/work/report/"* "$OUTPUT/"
}

# Bills of materials, licences, vulnerabilities and sizes, beside the image.
report() { # CONTAINER IMAGE BOUND
    "$RM" -rf "$scratch/work/report"
    mkdir "$scratch/work/report"
    as_root "$1" -- tar --create --file - --directory / \
        var/lib/dpkg/status usr/share/doc etc/os-release >"$scratch/work/debian.tar"
    in_builder report "$2" "$VULNERABILITIES"
    as_root "$1" -- /usr/bin/env -i /opt/sluice/bin/python -B -I - "$2" "$3" \
        <"$root/buildah/sizes.py" >"$scratch/work/report/$2.sizes.json"
}
