//! How endpoints are spoken to.

use super::{
    Annotation, NONE,
    Support::{Differs, Refused, Works},
    row,
};

const AHEAD: &str =
    "annotations::ahead::an_answer_read_ahead_leaves_its_endpoint_while_its_client_is_slow";
const AHEAD_SIZES: &str = "no more than 16 MiB of one answer are held";
const BUFFERS: &str = "annotations::buffering::what_is_said_of_buffers_is_read";
const WHOLE: &str = "annotations::buffering::attack_a_slow_upload_holds_no_endpoint";
const ENDPOINTS: &str = "annotations::upstream::endpoints_see_the_host_they_are_to_see";
const MIRROR: &str = "annotations::mirror::requests_are_copied_and_nobody_waits_for_it";
const MIRROR_BODIES: &str =
    "annotations::mirror::bodies::a_body_is_copied_whole_however_it_comes_and_goes_on_as_it_comes";
const RETRIES: &str =
    "annotations::retries::an_answer_that_is_to_be_passed_over_is_while_there_is_another";
const TIMES: &str = "annotations::retries::\
    an_endpoint_has_the_time_of_the_annotation_to_connect_and_to_take_a_request";
const TIMEOUTS: &str =
    "annotations::retries::who_does_not_answer_in_the_time_of_the_annotation_is_given_up";
const VERSION: &str = "annotations::upstream::no_old_version_is_spoken_to_endpoints";
const UPSTREAM_TLS: &str =
    "upstream_tls::cve_2025_66491_a_certificate_counts_if_and_only_if_it_is_to_be_verified";

/// By name.
pub(super) static ROWS: &[Annotation] = &[
    row(
        "backend-protocol",
        Differs,
        "HTTP, HTTPS, GRPC, GRPCS; AUTO_HTTP and FCGI are spoken to as HTTP",
        "HTTPS",
        "grpc::protocols_not_served_are_told",
    ),
    row(
        "client-body-buffer-size",
        Differs,
        "no file is behind it: 1 MiB more is held, and no more than 16 MiB of one request",
        "8k",
        BUFFERS,
    ),
    row(
        "connection-proxy-header",
        Works,
        "",
        "close",
        "annotations::upstream::connections_to_endpoints_are_closed_where_that_is_wished",
    ),
    row("fastcgi-index", Refused, "FastCGI is not spoken", "index.php", NONE),
    row("fastcgi-params-configmap", Refused, "FastCGI is not spoken", "default/params", NONE),
    row("mirror-host", Works, "variables may stand in it", "mirror.example", MIRROR),
    row(
        "mirror-request-body",
        Differs,
        "of 1 MiB at most, or of what proxy-request-buffering reads: larger requests, gRPC, and what is \
         answered before its body ended are not copied",
        "off",
        MIRROR_BODIES,
    ),
    row(
        "mirror-target",
        Differs,
        "a copy leaves when its request's body is whole, beside the request; WebSockets are not copied",
        "https://mirror.example$request_uri",
        MIRROR,
    ),
    row(
        "proxy-body-size",
        Works,
        "",
        "8m",
        "limits::a_body_is_limited_to_the_byte_however_its_length_is_told",
    ),
    row("proxy-buffer-size", Differs, AHEAD_SIZES, "8k", BUFFERS),
    row(
        "proxy-buffering",
        Differs,
        "in memory alone, and not of HTTP/2, whose windows read ahead; X-Accel-Buffering: yes turns \
         nothing on",
        "on",
        AHEAD,
    ),
    row("proxy-buffers-number", Differs, AHEAD_SIZES, "4", BUFFERS),
    row(
        "proxy-busy-buffers-size",
        Differs,
        "a client is sent what is there, however much is read ahead",
        "16k",
        BUFFERS,
    ),
    row("proxy-connect-timeout", Works, "", "5", TIMES),
    row("proxy-http-version", Differs, "1.0 is not spoken to endpoints", "1.1", VERSION),
    row(
        "proxy-max-temp-file-size",
        Differs,
        "no file is written: 1 MiB of it at most is held in memory",
        "1024m",
        BUFFERS,
    ),
    row(
        "proxy-next-upstream",
        Differs,
        "requests with a body are sent again only if nothing of them was sent, or if \
         proxy-request-buffering has read all of them, or to HTTP/2 64 KiB at most were sent; none after half a head",
        "error timeout http_503",
        RETRIES,
    ),
    row("proxy-next-upstream-timeout", Works, "", "10", TIMEOUTS),
    row("proxy-next-upstream-tries", Works, "", "2", RETRIES),
    row(
        "proxy-read-timeout",
        Works,
        "a WebSocket is waited for as long, since anything last passed, either way",
        "120",
        TIMEOUTS,
    ),
    row(
        "proxy-request-buffering",
        Differs,
        "off unless it is said; in memory alone: larger ones, and all of gRPC, go on as they come",
        "on",
        WHOLE,
    ),
    row("proxy-send-timeout", Works, "of a WebSocket, too", "120", TIMES),
    row(
        "proxy-ssl-ciphers",
        Refused,
        "rustls's suites of TLS 1.2 and 1.3 are all there are, and none is weak",
        "HIGH",
        NONE,
    ),
    row(
        "proxy-ssl-name",
        Differs,
        "SERVICE.NAMESPACE.svc is expected without it",
        "web.internal",
        "upstream_tls::the_name_is_told_when_asked_for",
    ),
    row("proxy-ssl-protocols", Refused, "TLS 1.2 and 1.3 are spoken", "TLSv1.3", NONE),
    row("proxy-ssl-secret", Works, "", "default/ca", UPSTREAM_TLS),
    row("proxy-ssl-server-name", Works, "", "on", "upstream_tls::the_name_is_told_when_asked_for"),
    row(
        "proxy-ssl-verify",
        Differs,
        "without proxy-ssl-secret, or ca.crt in it, paths answer 503 (ingress-nginx verifies nothing then); a \
         certificate of version 1 must be signed by one of ca.crt itself; a common name is nobody's where an \
         authority is for some names alone",
        "on",
        UPSTREAM_TLS,
    ),
    row("proxy-ssl-verify-depth", Refused, "chains are as long as they are", "1", NONE),
    row("upstream-vhost", Works, "variables may stand in it", "internal.example", ENDPOINTS),
];
