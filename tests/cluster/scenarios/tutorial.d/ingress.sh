# HTTPS by host name, certificates replaced while in use. Sourced by `tutorial`.
# shellcheck shell=bash

create_an_ingress() {
  certificate 1001
  succeed "kubectl create ingress, by path and with TLS" k create ingress hello --class=fairlead \
    --rule="$HOST/extra/*=extra:80" --rule="$HOST/*=steady:80,tls=hello-tls"
  k create service clusterip extra --tcp=80:8080 >/dev/null
}

serial() { # of the certificate a new client is shown
  (at ext openssl s_client -connect "$(node_ip4 node1):443" -servername "$HOST" </dev/null 2>/dev/null) |
    openssl x509 -noout -serial
}

ingress_by_host_name() {
  local n
  for n in $(node_names); do
    expect "outside -> https://$HOST on $n" "^hello-" https ext "$n" /hostname
  done
  expect "its path without endpoints says so" "^503" https ext node1 /extra/hostname -o /dev/null -w '%{http_code}'
  expect "http is sent to https" "^308 https://$HOST/hostname" fetch ext "http://$HOST/hostname" \
    --resolve "$HOST:80:$(node_ip4 node1)" -o /dev/null -w '%{http_code} %{redirect_url}'
  expect "an unknown host is no one's" "^404" fetch ext "http://$(node_ip4 node1)/" -o /dev/null -w '%{http_code}'
  for n in $(node_names); do
    eventually 30 "its status says that it is found at $n" "$(node_ip4 "$n")" \
      k get ingress hello -o 'jsonpath={.status.loadBalancer.ingress[*].ip}'
  done
  k annotate ingress hello nginx.ingress.kubernetes.io/proxy-body-size=large >/dev/null
  eventually 30 "what of it is refused is an Event" "Warning Refused .*proxy-body-size" events_of hello
  k annotate ingress hello nginx.ingress.kubernetes.io/proxy-body-size- >/dev/null
  expect "the certificate is the Secret's" "=03E9" serial
  certificate 2002
  eventually 3 "a replaced certificate is shown" "=07D2" serial
  succeed "a pod comes for the path's Service" extra_pod
  eventually 3 "and the path leads to it" "^NOW: " https ext node2 /extra/hostname
  steady_so_far "Ingress: certificate and endpoints changed"
}
events_of() { # INGRESS
  k get events --field-selector "involvedObject.kind=Ingress,involvedObject.name=$1" \
    -o 'jsonpath={range .items[*]}{.type} {.reason} {.message}{"\n"}{end}'
}
extra_pod() { # agnhost answers any path with 200 and the time
  k create deployment extra --image="$AGNHOST_NEW" -- /agnhost netexec && k patch deployment extra -p "$decent" &&
    rolled_out deployment/extra
}
