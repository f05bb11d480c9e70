//! Which Service and endpoint a request goes to, and what leads elsewhere.

use super::{
    Annotation,
    Support::{Differs, Works},
    row,
};

const CANARY: &str = "annotations::canary::header_cookie_and_weight_choose_the_service";
const COOKIE: &str = "annotations::balance::the_cookie_is_made_as_the_annotations_say";
const ELSEWHERE: &str = "annotations::redirects::annotations_send_requests_elsewhere";
const HASH: &str =
    "annotations::balance::a_hash_of_the_request_leads_to_one_endpoint_or_one_subset";
const HTTPS: &str = "annotations::redirects::a_redirect_to_https_keeps_what_it_is_told_to_keep";
const REWRITE: &str = "annotations::rewrite::a_path_is_rewritten_with_what_it_captured";
const STICKY: &str = "annotations::balance::a_cookie_keeps_a_client_with_its_endpoint";

/// By name.
pub(super) static ROWS: &[Annotation] = &[
    row("affinity", Works, "", "cookie", STICKY),
    row(
        "affinity-canary-behavior",
        Works,
        "",
        "legacy",
        "annotations::canary::bug_it_is_the_canary_that_says_that_it_is_legacy",
    ),
    row("affinity-mode", Works, "", "persistent", STICKY),
    row("app-root", Works, "in its own namespace's hosts", "/app", ELSEWHERE),
    row(
        "canary",
        Differs,
        "a canary is for a path of a host, not for all paths of a Service, and for Ingresses of its namespace",
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
    row(
        "default-backend",
        Works,
        "",
        "pages",
        "annotations::errors::a_service_without_endpoints_is_stood_in_for",
    ),
    row("force-ssl-redirect", Works, "", "true", HTTPS),
    row(
        "from-to-www-redirect",
        Works,
        "in its own namespace's hosts",
        "true",
        "annotations::redirects::www_and_the_bare_name_lead_to_the_one_that_has_rules",
    ),
    row(
        "load-balance",
        Differs,
        "round_robin, ewma and least_conn; the others go by upstream-hash-by and affinity",
        "ewma",
        "annotations::balance::the_faster_of_two_endpoints_gets_most_requests",
    ),
    row("permanent-redirect", Works, "variables may stand in it", "https://b.example", ELSEWHERE),
    row("permanent-redirect-code", Differs, "301, 302, 303, 307 and 308 only", "308", ELSEWHERE),
    row("preserve-trailing-slash", Works, "", "true", HTTPS),
    row("relative-redirects", Works, "", "true", ELSEWHERE),
    row(
        "rewrite-target",
        Differs,
        "paths without look-around and back references; what comes out is brought to normal form",
        "/$2",
        REWRITE,
    ),
    row(
        "server-alias",
        Differs,
        "names and *. names of one label, no regular expressions; in its own namespace's hosts",
        "b.example",
        "annotations::redirects::an_alias_is_served_as_its_host_unless_it_has_rules",
    ),
    row(
        "service-upstream",
        Works,
        "a headless Service's endpoints are asked",
        "true",
        "annotations::upstream::a_services_own_address_is_asked_where_that_is_wished",
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
        "ssl-passthrough",
        Works,
        "no flag is needed; whoever has `/` of the host decides, in its own namespace's hosts",
        "true",
        "passthrough::tls_of_a_name_is_passed_on_unopened",
    ),
    row(
        "ssl-redirect",
        Works,
        "",
        "false",
        "tls::plain_http_of_a_tls_host_is_redirected_unless_told_not_to",
    ),
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
    row("use-port-in-redirects", Works, "", "true", HTTPS),
    row(
        "use-regex",
        Differs,
        "without look-around and back references; all paths of a host are expressions where one of the \
         host's namespace is, and of other namespaces those alone that say so",
        "true",
        "annotations::rewrite::one_expression_makes_expressions_of_all_paths_of_its_host",
    ),
    row("x-forwarded-prefix", Works, "", "/app", REWRITE),
];
