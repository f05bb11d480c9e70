//! Who is let in, and how much of it.

use super::{
    Annotation, NONE,
    Support::{Differs, Refused, Works},
    row,
};

const AUTH: &str = "annotations::auth::somebody_else_is_asked_and_decides";
const ASKED: &str = "annotations::auth::a_question_and_what_comes_of_it_are_as_the_annotations_say";
const SHORTER: &str = "an answer's own word (Cache-Control, Expires, X-Accel-Expires) shortens it and never makes it longer";
const CACHE: &str =
    "annotations::auth::answers_are_remembered_under_their_key_and_as_long_as_is_said";
const CLOSED: &str = "annotations::passwords::what_cannot_be_read_of_authentication_lets_nobody_in";
const CLIENT_TLS: &str = "annotations::client_tls::a_client_is_let_in_by_its_certificate";
const LISTS: &str = "annotations::access::lists_of_addresses_let_in_and_keep_out";
const PASSWORD: &str = "annotations::passwords::a_password_lets_in_and_goes_no_further";
const RATES: &str = "annotations::limits::requests_above_the_rate_and_its_burst_are_503";
const SLOW: &str = "annotations::limits::a_body_goes_out_no_faster_than_it_may";

/// By name.
pub(super) static ROWS: &[Annotation] = &[
    row(
        "allowlist-source-range",
        Differs,
        "behind a trusted balancer the last address of X-Forwarded-For counts, not the first, which anybody may write",
        "10.0.0.0/8",
        LISTS,
    ),
    row("auth-always-set-cookie", Works, "", "true", ASKED),
    row("auth-cache-duration", Differs, SHORTER, "200 202 401 5m", CACHE),
    row("auth-cache-key", Works, "", "$remote_user$http_authorization", CACHE),
    row("auth-keepalive", Works, "connections are kept in any case", "4", ASKED),
    row("auth-keepalive-requests", Works, "connections are kept in any case", "100", ASKED),
    row("auth-keepalive-share-vars", Works, "", "true", ASKED),
    row("auth-keepalive-timeout", Works, "connections are kept in any case", "60", ASKED),
    row("auth-method", Works, "", "GET", ASKED),
    row(
        "auth-proxy-set-headers",
        Differs,
        "a ConfigMap of the Ingress's own namespace, of 256 fields at most",
        "headers",
        "annotations::headers::whoever_is_asked_is_told_what_a_config_map_says",
    ),
    row("auth-realm", Works, "", "The shop", PASSWORD),
    row("auth-request-redirect", Works, "", "https://a.example/", ASKED),
    row(
        "auth-response-headers",
        Differs,
        "256 names at most; Content-Length, Transfer-Encoding and fields of a connection are not passed on, and said \
         to be named",
        "X-User, X-Groups",
        "annotations::auth::attack_smuggling_who_is_asked_says_nothing_of_lengths_and_connections",
    ),
    row(
        "auth-secret",
        Differs,
        "passwords hashed by crypt(3)'s DES let nobody in",
        "users",
        PASSWORD,
    ),
    row("auth-secret-type", Works, "", "auth-map", PASSWORD),
    row("auth-signin", Works, "", "https://login.example/start", AUTH),
    row("auth-signin-redirect-param", Works, "", "back", ASKED),
    row(
        "auth-snippet",
        Refused,
        "nothing a tenant writes is executed; paths answer 503",
        "x",
        CLOSED,
    ),
    row(
        "auth-tls-error-page",
        Differs,
        "a URL of http or https; to a path or @name nobody is led, and the answer is 400",
        "https://a.example/",
        CLIENT_TLS,
    ),
    row("auth-tls-match-cn", Works, "", "CN=a", CLIENT_TLS),
    row("auth-tls-pass-certificate-to-upstream", Works, "", "true", CLIENT_TLS),
    row(
        "auth-tls-secret",
        Differs,
        "the host answers nobody by plain HTTP either; if it names no Secret of its namespace, or \
         the Secret, or ca.crl in it, cannot be read, nobody at all; lists of version 1, delta and indirect ones cannot be; in another namespace's host \
         it holds for nobody, and its own paths answer 503",
        "default/ca",
        CLIENT_TLS,
    ),
    row(
        "auth-tls-verify-client",
        Differs,
        "a certificate of version 1 must be signed by one of ca.crt itself",
        "on",
        CLIENT_TLS,
    ),
    row("auth-tls-verify-depth", Differs, "chains are as long as they are", "1", CLIENT_TLS),
    row(
        "auth-type",
        Differs,
        "basic, and digest with MD5, whose nonces hold for a minute; each count of one lets in once",
        "basic",
        "annotations::passwords::a_digest_lets_in_and_counts_for_one_request",
    ),
    row(
        "auth-url",
        Differs,
        "its certificate is not verified, as by ingress-nginx; variables are those of this list; \
         X-Original-URL has the scheme the client used",
        "http://auth.auth.svc/verify",
        AUTH,
    ),
    row(
        "denylist-source-range",
        Differs,
        "behind a trusted balancer the last address of X-Forwarded-For counts, not the first, which anybody may write",
        "192.0.2.0/24",
        LISTS,
    ),
    row(
        "enable-global-auth",
        Works,
        "",
        "false",
        "options::everybody_is_asked_for_by_default_and_some_are_left_out",
    ),
    row("enable-modsecurity", Refused, "there is no web application firewall", "true", NONE),
    row("enable-owasp-core-rules", Refused, "there is no web application firewall", "true", NONE),
    row("limit-allowlist", Works, "", "10.0.0.0/8", RATES),
    row("limit-burst-multiplier", Works, "", "3", RATES),
    row(
        "limit-connections",
        Works,
        "",
        "10",
        "annotations::limits::requests_in_service_are_counted_until_they_end",
    ),
    row("limit-rate", Works, "an endpoint's X-Accel-Limit-Rate comes before it", "100", SLOW),
    row("limit-rate-after", Works, "", "1000", SLOW),
    row("limit-rpm", Works, "", "300", RATES),
    row(
        "limit-rps",
        Works,
        "",
        "5",
        "annotations::limits::requests_of_a_second_are_counted_as_those_of_a_minute",
    ),
    row("limit-whitelist", Works, "", "10.0.0.0/8", RATES),
    row("modsecurity-snippet", Refused, "there is no web application firewall", "x", NONE),
    row(
        "modsecurity-transaction-id",
        Refused,
        "there is no web application firewall",
        "$request_id",
        NONE,
    ),
    row(
        "satisfy",
        Works,
        "",
        "any",
        "annotations::satisfy::one_of_address_password_and_authority_is_enough",
    ),
    row(
        "whitelist-source-range",
        Differs,
        "behind a trusted balancer the last address of X-Forwarded-For counts, not the first, which anybody may write",
        "10.0.0.0/8",
        LISTS,
    ),
];
