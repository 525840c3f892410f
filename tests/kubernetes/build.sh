#!/usr/bin/env bash
# build.sh FOLDER: the programs of a Kubernetes node, compiled from Debian's source package, which no
# registry of packages carries built. Some 11 minutes of one core, once; what is there is kept.
set -euo pipefail

VERSION=1.20.2
PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
GO=/usr/lib/go-1.19/bin

out=$(realpath -m "${1:?build.sh FOLDER}")
mkdir -p "$out"
missing=()
for program in "${PROGRAMS[@]}"; do
  [ -x "$out/$program" ] || missing+=("$program")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ ! -x $GO/go ] || ! command -v dpkg-source >/dev/null; then
  apt-get install -qq -y --no-install-recommends golang-1.19-go golang-1.19-src dpkg-dev >/dev/null
fi
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" byzsgd-kubernetes.XXXXXX)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# The source, by lists of its own: the machine's stay as they are.
sed -s '/^#/d; s/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources > "$work/debian.sources"
mkdir -p "$work/lists/partial"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/debian.sources" -o Dir::Etc::sourceparts=-
     -o "Dir::State::lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
     -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work" && "${apt[@]}" source --download-only kubernetes)
export GOPATH=$work/go GOCACHE=$work/cache GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' PATH=$GO:$PATH
mkdir -p "$GOPATH/src/k8s.io"
tar -C "$GOPATH/src/k8s.io" -xzf "$work"/kubernetes_*.orig.tar.gz
mv "$GOPATH/src/k8s.io/kubernetes-$VERSION" "$GOPATH/src/k8s.io/kubernetes"
cd "$GOPATH/src/k8s.io/kubernetes"

# The one file that is made, and not in the source package.
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(
  { grep -rlE '^// \+k8s:openapi-gen=true' --include='*.go' pkg
    grep -rlE '^// \+k8s:openapi-gen=true' --include='*.go' staging/src/k8s.io | sed 's#^staging/src/#vendor/#'
  } | grep -vE 'sample-|code-generator|/testdata|_test.go' | xargs -n1 dirname | sort -u |
    sed 's#^#k8s.io/kubernetes/#' | paste -sd,
)
"$work/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
  -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt -r "$work/violations" 2>"$work/openapi.log"

flags='-s -w'
for package in component-base/version client-go/pkg/version; do
  package=k8s.io/kubernetes/vendor/k8s.io/$package
  flags+=" -X $package.gitVersion=v$VERSION -X $package.gitMajor=1 -X $package.gitMinor=20"
done
for program in "${missing[@]}"; do
  go build -trimpath -ldflags "$flags" -o "$out/$program.partial" "./cmd/$program"
  mv "$out/$program.partial" "$out/$program"
  echo "$out/$program"
done
