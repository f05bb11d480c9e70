# Certificates and kubeconfigs, good for a year and renewed when they are not. Sourced by `up`; needs lib.sh.
# shellcheck shell=bash
fresh() { openssl x509 -checkend 604800 -noout -in "$PKI/$1.crt" >/dev/null 2>&1; } # NAME
ca() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$1" \
    -addext keyUsage=critical,keyCertSign,digitalSignature \
    -keyout "$PKI/$1.key" -out "$PKI/$1.crt" 2>/dev/null
}
cert() { # CA NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES]
  fresh "$2" && return
  {
    echo "extendedKeyUsage=clientAuth,serverAuth"
    echo "keyUsage=critical,digitalSignature"
    [ -z "${4:-}" ] || echo "subjectAltName=$4"
  } >"$PKI/$2.ext"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" \
    -keyout "$PKI/$2.key" -out "$PKI/$2.csr" 2>/dev/null
  openssl x509 -req -in "$PKI/$2.csr" -CA "$PKI/$1.crt" -CAkey "$PKI/$1.key" -days 365 \
    -set_serial "0x$(openssl rand -hex 8)" -extfile "$PKI/$2.ext" -out "$PKI/$2.crt" 2>/dev/null
  rm -f "$PKI/$2.csr" "$PKI/$2.ext"
}
kubeconfig() { # NAME: uses NAME.crt and NAME.key
  cat >"$PKI/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: fairlead-test
  cluster:
    server: https://$CP:6443
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
- name: fairlead-test
  context: {cluster: fairlead-test, user: $1}
current-context: fairlead-test
YAML
}
make_pki() {
  local i name service=kubernetes.default.svc
  mkdir -p "$PKI"
  chmod 700 "$PKI"
  if ! fresh ca || ! fresh front-proxy-ca; then
    rm -f "$PKI"/*.crt # what an old CA signed is of no use without it
    ca ca
    ca front-proxy-ca
  fi
  [ -f "$PKI/sa.key" ] || {
    openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/sa.key"
    openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  }
  cert ca apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:$service,\
DNS:$service.$CLUSTER_DOMAIN,DNS:localhost,IP:127.0.0.1,IP:$CP,IP:$NODE_NET6:10,\
IP:${SVC_CIDR4%.0/*}.1,IP:${SVC_CIDR6%/*}1"
  cert ca kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  cert front-proxy-ca front-proxy-client /CN=front-proxy-client
  cert ca admin /O=system:masters/CN=admin
  for name in kube-controller-manager kube-scheduler kube-proxy; do cert ca $name /CN=system:$name; done
  for name in admin kube-controller-manager kube-scheduler kube-proxy; do kubeconfig $name; done
  for i in $(seq "$NODES"); do
    cert ca "node$i" "/O=system:nodes/CN=system:node:node$i" \
      "DNS:node$i,IP:$(node_ip4 "node$i"),IP:$(node_ip6 "node$i")"
    kubeconfig "node$i"
  done
}
