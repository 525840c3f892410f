#!/usr/bin/env bash
# A podman of its own for tests, run by root, with the project's images in it:
#
#   engine.sh build STATE [node|server]...    build the Dockerfile's targets: localhost/byzsgd:test, localhost/byzsgd-server:test
#   engine.sh save STATE node|server FILE     write an image as a docker-archive
#   engine.sh down STATE                      end all containers and remove all that podman keeps
#
# STATE is a folder for all that podman keeps; `. STATE/env.sh` makes every podman and buildah of a shell use it.
# Needs: apt-get install --no-install-recommends podman buildah runc netavark aardvark-dns catatonit iptables
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command=$1
state=$(realpath -m "$2")
shift 2

image() { if [ "$1" = node ]; then echo localhost/byzsgd:test; else echo "localhost/byzsgd-$1:test"; fi; }

configure() {
  mkdir -p "$state/tmp" "$state/networks"
  # Podman's own limits are above what a machine without CAP_SYS_RESOURCE may set; crun does not take every cgroup
  # tree; and without systemd there is none to ask for cgroups. Locks in files are nobody else's.
  cat > "$state/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=32768:32768"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "$state/tmp"
volume_path = "$state/volumes"
[network]
network_backend = "netavark"
network_config_dir = "$state/networks"
CONF
  cat > "$state/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$state/storage"
runroot = "$state/run"
CONF
  cat > "$state/env.sh" <<CONF
export CONTAINERS_CONF=$state/containers.conf CONTAINERS_STORAGE_CONF=$state/storage.conf
CONF
}

# The base image, and in `base` what the build has to be told of it.
base() {
  local pinned
  pinned=$(sed -nE 's/^ARG PYTHON=//p' "$here/../../Dockerfile")
  base=()
  if podman image exists "$pinned" || timeout 60 podman pull --quiet "$pinned" >/dev/null 2>&1; then return; fi
  base=(--build-arg PYTHON=localhost/python:test)
  podman image exists localhost/python:test && return
  echo 'no registry can be reached: the base image is cut out of this machine' >&2
  "$here/base.sh" "$state/base.tar"
  podman import --quiet --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' "$state/base.tar" localhost/python:test >/dev/null
  rm "$state/base.tar"
}

# What pip needs here besides the Dockerfile: this machine's certificates and folders of packages, lent and not copied.
# As for `make install`, torch comes from such a folder if there is one.
lend() {
  local certificates=/etc/ssl/certs/ca-certificates.crt folder
  lent=(--volume "$certificates:$certificates:ro" --volume "$state/pip.conf:/etc/pip.conf:ro")
  { echo '[global]'
    echo "cert = $certificates"
    pip config list 2>/dev/null | sed -nE "s/^(global|:env:)\.(find-links|extra-index-url|index-url)='(.*)'$/\2 = \3/p" | sort -u -k1,1
  } > "$state/pip.conf"
  if grep -q '^find-links' "$state/pip.conf"; then lent+=(--build-arg TORCH_FROM=); fi
  while read -r folder; do
    if [ -d "$folder" ]; then lent+=(--volume "$folder:$folder:ro"); fi
  done < <(sed -nE '/find-links|index-url/ p' "$state/pip.conf" | grep -oE '(^|[ /])/[a-z][^ ]*' | sed -E 's#^[ /]*/#/#; s#/simple$##' | sort -u)
}

case $command in
  build)
    configure
    # shellcheck source=/dev/null
    . "$state/env.sh"
    base
    lend
    for target in "${@:-node}"; do
      podman build --quiet --pull=never --network host --format docker "${lent[@]}" "${base[@]}" \
        --target "$target" --tag "$(image "$target")" "$here/../.." > "$state/build.log" 2>&1 \
        || { tail -n 40 "$state/build.log" >&2; exit 1; }
    done
    ;;
  save)
    # shellcheck source=/dev/null
    . "$state/env.sh"
    rm -f "$2"  # Podman adds to no archive that is there.
    podman save --quiet --format docker-archive --output "$2" "$(image "$1")" >/dev/null
    ;;
  down)
    [ -e "$state/env.sh" ] || exit 0
    # shellcheck source=/dev/null
    . "$state/env.sh"
    podman rm --all --force --time 0 >/dev/null || true
    umount "$state/storage/overlay" 2>/dev/null || true
    rm -rf "$state"
    ;;
  *) echo "engine.sh: $command: build, save or down" >&2; exit 2 ;;
esac
