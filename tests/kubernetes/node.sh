#!/usr/bin/env bash
# A Kubernetes of one machine, real but for its name service, in namespaces of its own: nothing of it
# is on the machine's network, and its cgroups, mounts and processes end with it.
#
#   node.sh up STATE PROGRAMS IMAGE.tar...    start it; PROGRAMS from build.sh, images as docker-archives
#   node.sh exec STATE COMMAND...             run a command on the node
#   node.sh down STATE                        end it, and remove STATE
#
# Commands on the node see the machine's files, and KUBECONFIG, which makes kubectl the administrator; names of
# pods without their namespace are those of byzsgd. Needs root, cgroups of version 1, /dev/kmsg, and
#   apt-get install --no-install-recommends etcd-server containerd runc containernetworking-plugins conntrack \
#     ebtables ethtool iptables iproute2 socat openssl python3
set -euo pipefail
self=$(realpath "$0")
here=$(dirname "$self")
command=$1
S=$(realpath -m "$2")
shift 2

ADDRESS=10.99.0.1
HIERARCHIES=(unified systemd memory pids cpu cpuacct blkio devices freezer cpuset)
group=${BYZSGD_RUN:-byzsgd-$(printf %s "$S" | md5sum | cut -c1-10)}

on_node() { nsenter --target "$(cat "$S/pid")" --all env -i PATH="$PATH" HOME="$S" KUBECONFIG="$S/kubeconfig" "$@"; }

groups() { for each in "${HIERARCHIES[@]}"; do if [ -d "/sys/fs/cgroup/$each" ]; then echo "/sys/fs/cgroup/$each/$group"; fi; done; }

# Runs a program for as long as the node lives, again if it ends.
keep() {
  local log=$S/log/$1.log
  shift
  (while :; do "$@" || true; sleep 1; done) >>"$log" 2>&1 </dev/null &
}

until_true() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  echo "in vain: $*" >&2
  return 1
}

# As process 1 of the node's namespaces, while /proc is still the machine's.
boot() {
  local pid each
  read -r pid _ </proc/self/stat
  mount --make-rprivate /
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t tmpfs tmpfs /sys/fs/cgroup -o mode=755
  for each in "${HIERARCHIES[@]}"; do
    mkdir "/sys/fs/cgroup/$each"
    case $each in
      unified) mount -t cgroup2 cgroup2 "/sys/fs/cgroup/$each" ;;
      systemd) mount -t cgroup -o none,name=systemd cgroup "/sys/fs/cgroup/$each" ;;
      *) mount -t cgroup -o "$each" cgroup "/sys/fs/cgroup/$each" ;;
    esac
  done
  mount -t tmpfs tmpfs /run -o mode=755
  mount -t tmpfs tmpfs /var/log -o mode=755
  mount -t overlay overlay /var/lib -o "lowerdir=/var/lib,upperdir=$S/var,workdir=$S/work"
  printf '127.0.0.1 localhost\n%s node0\n' $ADDRESS > "$S/hosts"
  printf 'nameserver %s\nsearch byzsgd.svc.cluster.local\n' $ADDRESS > "$S/resolv.conf"
  mount --bind "$S/hosts" /etc/hosts
  mount --bind "$S/resolv.conf" /etc/resolv.conf
  # The kubelet insists on these; the machine keeps its own.
  for each in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
              kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    echo "${each#*=}" > "$S/sysctl/$(basename "${each%=*}")"
    mount --bind "$S/sysctl/$(basename "${each%=*}")" "/proc/sys/${each%=*}"
  done
  mount --make-rshared /
  hostname node0
  ip link set lo up
  ip link add node0 type bridge
  ip addr add $ADDRESS/24 dev node0
  ip link set node0 up
  ip route add default dev node0
  sysctl -qw net.ipv4.ip_forward=1
  echo "$pid" > "$S/pid.partial"
  mv "$S/pid.partial" "$S/pid"

  export KUBECONFIG=$S/kubeconfig
  keep etcd etcd --data-dir "$S/etcd" --unsafe-no-fsync --log-level warn
  keep containerd containerd --config "$S/containerd.toml"
  until_true curl -sf http://127.0.0.1:2379/health
  keep apiserver "$S/programs/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address=$ADDRESS --secure-port=6443 --cert-dir="$S/certificates" \
    --token-auth-file="$S/tokens.csv" --authorization-mode=RBAC --service-cluster-ip-range=10.96.0.0/16 \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$S/accounts.key" \
    --service-account-signing-key-file="$S/accounts.key"
  until_true curl -sfk -H 'Authorization: Bearer admin' https://$ADDRESS:6443/readyz
  keep controllers "$S/programs/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false \
    --service-account-private-key-file="$S/accounts.key" --root-ca-file="$S/certificates/apiserver.crt" \
    --cluster-cidr=10.244.0.0/16 --allocate-node-cidrs=true
  keep scheduler "$S/programs/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false
  keep kubelet "$S/programs/kubelet" --config="$S/kubelet.yaml" --kubeconfig="$KUBECONFIG" \
    --container-runtime=remote --container-runtime-endpoint="unix:///run/containerd/containerd.sock" \
    --cert-dir="$S/kubelet-certificates" --hostname-override=node0 --node-ip=$ADDRESS
  keep proxy "$S/programs/kube-proxy" --kubeconfig="$KUBECONFIG" --proxy-mode=iptables \
    --cluster-cidr=10.244.0.0/16 --hostname-override=node0 --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 --oom-score-adj=0
  keep dns python3 "$here/dns.py" https://$ADDRESS:6443 admin $ADDRESS
  wait
}

