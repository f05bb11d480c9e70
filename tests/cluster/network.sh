# The namespaces and the wires between them. Sourced by `up`; needs lib.sh.
# shellcheck shell=bash

fabric_ip() { ip -n "${NS_PREFIX}fabric" "$@"; }

attach() { # NAME HOST-PART: a namespace whose eth0 is on the fabric's bridge
  local p=$NS_PREFIX$1
  ip netns add "$p"
  ip -n "$p" link set lo up
  fabric_ip link add "$1" type veth peer name eth0 netns "$p"
  fabric_ip link set "$1" master br0 up
  ip -n "$p" addr add "$NODE_NET4.$2/24" dev eth0
  ip -n "$p" addr add "$NODE_NET6:$2/64" dev eth0 nodad
  ip -n "$p" link set eth0 up
  ip -n "$p" route add default via "$NODE_NET4.254"
  ip -n "$p" -6 route add default via "$NODE_NET6:254"
}
forwarding() { in_ns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; }

network_fabric() {
  ip netns add "${NS_PREFIX}fabric"
  fabric_ip link set lo up
  fabric_ip link add br0 type bridge
  fabric_ip addr add "$NODE_NET4.254/24" dev br0
  fabric_ip addr add "$NODE_NET6:254/64" dev br0 nodad
  fabric_ip link set br0 up
  forwarding fabric
}

network_ext() { # the outside client: behind the router, with no route to pods or Services
  local p=${NS_PREFIX}ext a
  ip netns add "$p"
  fabric_ip link add ext type veth peer name eth0 netns "$p"
  fabric_ip addr add "$EXT_NET4.1/24" dev ext
  fabric_ip addr add "$EXT_NET6:1/64" dev ext nodad
  fabric_ip link set ext up
  ip -n "$p" link set lo up
  for a in "$EXT4/24" "$UPSTREAM_DNS/24"; do ip -n "$p" addr add "$a" dev eth0; done
  ip -n "$p" addr add "$EXT6/64" dev eth0 nodad
  ip -n "$p" link set eth0 up
  ip -n "$p" route add default via "$EXT_NET4.1"
  ip -n "$p" -6 route add default via "$EXT_NET6:1"
}

# Pods keep their address inside the pod network and get the node's outside of it. The CNI plugin's own
# masquerading would hide it between nodes too.
network_masquerade() { # NODE
  in_ns "$1" nft -f - <<NFT
table inet cluster-masquerade {
  chain postrouting {
    type nat hook postrouting priority srcnat + 5;
    ip saddr $POD_CIDR4 ip daddr != $POD_CIDR4 oifname "eth0" masquerade
    ip6 saddr $POD_CIDR6 ip6 daddr != $POD_CIDR6 oifname "eth0" masquerade
  }
}
NFT
}

network_up() {
  local n m
  network_fabric
  network_ext
  attach cp 10
  for n in $(node_names); do
    attach "$n" "1${n#node}"
    forwarding "$n"
    network_masquerade "$n"
  done
  for m in cp $(node_names); do
    for n in $(node_names); do
      [ "$m" != "$n" ] || continue
      ip -n "$NS_PREFIX$m" route add "$(pod_net4 "${n#node}").0/24" via "$(node_ip4 "$n")"
      ip -n "$NS_PREFIX$m" -6 route add "$(pod_net6 "${n#node}"):/64" via "$(node_ip6 "$n")"
    done
  done
}
