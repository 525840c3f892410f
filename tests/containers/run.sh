#!/usr/bin/env bash
# Builds the images, and runs check_images.py on containers of them, of which alone.sh leaves nothing: make test-containers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

for program in podman buildah runc catatonit iptables unshare; do
  command -v "$program" >/dev/null && [ -x /usr/lib/podman/netavark ] && [ -x /usr/lib/podman/aardvark-dns ] && continue
  missing="apt-get install --no-install-recommends podman buildah runc netavark aardvark-dns catatonit iptables"
done
# As alone.sh does: who cannot would come back here again and again.
spaces=(unshare --mount --propagation private --net --pid --fork --mount-proc)
if [ "$(id -u)" != 0 ] || ! "${spaces[@]}" true 2>/dev/null; then missing='needs root'; fi
if [ -n "${missing:-}" ]; then
  printf '\n!!! CONTAINERS ARE NOT TESTED: %s\n\n' "$missing" >&2
  exit 0
fi

python=$(realpath -s "${1:-$here/../../.venv/bin/python}")
if [ -z "${BYZSGD_RUN:-}" ]; then exec "$here/../alone.sh" containers "$0" "$python"; fi
state=$TMPDIR/engine

SECONDS=0
"$here/engine.sh" build "$state" node server
echo "images built in $SECONDS s"
# shellcheck source=/dev/null
. "$state/env.sh"
# And a network namespace: no bridge and no rule of a firewall is left.
# shellcheck disable=SC2016
unshare --net sh -c 'ip link set lo up && cd "$1" && exec "$2" -m pytest -n0 -q -rA tests/containers/check_images.py' \
  sh "$here/../.." "$python"