configure() {
  mkdir -p "$S"/{log,sysctl,network,programs,plugins,var,work}
  chmod 755 "$S"
  openssl genrsa -out "$S/accounts.key" 2048 2>/dev/null
  echo 'admin,admin,1,system:masters' > "$S/tokens.csv"
  cat > "$S/kubeconfig" <<CONF
apiVersion: v1
kind: Config
current-context: node0
clusters:
  - {name: node0, cluster: {server: "https://$ADDRESS:6443", insecure-skip-tls-verify: true}}
users:
  - {name: admin, user: {token: admin}}
contexts:
  - {name: node0, context: {cluster: node0, user: admin}}
CONF
  cat > "$S/kubelet.yaml" <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: $(ulimit -Hn)
clusterDNS: [$ADDRESS]
clusterDomain: cluster.local
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
podCIDR: 10.244.0.0/24
resolvConf: ""
syncFrequency: 2s
nodeStatusUpdateFrequency: 2s
volumePluginDir: $S/plugins
evictionHard: {memory.available: 50Mi}
CONF
  cat > "$S/containerd.toml" <<CONF
version = 2
root = "$S/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:test"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$S/network"
CONF
  cat > "$S/network/10-bridge.conflist" <<'CONF'
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CONF
}

case $command in
  up)
    [ ! -e "$S/pid" ] || { echo "$S: is up already" >&2; exit 1; }
    programs=$(realpath "$1")
    shift
    configure
    cp -sf "$programs"/kube* "$S/programs/"
    while read -r each; do mkdir -p "$each"; done < <(groups)
    for each in cpus mems; do
      cat "/sys/fs/cgroup/cpuset/cpuset.$each" > "/sys/fs/cgroup/cpuset/$group/cpuset.$each"
    done
    (
      # This shell moves; a namespace then makes its group the root of what the node sees.
      while read -r each; do echo "$BASHPID" > "$each/cgroup.procs"; done < <(groups)
      exec setsid env -i PATH="$PATH" HOME="$S" \
        unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup bash "$self" boot "$S"
    ) </dev/null >"$S/log/boot.log" 2>&1 &
    until_true test -s "$S/pid" || { cat "$S/log/boot.log" >&2; exit 1; }
    until_true on_node ctr version
    for image in "$@"; do on_node ctr -n k8s.io images import "$(realpath "$image")" >/dev/null; done
    # Not as curl: what is made readable for it takes a library that Go 1.19 breaks, and the server with it.
    until_true on_node sh -c "curl -sfk -A node -H 'Authorization: Bearer admin' https://$ADDRESS:6443/api/v1/nodes/node0 |
      tr -d ' \n' | grep -q '\"type\":\"Ready\",\"status\":\"True\"'" || { tail -n 5 "$S"/log/*.log >&2; exit 1; }
    ;;
  boot) boot ;;
  exec) on_node "$@" ;;
  down)
    if [ -s "$S/pid" ]; then kill -9 "$(cat "$S/pid")" 2>/dev/null || true; fi
    for _ in $(seq 100); do
      left=
      while read -r each; do
        if [ ! -d "$each" ]; then continue; fi
        find "$each" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        if [ -d "$each" ]; then left=1; fi
      done < <(groups)
      [ -n "$left" ] || break
      sleep 0.1
    done
    rm -rf "$S"
    ;;
  *) echo "node.sh: $command: up, exec or down" >&2; exit 2 ;;
esac
