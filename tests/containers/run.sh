#!/usr/bin/env bash
# Builds the images, runs check_images.py on containers of them, and removes all that this made: make test-containers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

for program in podman buildah runc catatonit iptables unshare; do
  command -v "$program" >/dev/null && [ -x /usr/lib/podman/netavark ] && [ -x /usr/lib/podman/aardvark-dns ] && continue
  missing="apt-get install --no-install-recommends podman buildah runc netavark aardvark-dns catatonit iptables"
done
if [ "$(id -u)" != 0 ] || ! unshare --mount --net true 2>/dev/null; then missing='needs root'; fi
if [ -n "${missing:-}" ]; then
  printf '\n!!! CONTAINERS ARE NOT TESTED: %s\n\n' "$missing" >&2
  exit 0
fi

python=$(realpath -s "${1:-$here/../../.venv/bin/python}")

# In a mount namespace of its own, so that nothing stays mounted; podman's own files of the machine are hidden there.
if [ -z "${BYZSGD_ALONE:-}" ]; then exec env BYZSGD_ALONE=1 unshare --mount --propagation private "$0" "$python"; fi
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
state=$(mktemp -d /var/tmp/byzsgd-containers.XXXXXX)
end() {
  "$here/engine.sh" down "$state"
  # What podman leaves behind; one that is in use stays.
  find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null || true
}
trap end EXIT
trap 'exit 1' INT TERM

SECONDS=0
"$here/engine.sh" build "$state" node server
echo "images built in $SECONDS s"
# shellcheck source=/dev/null
. "$state/env.sh"
# And a network namespace: no bridge and no rule of a firewall is left.
# shellcheck disable=SC2016
unshare --net sh -c 'ip link set lo up && cd "$1" && exec "$2" -m pytest -n0 -q -rA tests/containers/check_images.py' \
  sh "$here/../.." "$python"
