#!/usr/bin/env bash
# alone.sh NAME COMMAND... - runs a command with processes and mounts of its own, none of which outlives this shell,
# whatever ends it. Its files belong into TMPDIR, and control groups are called $BYZSGD_RUN: both are removed, by the next
# run of that name if this one is killed. Who is not root, or may not have namespaces, runs the command as it is.
set -euo pipefail

if [ -n "${BYZSGD_RUN:-}" ]; then  # As process 1: it reaps what the command leaves behind.
  # What engines of containers note of this machine is neither seen nor added to.
  for each in netns runc containers libpod; do
    mkdir -p "/run/$each"
    mount -t tmpfs tmpfs "/run/$each"
  done
  "$@"
  exit
fi

name=$1
shift
spaces=(unshare --mount --propagation private --pid --fork --kill-child --mount-proc)
if [ "$(id -u)" != 0 ] || ! "${spaces[@]}" true 2>/dev/null; then exec "$@"; fi

# When a process was started, by which it is told from a later one of the same number: proc(5), field 22.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

remove() {
  for _ in $(seq 50); do
    find /sys/fs/cgroup -depth -type d \( -path "*/$1" -o -path "*/$1/*" -o -path '*/libpod_parent*' \) -exec rmdir {} + \
      2>/dev/null || true  # One of podman's that is in use stays.
    if [ -z "$(find /sys/fs/cgroup -type d -name "$1" -print -quit 2>/dev/null)" ]; then break; fi
    sleep 0.1
  done
  rm -rf "/var/tmp/$1"
}

end() {
  kill -9 "$child" 2>/dev/null || true  # And so process 1 of the namespace, and all in it.
  wait "$child" 2>/dev/null || true
  remove "$BYZSGD_RUN"
}

for left in "/var/tmp/byzsgd-$name".*.*; do
  IFS=. read -r _ pid start <<<"${left##*/}"
  if [ -d "$left" ] && [ "$(started "$pid")" != "$start" ]; then remove "${left##*/}"; fi
done

export BYZSGD_RUN=byzsgd-$name.$$.$(started $$)
export TMPDIR=/var/tmp/$BYZSGD_RUN
mkdir -m 700 "$TMPDIR"
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' HUP INT TERM
login=${REGISTRY_AUTH_FILE:-/run/containers/0/auth.json}
if [ -f "$login" ]; then
  cp "$login" "$TMPDIR/auth.json"
  export REGISTRY_AUTH_FILE=$TMPDIR/auth.json
fi
setpriv --pdeathsig KILL "${spaces[@]}" "$0" "$@" &
child=$!
trap end EXIT
wait "$child"
