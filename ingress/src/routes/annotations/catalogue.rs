//! Every annotation of ingress-nginx 1.15, and what becomes of it here.

use self::Support::{Differs, Refused, Works};

/// How far an annotation is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Support {
    /// As by ingress-nginx.
    Works,
    /// It is served, and something is different.
    Differs,
    /// It is not.
    Refused,
}

/// One annotation, without `nginx.ingress.kubernetes.io/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Its name.
    pub name: &'static str,
    /// How far it is served.
    pub support: Support,
    /// What is different, or why it is not served; for others what is worth knowing, perhaps.
    pub note: &'static str,
    /// A value of its.
    pub example: &'static str,
    /// The test that shows it, a path below the crate's `tests/it`.
    pub test: &'static str,
}

impl Support {
    /// The word in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Works => "works",
            Differs => "differs",
            Refused => "refused",
        }
    }
}

impl Annotation {
    /// What is said of one that has no effect.
    pub(super) fn not_served(&self, name: &str, value: &str) -> String {
        let how = if self.support == Refused { " is not served" } else { "" };
        format!("annotation {name} {value:?}{how}: {}", self.note)
    }
}

/// The annotation of this name.
pub(super) fn find(name: &str) -> Option<&'static Annotation> {
    ANNOTATIONS.iter().find(|annotation| annotation.name == name)
}

const fn row(
    name: &'static str,
    support: Support,
    note: &'static str,
    example: &'static str,
    test: &'static str,
) -> Annotation {
    Annotation { name, support, note, example, test }
}

const AUTH: &str = "annotations::auth::somebody_else_is_asked_and_decides";
const BODIES: &str = "bodies stream both ways with back-pressure, nothing is buffered";
const BUFFERS: &str = "annotations::upstream::what_is_never_buffered_has_no_buffers";
const CACHE: &str =
    "annotations::auth::answers_are_remembered_under_their_key_and_as_long_as_is_said";
const CANARY: &str = "annotations::canary::header_cookie_and_weight_choose_the_service";
const CLOSED: &str = "annotations::auth::what_cannot_be_read_of_authentication_lets_nobody_in";
const CLIENT_TLS: &str = "annotations::client_tls::a_client_is_let_in_by_its_certificate";
const COOKIE: &str = "annotations::balance::the_cookie_is_made_as_the_annotations_say";
const CORS: &str = "annotations::cors::a_preflight_is_answered_before_anybody_is_asked_who_he_is";
const ELSEWHERE: &str = "annotations::redirects::annotations_send_requests_elsewhere";
const ENDPOINTS: &str = "annotations::upstream::endpoints_see_the_host_they_are_to_see";
const ERRORS: &str = "annotations::errors::errors_are_answered_by_the_service_that_is_to";
const HASH: &str =
    "annotations::balance::a_hash_of_the_request_leads_to_one_endpoint_or_one_subset";
const HTTPS: &str = "annotations::redirects::a_redirect_to_https_keeps_what_it_is_told_to_keep";
const LISTS: &str = "annotations::access::lists_of_addresses_let_in_and_keep_out";
const MIRROR: &str = "annotations::mirror::requests_are_copied_and_nobody_waits_for_it";
const NONE: &str = "annotations::documentation::what_is_refused_says_why";
const NO_CODE: &str = "nothing a tenant writes is executed";
const PASSWORD: &str = "annotations::auth::a_password_lets_in_and_goes_no_further";
const RATES: &str = "annotations::limits::requests_above_the_rate_and_its_burst_are_503";
const REPLY: &str = "annotations::cors::cookies_and_redirects_of_endpoints_are_told_otherwise";
const RETRIES: &str =
    "annotations::retries::an_answer_that_is_to_be_passed_over_is_while_there_is_another";
const REWRITE: &str = "annotations::rewrite::a_path_is_rewritten_with_what_it_captured";
const SLOW: &str = "annotations::limits::a_body_goes_out_no_faster_than_it_may";
const SERVER_SNIPPET: &str =
    "as configuration-snippet, before it, for the paths of its own Ingress";
