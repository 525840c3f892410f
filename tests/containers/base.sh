#!/usr/bin/env bash
# base.sh OUT.tar - a stand-in for python:3.11-slim, cut out of this machine, a Debian 12 with python3-venv: for where no
# registry can be reached. It has the files of the packages that a slim image has, and /usr/local/bin/{python3,pip}.
set -euo pipefail
out=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
packages=(apt base-files base-passwd bash ca-certificates coreutils dash debianutils diffutils findutils grep gzip hostname
          libc-bin login passwd perl-base sed tar tzdata util-linux python3 python3-venv)

[ -x /usr/bin/python3.11 ] || { echo 'base.sh: needs Debian 12, and no other system is here' >&2; exit 1; }
# Of a package that exists for several architectures the list of files has its name with the architecture.
apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "${packages[@]}" | sed -nE 's/^([a-z0-9][^:]*).*/\1/p' | sort -u > "$work/packages"
while read -r package; do
  cat /var/lib/dpkg/info/"$package".list /var/lib/dpkg/info/"$package":*.list 2>/dev/null || true
done < "$work/packages" > "$work/files"

root=$work/root
mkdir "$root"
{ grep -vE '^/(\.|usr/share/(doc|man|locale|info|lintian)(/.*)?|dev/.*|proc/.*|sys/.*|run/.*)$' "$work/files"
  printf '%s\n' /bin /sbin /lib /lib64 /etc/ssl/certs/ca-certificates.crt /etc/os-release /etc/ld.so.conf.d
} | sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#; s#^/##' | sort -u > "$work/list"
tar -C / --no-recursion --ignore-failed-read -cf - -T "$work/list" 2>/dev/null | tar -C "$root" -xf -
mkdir -p "$root"/{dev,proc,sys,run,tmp,root,home,etc,var/tmp}
chmod 1777 "$root/tmp" "$root/var/tmp"
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
chroot "$root" pwconv
chroot "$root" ldconfig
chroot "$root" /usr/bin/python3 -m venv /usr/local
tar -C "$root" --numeric-owner -cf "$out" .
