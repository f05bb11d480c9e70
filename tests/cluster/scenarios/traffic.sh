# The application and the traffic that the scenarios share: a Deployment `hello`, the Service `steady` in front of it, an Ingress,
# and requests by every way at once.
# shellcheck shell=bash disable=SC2034
HOST=hello.example.test

# What a decent application does: it says when it is ready, and serves on for a while when told to end.
decent='{"spec": {"template": {"spec": {"containers": [{"name": "agnhost",
  "command": ["/agnhost", "netexec", "--http-port=8080", "--udp-port=8081", "--delay-shutdown=6"],
  "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}}]}}}}'
rolled_out() { k rollout status "$1" --timeout=90s; }

certificate() { # SERIAL: the Secret hello-tls for $HOST, signed by a CA of our own
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  [ -f "$WORK/ca.crt" ] ||
    openssl req -x509 "${key[@]}" -days 2 -subj /CN=scenario-ca -addext basicConstraints=critical,CA:TRUE \
      -keyout "$WORK/ca.key" -out "$WORK/ca.crt" 2>/dev/null
  openssl req "${key[@]}" -subj "/CN=$HOST" -keyout "$WORK/tls.key" -out "$WORK/tls.csr" 2>/dev/null
  openssl x509 -req -in "$WORK/tls.csr" -CA "$WORK/ca.crt" -CAkey "$WORK/ca.key" -days 2 -set_serial "$1" \
    -extfile <(echo "subjectAltName=DNS:$HOST") -out "$WORK/tls.crt" 2>/dev/null
  k create secret tls hello-tls --cert="$WORK/tls.crt" --key="$WORK/tls.key" --dry-run=client -o yaml |
    k apply -f - >/dev/null
}
https() { # PLACE NODE PATH [CURL-ARGS...]
  local place=$1 node=$2 path=$3; shift 3
  fetch "$place" "https://$HOST$path" --cacert "$WORK/ca.crt" --resolve "$HOST:443:$(node_ip4 "$node")" "$@"
}

an_application() { # for scenarios that are about something else
  client_pod client node1
  k create deployment hello --image="$AGNHOST_NEW" --replicas=3 -- /agnhost netexec >/dev/null
  k patch deployment hello -p "$decent" >/dev/null
  rolled_out deployment/hello >/dev/null || die "the application did not get ready"
}
an_ingress() {
  certificate 1
  k create ingress hello --class=fairlead --rule="$HOST/*=steady:80,tls=hello-tls" >/dev/null
}

begin_traffic() { # [with-ingress] [with-streams]
  local ip http udp n
  k apply -f "$SCENARIOS/manifests/steady.yaml" >/dev/null
  ip=$(k get service steady -o jsonpath='{.spec.clusterIP}')
  read -r http udp < <(k get service steady -o jsonpath='{.spec.ports[*].nodePort}')
  steady "pod, by name" pod/client --url http://steady/hostname --look-up-each --rate 15
  steady "pod, ClusterIP" pod/client --url "http://$ip/hostname" --rate 30
  steady "pod, UDP ClusterIP" pod/client --url "udp://$ip:81" --send hostname --rate 15
  steady "pod, its DNS questions" pod/client --url "dns://$DNS_IP/steady.$NS.svc.cluster.local" --rate 15
  steady "node2, ClusterIP" node2 --url "http://$ip/hostname" --rate 10
  steady "outside, UDP NodePort" ext --url "udp://$(node_ip4 node2):$udp" --send hostname --rate 10
  for n in $(node_names); do
    steady "outside, NodePort of $n" ext --url "http://$(node_ip4 "$n"):$http/hostname" --rate 10
    case " $* " in *" with-ingress "*)
      steady "outside, Ingress of $n" ext --url "https://$HOST/hostname" --to "$(node_ip4 "$n"):443" \
        --ca "$WORK/ca.crt" --rate 5 ;;
    esac
  done
  case " $* " in *" with-streams "*) # connections that live from here to the end
    steady "pod, open connections" pod/client --url "http://$ip/hostname" --streams 5
    steady "outside, open connections" ext --url "http://$(node_ip4 node1):$http/hostname" --streams 5 ;;
  esac
}
