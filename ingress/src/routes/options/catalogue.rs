//! Every option of ingress-nginx 1.15's ConfigMap, and what becomes of it here.

use super::super::Support::{self, Differs, Refused, Works};

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigOption {
    /// Its name.
    pub name: &'static str,
    /// How far it is served.
    pub support: Support,
    /// What is different, or why it is not served and what to do instead.
    pub note: &'static str,
    /// A value of its.
    pub example: &'static str,
}

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static ConfigOption> {
    OPTIONS.iter().find(|option| option.name == name)
}

const fn row(
    name: &'static str,
    support: Support,
    note: &'static str,
    example: &'static str,
) -> ConfigOption {
    ConfigOption { name, support, note, example }
}

const EXPRESSIONS: &str = "expressions without look-around and back references, and 256 at most in a list; one that \
     cannot be read is left out and named, the others hold";
const AS_ANNOTATION: &str = "as the annotation";
const GLOBAL_RATE: &str = "rates are counted by each agent: limit-rps and limit-rpm";
const TYPED: &str = "the directives of annotation configuration-snippet, for paths of Ingresses; what is not served \
     and keeps somebody out (deny, return 403) closes all of them: they answer 503";
const NO_HTTP: &str = "nothing of it is executed; where it keeps somebody out (deny), but for servers of its own, \
     all paths answer 503";
const NO_CODE: &str = "no text becomes configuration: use annotations; configuration-snippet has \
                       the usual directives as typed actions";
const NO_BROTLI: &str =
    "answers are compressed by gzip alone (use-gzip); what endpoints compress is passed on";
const NO_GEOIP: &str = "addresses are not looked up";
const NO_NAMED_MAP: &str = "this ConfigMap's ConfigMaps are not read: use configuration-snippet \
                            (proxy_set_header, more_set_headers)";
const NO_SYSLOG: &str =
    "the access log goes to standard output or a file, for the node's collector";
const NO_TABLES: &str = "nothing to size: tables grow with what is in them";
const NO_WAF: &str = "there is no web application firewall";
const OWN_FLAG_LISTEN: &str = "addresses are the agent's --http-listen and --https-listen";
const OWN_SUITES: &str = "rustls's suites, curves and tickets are all there are, and none is weak";
const ONLY_ACME: &str = "these are /.well-known/acme-challenge/ and no others";
const STREAMS: &str = "TCP and UDP services have no log";
const STREAM_TRIES: &str = "an endpoint that cannot be reached is passed over, three times at most";

