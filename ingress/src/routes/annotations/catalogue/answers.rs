//! What is told of answers, and of requests to whoever looks after them.

use super::{
    Annotation, NONE,
    Support::{Differs, Refused, Works},
    row,
};

const CORS: &str = "annotations::cors::a_preflight_is_answered_before_anybody_is_asked_who_he_is";
const ERRORS: &str = "annotations::errors::errors_are_answered_by_the_service_that_is_to";
const NO_CODE: &str = "nothing a tenant writes is executed";
const REPLY: &str = "annotations::cors::cookies_and_redirects_of_endpoints_are_told_otherwise";
const SERVER_SNIPPET: &str =
    "as configuration-snippet, before it, for the paths of its own Ingress";
const SNIPPET: &str = "more_set_headers, more_clear_headers, add_header, proxy_set_header, return and \
                       if on a variable; any other directive refuses the snippet with its line, and its \
                       paths answer 503 where it keeps somebody out (deny, return 403)";
const SNIPPETS: &str = "annotations::snippets::directives_people_use_are_actions";
const TRACES: &str = "traces::a_request_is_a_span_with_its_caller_as_parent";

/// By name.
pub(super) static ROWS: &[Annotation] = &[
    row(
        "configuration-snippet",
        Differs,
        SNIPPET,
        "more_set_headers \"X-Frame-Options: DENY\";",
        SNIPPETS,
    ),
    row("cors-allow-credentials", Works, "", "false", CORS),
    row("cors-allow-headers", Works, "", "X-A, X-B", CORS),
    row("cors-allow-methods", Works, "", "GET, PUT", CORS),
    row(
        "cors-allow-origin",
        Differs,
        "a list that cannot be read lets no site in, not all of them; origins are compared whole",
        "https://a.example, https://*.b.example",
        "annotations::cors::pages_of_listed_sites_may_ask_and_others_may_not",
    ),
    row("cors-expose-headers", Works, "", "X-C", CORS),
    row("cors-max-age", Works, "", "600", CORS),
    row(
        "custom-headers",
        Differs,
        "any field but those of framing; a ConfigMap of the Ingress's own namespace, of 256 fields at most",
        "headers",
        "annotations::headers::answers_have_what_a_config_map_says",
    ),
    row(
        "custom-http-errors",
        Differs,
        "needs default-backend, with an endpoint, which is sent what the path's own was, but for bodies and what \
         guards the path; 401 and 403 stay what they are",
        "404,503",
        ERRORS,
    ),
    row("disable-proxy-intercept-errors", Works, "", "true", ERRORS),
    row(
        "enable-access-log",
        Works,
        "",
        "false",
        "access_log::an_ingress_that_is_not_to_be_logged_is_not",
    ),
    row("enable-cors", Works, "", "true", CORS),
    row(
        "enable-opentelemetry",
        Differs,
        "needs otlp-collector-host in the ConfigMap; a request is one span, of OpenTelemetry's \
         names for HTTP servers",
        "true",
        TRACES,
    ),
    row(
        "enable-rewrite-log",
        Refused,
        "`fairlead trace` tells how a request is rewritten",
        "true",
        NONE,
    ),
    row("http2-push-preload", Refused, "browsers have left HTTP/2's push", "true", NONE),
    row("opentelemetry-operation-name", Works, "", "HTTP $request_method", TRACES),
    row("opentelemetry-trust-incoming-span", Works, "", "true", TRACES),
    row("proxy-cookie-domain", Works, "", "inner.example outer.example", REPLY),
    row("proxy-cookie-path", Works, "", "/one/ /", REPLY),
    row("proxy-redirect-from", Works, "", "http://inner.example/", REPLY),
    row("proxy-redirect-to", Works, "", "https://outer.example/", REPLY),
    row("server-snippet", Differs, SERVER_SNIPPET, "return 403;", SNIPPETS),
    row(
        "ssl-ciphers",
        Refused,
        "rustls's suites of TLS 1.2 and 1.3 are all there are, and none is weak",
        "HIGH",
        NONE,
    ),
    row("ssl-prefer-server-ciphers", Refused, "the server's order is used", "true", NONE),
    row("stream-snippet", Refused, NO_CODE, "x", NONE),
];