const SNIPPET: &str = "more_set_headers, more_clear_headers, add_header, proxy_set_header, return and \
                       if on a variable; any other directive refuses the snippet with its line";
const SNIPPETS: &str = "annotations::snippets::directives_people_use_are_actions";
const STICKY: &str = "annotations::balance::a_cookie_keeps_a_client_with_its_endpoint";
const TIMEOUTS: &str =
    "annotations::retries::who_does_not_answer_in_the_time_of_the_annotation_is_given_up";
const UPSTREAM_TLS: &str = "upstream_tls::a_certificate_counts_if_and_only_if_it_is_to_be_verified";

/// All of them, by name.
pub static ANNOTATIONS: &[Annotation] = &[
    row("affinity", Works, "", "cookie", STICKY),
    row(
        "affinity-canary-behavior",
        Works,
        "",
        "legacy",
        "annotations::canary::a_cookie_keeps_a_client_with_its_service_unless_it_is_legacy",
    ),
    row("affinity-mode", Works, "", "persistent", STICKY),
    row(
        "allowlist-source-range",
        Differs,
        "behind a trusted balancer the last address of X-Forwarded-For counts, not the first, which anybody may write",
        "10.0.0.0/8",
        LISTS,
    ),
    row("app-root", Works, "", "/app", ELSEWHERE),
    row("auth-always-set-cookie", Works, "", "true", AUTH),
    row("auth-cache-duration", Works, "", "200 202 401 5m", CACHE),
    row("auth-cache-key", Works, "", "$remote_user$http_authorization", CACHE),
    row("auth-keepalive", Works, "connections are kept in any case", "4", AUTH),
    row("auth-keepalive-requests", Works, "connections are kept in any case", "100", AUTH),
    row("auth-keepalive-share-vars", Works, "", "true", AUTH),
    row("auth-keepalive-timeout", Works, "connections are kept in any case", "60", AUTH),
    row("auth-method", Works, "", "GET", AUTH),
    row(
        "auth-proxy-set-headers",
        Refused,
        "ConfigMaps are not read; paths answer 503",
        "default/headers",
        CLOSED,
    ),
    row("auth-realm", Works, "", "The shop", PASSWORD),
    row("auth-request-redirect", Works, "", "https://a.example/", AUTH),
    row("auth-response-headers", Works, "", "X-User, X-Groups", AUTH),
    row(
        "auth-secret",
        Differs,
        "passwords hashed by crypt(3)'s DES let nobody in",
        "users",
        PASSWORD,
    ),
    row("auth-secret-type", Works, "", "auth-map", PASSWORD),
    row("auth-signin", Works, "", "https://login.example/start", AUTH),
    row("auth-signin-redirect-param", Works, "", "back", AUTH),
    row(
        "auth-snippet",
        Refused,
        "nothing a tenant writes is executed; paths answer 503",
        "x",
        CLOSED,
    ),
    row("auth-tls-error-page", Works, "", "https://a.example/", CLIENT_TLS),
    row("auth-tls-match-cn", Works, "", "CN=a", CLIENT_TLS),
    row("auth-tls-pass-certificate-to-upstream", Works, "", "true", CLIENT_TLS),
    row(
        "auth-tls-secret",
        Differs,
        "the host answers nobody by plain HTTP either; if the Secret cannot be read, nobody at all",
        "default/ca",
        CLIENT_TLS,
    ),
    row("auth-tls-verify-client", Works, "", "on", CLIENT_TLS),
    row("auth-tls-verify-depth", Differs, "chains are as long as they are", "1", CLIENT_TLS),
    row("auth-type", Differs, "basic only; with digest paths answer 503", "basic", PASSWORD),
    row(
        "auth-url",
        Differs,
        "its certificate is not verified, as by ingress-nginx; variables are those of this list",
        "http://auth.auth.svc/verify",
        AUTH,
    ),
    row(
        "backend-protocol",
        Differs,
        "HTTP, HTTPS, GRPC, GRPCS; AUTO_HTTP and FCGI are spoken to as HTTP",
        "HTTPS",
        "grpc::protocols_not_served_are_told",
    ),
    row(
        "canary",
        Differs,
        "a canary is for a path of a host, not for all paths of a Service",
        "true",
        CANARY,
    ),
    row("canary-by-cookie", Works, "", "canary", CANARY),
    row("canary-by-header", Works, "", "X-Canary", CANARY),
    row(
        "canary-by-header-pattern",
        Differs,
        "without look-around and back references",
        "^v[23]$",
        CANARY,
    ),
    row("canary-by-header-value", Works, "", "yes", CANARY),
    row(
        "canary-weight",
        Works,
        "",
        "10",
        "annotations::canary::a_weight_is_a_share_of_the_requests",
    ),
    row(
        "canary-weight-total",
        Works,
        "",
        "1000",
        "annotations::canary::a_weight_is_a_share_of_the_requests",
    ),
    row("client-body-buffer-size", Differs, BODIES, "8k", BUFFERS),
    row(
        "configuration-snippet",
        Differs,
        SNIPPET,
        "more_set_headers \"X-Frame-Options: DENY\";",
        SNIPPETS,
    ),
    row(
        "connection-proxy-header",
        Works,
        "",
        "close",
        "annotations::upstream::connections_to_endpoints_are_closed_where_that_is_wished",
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
    row("custom-headers", Refused, "ConfigMaps are not read", "default/headers", NONE),
    row(
        "custom-http-errors",
        Differs,
        "needs default-backend; bodies of requests are not sent again; 401 and 403 stay what they are",
        "404,503",
        ERRORS,
    ),
    row(
        "default-backend",
        Works,
        "",
        "pages",
        "annotations::errors::a_service_without_endpoints_is_stood_in_for",
    ),
    row(
        "denylist-source-range",
        Differs,
        "behind a trusted balancer the last address of X-Forwarded-For counts, not the first, which anybody may write",
        "192.0.2.0/24",
        LISTS,
    ),
    row("disable-proxy-intercept-errors", Works, "", "true", ERRORS),
    row("enable-access-log", Differs, "there is no access log yet", "false", NONE),
    row("enable-cors", Works, "", "true", CORS),
    row(
        "enable-global-auth",
        Differs,
        "there is no authentication for all Ingresses to leave out",
        "false",
        NONE,
    ),
    row("enable-modsecurity", Refused, "there is no web application firewall", "true", NONE),
    row("enable-opentelemetry", Refused, "no traces yet", "true", NONE),
    row("enable-owasp-core-rules", Refused, "there is no web application firewall", "true", NONE),
    row(
        "enable-rewrite-log",
        Refused,
        "`fairlead trace` tells how a request is rewritten",
        "true",
        NONE,
    ),
    row("fastcgi-index", Refused, "FastCGI is not spoken", "index.php", NONE),
    row("fastcgi-params-configmap", Refused, "FastCGI is not spoken", "default/params", NONE),
    row("force-ssl-redirect", Works, "", "true", HTTPS),
    row(
        "from-to-www-redirect",
        Works,
        "",
        "true",
        "annotations::redirects::www_and_the_bare_name_lead_to_the_one_that_has_rules",
    ),
    row("http2-push-preload", Refused, "browsers have left HTTP/2's push", "true", NONE),
    row("limit-allowlist", Works, "", "10.0.0.0/8", RATES),
    row("limit-burst-multiplier", Works, "", "3", RATES),
    row(
        "limit-connections",
        Works,
        "",
        "10",
        "annotations::limits::requests_in_service_are_counted_until_they_end",
    ),
    row("limit-rate", Works, "", "100", SLOW),
    row("limit-rate-after", Works, "", "1000", SLOW),
    row("limit-rpm", Works, "", "300", RATES),
    row("limit-rps", Works, "", "5", RATES),
    row("limit-whitelist", Works, "", "10.0.0.0/8", RATES),
    row(
        "load-balance",
        Differs,
        "round_robin and ewma; the others go by upstream-hash-by and affinity",
        "ewma",
        "annotations::balance::the_faster_of_two_endpoints_gets_most_requests",
    ),
    row("mirror-host", Works, "", "mirror.example", MIRROR),
    row(
        "mirror-request-body",
        Differs,
        "bodies are never copied: with on, requests that have one are not copied at all",
        "off",
        MIRROR,
    ),
    row(
        "mirror-target",
        Differs,
        "requests with a body are copied without it, and only if mirror-request-body is off",
        "https://mirror.example$request_uri",
        MIRROR,
    ),
    row("modsecurity-snippet", Refused, "there is no web application firewall", "x", NONE),
    row(
        "modsecurity-transaction-id",
        Refused,
        "there is no web application firewall",
        "$request_id",
        NONE,
    ),
    row("opentelemetry-operation-name", Refused, "no traces yet", "x", NONE),
    row("opentelemetry-trust-incoming-span", Refused, "no traces yet", "true", NONE),
    row("permanent-redirect", Works, "variables may stand in it", "https://b.example", ELSEWHERE),
    row("permanent-redirect-code", Differs, "301, 302, 303, 307 and 308 only", "308", ELSEWHERE),
    row("preserve-trailing-slash", Works, "", "true", HTTPS),
    row(
        "proxy-body-size",
        Works,
        "",
        "8m",
        "limits::a_body_is_limited_to_the_byte_however_its_length_is_told",
    ),
    row("proxy-buffer-size", Differs, BODIES, "8k", BUFFERS),
    row("proxy-buffering", Differs, BODIES, "on", BUFFERS),
    row("proxy-buffers-number", Differs, BODIES, "4", BUFFERS),
    row("proxy-busy-buffers-size", Differs, BODIES, "16k", BUFFERS),
    row("proxy-connect-timeout", Works, "", "5", TIMEOUTS),
    row("proxy-cookie-domain", Works, "", "inner.example outer.example", REPLY),
    row("proxy-cookie-path", Works, "", "/one/ /", REPLY),
    row("proxy-http-version", Differs, "1.0 is not spoken to endpoints", "1.1", BUFFERS),
    row("proxy-max-temp-file-size", Differs, BODIES, "1024m", BUFFERS),
    row(
        "proxy-next-upstream",
        Differs,
        "requests with a body are sent again only if nothing of them was sent; invalid_header is error",
        "error timeout http_503",
        RETRIES,
    ),
    row("proxy-next-upstream-timeout", Works, "", "10", TIMEOUTS),
    row("proxy-next-upstream-tries", Works, "", "2", RETRIES),
    row("proxy-read-timeout", Works, "", "120", TIMEOUTS),
    row("proxy-redirect-from", Works, "", "http://inner.example/", REPLY),
    row("proxy-redirect-to", Works, "", "https://outer.example/", REPLY),
    row("proxy-request-buffering", Differs, BODIES, "on", BUFFERS),
    row("proxy-send-timeout", Works, "", "120", TIMEOUTS),
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
    row("proxy-ssl-verify", Works, "", "on", UPSTREAM_TLS),
    row("proxy-ssl-verify-depth", Refused, "chains are as long as they are", "1", NONE),
    row("relative-redirects", Works, "", "true", ELSEWHERE),
    row(
        "rewrite-target",
        Differs,
        "paths without look-around and back references; what comes out is brought to normal form",
        "/$2",
        REWRITE,
    ),
    row(
        "satisfy",
        Works,
        "",
        "any",
        "annotations::auth::satisfy_any_takes_the_address_or_the_password",
    ),
    row(
        "server-alias",
        Differs,
        "names and *. names of one label; no regular expressions",
        "b.example",
        "annotations::redirects::an_alias_is_served_as_its_host_unless_it_has_rules",
    ),
    row("server-snippet", Differs, SERVER_SNIPPET, "return 403;", SNIPPETS),
    row(
        "service-upstream",
        Refused,
        "endpoints are balanced one by one, so none is asked that is gone",
        "true",
        NONE,
    ),
    row(
        "session-cookie-change-on-failure",
        Works,
        "",
        "true",
        "annotations::balance::a_cookie_that_leads_to_a_failing_endpoint_is_changed_where_that_is_wished",
    ),
    row("session-cookie-conditional-samesite-none", Works, "", "true", COOKIE),
    row("session-cookie-domain", Works, "", "example.com", COOKIE),
    row("session-cookie-expires", Works, "", "3600", COOKIE),
    row("session-cookie-max-age", Works, "", "3600", COOKIE),
    row(
        "session-cookie-name",
        Works,
        "cookies of ingress-nginx lead to other endpoints once",
        "route",
        COOKIE,
    ),
    row("session-cookie-path", Works, "", "/app", COOKIE),
    row("session-cookie-samesite", Works, "", "Lax", COOKIE),
    row("session-cookie-secure", Works, "", "true", COOKIE),
    row(
        "ssl-ciphers",
        Refused,
        "rustls's suites of TLS 1.2 and 1.3 are all there are, and none is weak",
        "HIGH",
        NONE,
    ),
    row("ssl-passthrough", Refused, "not served yet", "true", NONE),
    row("ssl-prefer-server-ciphers", Refused, "the server's order is used", "true", NONE),
    row(
        "ssl-redirect",
        Works,
        "",
        "false",
        "tls::plain_http_of_a_tls_host_is_redirected_unless_told_not_to",
    ),
    row("stream-snippet", Refused, NO_CODE, "x", NONE),
    row("temporal-redirect", Works, "variables may stand in it", "https://b.example", ELSEWHERE),
    row("temporal-redirect-code", Differs, "301, 302, 303, 307 and 308 only", "307", ELSEWHERE),
    row(
        "upstream-hash-by",
        Differs,
        "other endpoints than ketama's; a constant is refused",
        "$request_uri",
        HASH,
    ),
    row("upstream-hash-by-subset", Works, "", "true", HASH),
    row("upstream-hash-by-subset-size", Works, "", "3", HASH),
    row("upstream-vhost", Works, "", "internal.example", ENDPOINTS),
    row("use-port-in-redirects", Works, "", "true", HTTPS),
    row(
        "use-regex",
        Differs,
        "without look-around and back references",
        "true",
        "annotations::rewrite::one_expression_makes_expressions_of_all_paths_of_its_host",
    ),
    row(
        "whitelist-source-range",
        Differs,
        "behind a trusted balancer the last address of X-Forwarded-For counts, not the first, which anybody may write",
        "10.0.0.0/8",
        LISTS,
    ),
    row("x-forwarded-prefix", Works, "", "/app", REWRITE),
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fairlead_state::{Key, model::Ingress};

    use super::{super::parse, *};
    use crate::routes::Severity;

    /// What is said of an Ingress that has nothing but this.
    fn said(annotation: &Annotation) -> Vec<(Severity, String)> {
        let name = format!("nginx.ingress.kubernetes.io/{}", annotation.name);
        let ingress = Ingress {
            key: Key::new("default", "web"),
            created_seconds: 0,
            class_name: None,
            annotations: Arc::new([(name.into(), annotation.example.into())].into()),
            default_backend: None,
            rules: [].into(),
            tls: [].into(),
        };
        let mut said = Vec::new();
        parse(&ingress, |severity, reason| said.push((severity, reason)));
        said
    }

    #[test]
    fn the_parsers_do_what_the_list_says() {
        assert!(ANNOTATIONS.is_sorted_by_key(|annotation| annotation.name));
        for annotation in ANNOTATIONS {
            let said = said(annotation);
            let is_unknown = said.iter().any(|(_, reason)| reason.contains("has no effect here"));
            assert!(!is_unknown, "{}: {said:?}", annotation.name);
            let is_about_it = |reason: &str| reason.contains(&format!("/{} ", annotation.name));
            let about_it = said.iter().filter(|(_, reason)| is_about_it(reason)).count();
            match annotation.support {
                Works => assert_eq!(about_it, 0, "{}: {said:?}", annotation.name),
                Differs => {}
                Refused => assert!(about_it > 0, "{}: {said:?}", annotation.name),
            }
            let has_note = !annotation.note.is_empty();
            assert!(has_note || annotation.support == Works, "{}", annotation.name);
        }
    }
}