/// All of them, by name.
pub static OPTIONS: &[ConfigOption] = &[
    row(
        "access-log-params",
        Refused,
        "lines go on in blocks, at the latest after a second",
        "gzip",
    ),
    row("access-log-path", Works, "", "/dev/stdout"),
    row("add-headers", Refused, NO_NAMED_MAP, "default/headers"),
    row("allow-backend-server-header", Differs, "an endpoint's Server is always passed on", "true"),
    row(
        "allow-cross-namespace-resources",
        Refused,
        "no object of another namespace is ever read, whatever it says",
        "true",
    ),
    row(
        "allow-snippet-annotations",
        Differs,
        "true unless it says false: nothing of a snippet is executed",
        "false",
    ),
    row(
        "annotation-value-word-blocklist",
        Refused,
        "every value is parsed to a type: there is nothing to inject into",
        "load_module",
    ),
    row(
        "annotations-risk-level",
        Refused,
        "every value is parsed to a type: there is nothing to inject into",
        "High",
    ),
    row("bind-address", Refused, OWN_FLAG_LISTEN, "192.0.2.1"),
    row("block-cidrs", Works, "", "192.0.2.0/24"),
    row("block-referers", Differs, EXPRESSIONS, "~*spam"),
    row("block-user-agents", Differs, EXPRESSIONS, "~*bot"),
    row("brotli-level", Refused, NO_BROTLI, "4"),
    row("brotli-min-length", Refused, NO_BROTLI, "20"),
    row("brotli-types", Refused, NO_BROTLI, "text/css"),
    row("client-body-buffer-size", Differs, AS_ANNOTATION, "8k"),
    row("client-body-timeout", Works, "", "60"),
    row(
        "client-header-buffer-size",
        Refused,
        "large-client-header-buffers is the limit; room is taken as it is needed",
        "1k",
    ),
    row("client-header-timeout", Works, "", "60"),
    row(
        "compute-full-forwarded-for",
        Differs,
        "with use-forwarded-headers always: X-Forwarded-For is appended to",
        "true",
    ),
    row(
        "custom-http-errors",
        Differs,
        "for Ingresses with default-backend; 401 and 403 of ours stay what they are",
        "404,503",
    ),
    row("debug-connections", Refused, "--log-level says how much is logged", "127.0.0.1"),
    row(
        "default-type",
        Refused,
        "what snippets return is text/html, or of the type its path ends with (nginx's mime.types)",
        "text/html",
    ),
    row("denylist-source-range", Works, "", "192.0.2.0/24"),
    row("disable-access-log", Works, "", "true"),
    row("disable-http-access-log", Works, "", "true"),
    row("disable-ipv6", Refused, OWN_FLAG_LISTEN, "true"),
    row(
        "disable-ipv6-dns",
        Refused,
        "Services lead to endpoints, which are not looked up by name",
        "true",
    ),
    row("disable-proxy-intercept-errors", Works, "", "true"),
    row("disable-stream-access-log", Refused, STREAMS, "true"),
    row(
        "enable-access-log-for-default-backend",
        Refused,
        "every request is logged, whoever answers it",
        "true",
    ),
    row("enable-aio-write", Refused, "no body is written to a file", "true"),
    row(
        "enable-auth-access-log",
        Refused,
        "what auth-url is asked is not logged: whoever is asked can log it",
        "true",
    ),
    row("enable-brotli", Refused, NO_BROTLI, "true"),
    row("enable-modsecurity", Refused, NO_WAF, "true"),
    row("enable-multi-accept", Refused, "connections are taken as they come", "true"),
    row(
        "enable-ocsp",
        Refused,
        "certificates are shown without OCSP answers, which authorities have begun to end",
        "true",
    ),
    row("enable-opentelemetry", Differs, "needs otlp-collector-host", "true"),
    row("enable-owasp-modsecurity-crs", Refused, NO_WAF, "true"),
    row("enable-real-ip", Refused, "use-forwarded-headers with proxy-real-ip-cidr", "true"),
    row(
        "enable-serial-reloads",
        Refused,
        "nothing is reloaded: a change is in force with the next request",
        "true",
    ),
    row("enable-syslog", Refused, NO_SYSLOG, "true"),
    row("enable-underscores-in-headers", Works, "", "true"),
    row("error-log-level", Refused, "--log-level says how much is logged", "notice"),
    row("error-log-path", Refused, "the agent logs to standard error", "/dev/stderr"),
    row("force-ssl-redirect", Works, "", "true"),
    row(
        "forwarded-for-header",
        Refused,
        "X-Forwarded-For is read; let the balancer in front set it, or speak PROXY",
        "X-Forwarded-For",
    ),
    row(
        "forwarded-for-proxy-protocol-header",
        Refused,
        "X-Forwarded-For is read, of whom the PROXY header names if proxy-real-ip-cidr does, too",
        "X-Forwarded-For-Proxy-Protocol",
    ),
    row(
        "forwarded-host-header",
        Refused,
        "X-Forwarded-Host is read, as by ingress-nginx, which does not look at the option",
        "X-Forwarded-Host",
    ),
    row("generate-request-id", Refused, "a request without X-Request-ID always gets one", "true"),
    row("geoip2-autoreload-in-minutes", Refused, NO_GEOIP, "60"),
    row(
        "global-allowed-response-headers",
        Refused,
        "annotations set no header that must be kept from them: framing is never theirs",
        "X-A",
    ),
    row("global-auth-always-set-cookie", Works, "", "true"),
    row(
        "global-auth-cache-duration",
        Differs,
        "as annotation auth-cache-duration: an answer's own word may only shorten it",
        "200 202 401 5m",
    ),
    row("global-auth-cache-key", Works, "", "$remote_user$http_authorization"),
    row("global-auth-method", Works, "", "GET"),
    row("global-auth-request-redirect", Works, "", "https://a.example/"),
    row(
        "global-auth-response-headers",
        Differs,
        "Content-Length, Transfer-Encoding and fields of a connection are not passed on",
        "X-User",
    ),
    row("global-auth-signin", Works, "", "https://login.example/start"),
    row("global-auth-signin-redirect-param", Works, "", "rd"),
    row("global-auth-snippet", Refused, NO_CODE, "x"),
    row(
        "global-auth-url",
        Differs,
        "its certificate is not verified, as by ingress-nginx; variables are those of annotations",
        "http://auth.auth.svc/verify",
    ),
    row("global-rate-limit-memcached-connect-timeout", Refused, GLOBAL_RATE, "50"),
    row("global-rate-limit-memcached-host", Refused, GLOBAL_RATE, "memcached"),
    row("global-rate-limit-memcached-max-idle-timeout", Refused, GLOBAL_RATE, "10000"),
    row("global-rate-limit-memcached-pool-size", Refused, GLOBAL_RATE, "50"),
    row("global-rate-limit-memcached-port", Refused, GLOBAL_RATE, "11211"),
    row("global-rate-limit-status-code", Refused, GLOBAL_RATE, "429"),
    row("grpc-buffer-size-kb", Refused, "gRPC streams both ways, in HTTP/2's windows", "4"),
    row("gzip-disable", Refused, "whoever takes gzip says so", "msie6"),
    row("gzip-level", Works, "", "1"),
    row("gzip-min-length", Works, "", "256"),
    row("gzip-types", Works, "", "text/css"),
    row("hide-headers", Works, "", "X-Powered-By"),
    row("hsts", Works, "", "true"),
    row("hsts-include-subdomains", Works, "", "true"),
    row("hsts-max-age", Works, "", "31536000"),
    row("hsts-preload", Works, "", "true"),
    row("http-access-log-path", Works, "", "/dev/stdout"),
    row("http-redirect-code", Differs, "301, 302, 307 and 308 only", "308"),
    row("http-snippet", Refused, NO_HTTP, "x"),
    row("http2-max-concurrent-streams", Works, "", "128"),
    row(
        "http2-max-field-size",
        Refused,
        "large-client-header-buffers is the limit of HTTP/2, too",
        "4k",
    ),
    row(
        "http2-max-header-size",
        Refused,
        "large-client-header-buffers is the limit of HTTP/2, too",
        "16k",
    ),
    row("http2-max-requests", Refused, "keep-alive-requests is the limit of HTTP/2, too", "1000"),
    row(
        "ignore-invalid-headers",
        Refused,
        "a request with a field that is none is refused",
        "true",
    ),
    row("keep-alive", Works, "", "75"),
    row("keep-alive-requests", Differs, "without it there is no limit", "1000"),
    row(
        "large-client-header-buffers",
        Differs,
        "number times size is the limit of a head, the size that of a target",
        "4 8k",
    ),
    row("limit-conn-status-code", Works, "", "503"),
    row(
        "limit-conn-zone-variable",
        Refused,
        "requests in service are counted by client address",
        "$binary_remote_addr",
    ),
    row("limit-rate", Works, "", "0"),
    row("limit-rate-after", Works, "", "0"),
    row("limit-req-status-code", Works, "", "503"),
    row("load-balance", Differs, "round_robin, ewma and least_conn", "ewma"),
    row("location-snippet", Differs, TYPED, "more_set_headers 'X-A: b';"),
    row("log-format-escape-json", Works, "", "true"),
    row(
        "log-format-escape-none",
        Refused,
        "what clients send is always escaped: it would end the line",
        "true",
    ),
    row("log-format-stream", Refused, STREAMS, "x"),
    row(
        "log-format-upstream",
        Differs,
        "the variables of docs/access-log.md; one that is not known is refused",
        "$status",
    ),
    row("lua-shared-dicts", Refused, NO_TABLES, "x: 1"),
    row("main-snippet", Refused, NO_CODE, "x"),
    row("map-hash-bucket-size", Refused, NO_TABLES, "64"),
    row("max-worker-connections", Refused, "connections are limited in all: 65,536", "16384"),
    row(
        "max-worker-open-files",
        Refused,
        "the limit of open files is raised as far as it can be",
        "0",
    ),
    row("modsecurity-snippet", Refused, NO_WAF, "x"),
    row("nginx-status-ipv4-whitelist", Refused, "figures are at --metrics-listen", "127.0.0.1"),
    row("nginx-status-ipv6-whitelist", Refused, "figures are at --metrics-listen", "::1"),
    row("no-auth-locations", Refused, ONLY_ACME, "/.well-known/acme-challenge"),
    row("no-tls-redirect-locations", Refused, ONLY_ACME, "/.well-known/acme-challenge"),
    row("opentelemetry-config", Refused, "the other options say all there is to say", "x"),
    row("opentelemetry-operation-name", Works, "", "HTTP $request_method"),
    row("opentelemetry-trust-incoming-span", Works, "", "true"),
    row("otel-max-export-batch-size", Works, "", "512"),
    row("otel-max-queuesize", Works, "", "2048"),
    row("otel-sampler", Differs, "AlwaysOn, AlwaysOff or TraceIdRatioBased", "AlwaysOn"),
    row("otel-sampler-parent-based", Works, "", "true"),
    row("otel-sampler-ratio", Works, "", "0.01"),
    row("otel-schedule-delay-millis", Works, "", "5000"),
    row("otel-service-name", Works, "", "nginx"),
    row("otlp-collector-host", Works, "", "collector"),
    row("otlp-collector-port", Differs, "gRPC is spoken, without TLS", "4317"),
    row("plugins", Refused, NO_CODE, "hello_world"),
    row("preserve-trailing-slash", Works, "", "true"),
    row(
        "proxy-add-original-uri-header",
        Refused,
        "endpoints see the path that was matched; configuration-snippet can tell them $request_uri",
        "true",
    ),
    row("proxy-body-size", Works, "", "8m"),
    row("proxy-buffer-size", Differs, AS_ANNOTATION, "4k"),
    row("proxy-buffering", Differs, AS_ANNOTATION, "on"),
    row("proxy-buffers-number", Differs, AS_ANNOTATION, "4"),
    row("proxy-busy-buffers-size", Differs, AS_ANNOTATION, "8k"),
    row("proxy-connect-timeout", Works, "", "5"),
    row("proxy-cookie-domain", Works, "", "off"),
    row("proxy-cookie-path", Works, "", "off"),
    row("proxy-headers-hash-bucket-size", Refused, NO_TABLES, "64"),
    row("proxy-headers-hash-max-size", Refused, NO_TABLES, "512"),
    row("proxy-http-version", Differs, "1.0 is not spoken to endpoints", "1.1"),
    row("proxy-max-temp-file-size", Differs, AS_ANNOTATION, "1024m"),
    row("proxy-next-upstream", Differs, AS_ANNOTATION, "error timeout http_503"),
    row("proxy-next-upstream-timeout", Works, "", "0"),
    row("proxy-next-upstream-tries", Works, "", "3"),
    row("proxy-protocol-header-timeout", Differs, "it is the time for TLS handshakes, too", "5s"),
    row("proxy-read-timeout", Works, "", "60"),
    row("proxy-real-ip-cidr", Works, "", "10.0.0.0/8"),
    row("proxy-redirect-from", Works, "", "off"),
    row("proxy-redirect-to", Works, "", "off"),
    row("proxy-request-buffering", Differs, AS_ANNOTATION, "on"),
    row("proxy-send-timeout", Works, "", "60"),
    row("proxy-set-headers", Refused, NO_NAMED_MAP, "default/headers"),
    row("proxy-ssl-location-only", Refused, "proxy-ssl-* are of an Ingress's own paths", "true"),
    row("proxy-stream-next-upstream", Refused, STREAM_TRIES, "true"),
    row("proxy-stream-next-upstream-timeout", Refused, STREAM_TRIES, "600s"),
    row("proxy-stream-next-upstream-tries", Refused, STREAM_TRIES, "3"),
    row(
        "proxy-stream-responses",
        Refused,
        "a client of UDP is known for a minute after its last datagram",
        "1",
    ),
    row("proxy-stream-timeout", Differs, "of TCP, and of TLS that is passed on", "600s"),
    row("relative-redirects", Works, "", "true"),
    row("retry-non-idempotent", Works, "", "true"),
    row("reuse-port", Refused, "always: a listener for each processor", "true"),
    row("server-name-hash-bucket-size", Refused, NO_TABLES, "64"),
    row("server-name-hash-max-size", Refused, NO_TABLES, "1024"),
    row("server-snippet", Differs, TYPED, "more_set_headers 'X-A: b';"),
    row("server-tokens", Refused, "our Server field has no version", "true"),
    row("service-upstream", Works, "", "true"),
    row("skip-access-log-urls", Differs, EXPRESSIONS, "/healthz,~^/metrics"),
    row("ssl-buffer-size", Refused, OWN_SUITES, "4k"),
    row("ssl-ciphers", Refused, OWN_SUITES, "HIGH"),
    row("ssl-dh-param", Refused, OWN_SUITES, "default/dh"),
    row(
        "ssl-early-data",
        Refused,
        "0-RTT can be replayed by anybody who saw it: never accepted",
        "true",
    ),
    row("ssl-ecdh-curve", Refused, OWN_SUITES, "auto"),
    row(
        "ssl-protocols",
        Differs,
        "TLSv1.2 and TLSv1.3; older ones are not spoken",
        "TLSv1.2 TLSv1.3",
    ),
    row("ssl-redirect", Works, "", "true"),
    row("ssl-reject-handshake", Works, "", "true"),
    row(
        "ssl-session-cache",
        Refused,
        "sessions are resumed by tickets, which need no memory",
        "true",
    ),
    row(
        "ssl-session-cache-size",
        Refused,
        "sessions are resumed by tickets, which need no memory",
        "10m",
    ),
    row(
        "ssl-session-ticket-key",
        Refused,
        "keys are made, changed every six hours and never shown",
        "x",
    ),
    row("ssl-session-tickets", Differs, "true without it", "true"),
    row("ssl-session-timeout", Refused, "tickets hold for twelve hours at most", "10m"),
    row("stream-access-log-path", Refused, STREAMS, "/dev/stdout"),
    row("stream-snippet", Refused, NO_CODE, "x"),
    row(
        "strict-validate-path-type",
        Refused,
        "there is no webhook: a path of type Exact or Prefix is served with other characters than \
         letters, digits and ._-/, too; --matching strict takes none of them for an \
         expression",
        "true",
    ),
    row("syslog-host", Refused, NO_SYSLOG, "log"),
    row("syslog-port", Refused, NO_SYSLOG, "514"),
    row("upstream-keepalive-connections", Differs, "for each endpoint and thread", "320"),
    row(
        "upstream-keepalive-requests",
        Refused,
        "connections to endpoints are kept as long as both sides wish",
        "10000",
    ),
    row(
        "upstream-keepalive-time",
        Refused,
        "connections to endpoints are kept as long as both sides wish",
        "1h",
    ),
    row("upstream-keepalive-timeout", Works, "", "60"),
    row(
        "use-forwarded-headers",
        Differs,
        "the last address of X-Forwarded-For that is none of proxy-real-ip-cidr counts, not the \
         first, which anybody may write; as with lists in X-Forwarded-Proto, -Host and -Port, \
         which are believed of proxy-real-ip-cidr, and of everybody where that names nobody, as by \
         ingress-nginx: name your balancers; Host is passed on as received",
        "true",
    ),
    row("use-geoip", Refused, NO_GEOIP, "true"),
    row("use-geoip2", Refused, NO_GEOIP, "true"),
    row(
        "use-gzip",
        Differs,
        "answers with no-transform, Content-Digest, Repr-Digest, Digest or Content-MD5 stay as they \
         are, and those above 256 at once of a thread",
        "true",
    ),
    row("use-http2", Works, "", "true"),
    row("use-port-in-redirects", Works, "", "true"),
    row(
        "use-proxy-protocol",
        Differs,
        "where proxy-real-ip-cidr names nobody everybody is believed, as by ingress-nginx, and an \
         Event says so: name your balancers; port 443 in the header is HTTPS",
        "true",
    ),
    row("variables-hash-bucket-size", Refused, NO_TABLES, "128"),
    row("variables-hash-max-size", Refused, NO_TABLES, "2048"),
    row("whitelist-source-range", Works, "", "10.0.0.0/8"),
    row("worker-cpu-affinity", Refused, "the scheduler places threads", "auto"),
    row("worker-processes", Refused, "one thread for each processor", "4"),
    row("worker-shutdown-timeout", Refused, "--drain-timeout says how long", "240s"),
];
