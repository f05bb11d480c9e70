//! Snippets that would have kept somebody out: to serve their paths without them would let everybody in.

use super::read::{Token, tokens};

/// Directives of nginx that keep somebody out, by how they begin, and the annotations that do as much.
/// Who is only slowed down (`limit_rate`) is let in. What stands for the endpoint (`content_by_lua`) may let
/// in whom it likes, and the endpoint would not.
const KEEPING: [(&str, &str); 17] = [
    ("allow", "allowlist-source-range"),
    ("deny", "denylist-source-range or allowlist-source-range"),
    ("auth_request", "auth-url"),
    ("auth_", "auth-type and auth-secret, or auth-url"),
    ("satisfy", "satisfy"),
    ("limit_req", "limit-rps or limit-rpm"),
    ("limit_conn", "limit-connections"),
    ("limit_except", METHOD),
    ("access_by_", "auth-url"),
    ("rewrite_by_", "auth-url"),
    ("server_rewrite_by_", "auth-url"),
    ("content_by_", "auth-url"),
    ("js_access", "auth-url"),
    ("js_content", "auth-url"),
    ("internal", RETURN),
    ("ssl_verify_client", "auth-tls-secret"),
    ("modsecurity", "a web application firewall in front of it"),
];
/// Of those, the ones that `off` turns off.
const SWITCHES: [&str; 4] = ["auth_basic", "auth_request", "modsecurity", "ssl_verify_client"];
/// How directives end that keep nobody out by themselves: they say what is counted (`limit_req_zone`), what
/// becomes of those a limit keeps out, or when something is done.
const BESIDE: [&str; 6] =
    ["_zone", "_status", "_log_level", "_dry_run", "_transaction_id", "_no_postpone"];
/// What may be said instead of an answer to whoever is kept out.
const RETURN: &str = "a snippet of `return` and of `if` on one variable alone";
const METHOD: &str = "a snippet of `if ($request_method ...) { return 403; }`";
/// And where no snippet is allowed.
const UNSNIPPED: &str = "allowlist-source-range, denylist-source-range, auth-url or other annotations, \
                         have the ConfigMap allow snippets (allow-snippet-annotations)";
/// Blocks of nginx's `http` that keep nobody out of Ingresses' paths, whatever their lines begin with. Servers
/// of their own guard themselves (ingress-nginx's stub_status, a `return 444` for strangers); of the others
/// those are values and no directives.
const APART: [&str; 5] = ["geo", "map", "server", "split_clients", "types"];

/// Words that are looked at for one directive's, where nobody knows where it ends.
const DIRECTIVE_WORDS_MAX: usize = 16;

/// What of a snippet keeps somebody out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// The directive.
    pub(crate) directive: String,
    /// What may be said instead.
    pub(crate) instead: &'static str,
}

/// What a text would keep out, if it is a snippet; `is_forbidden`: by the ConfigMap, which allows none.
pub(crate) fn keeping(name: &str, text: &str, is_forbidden: bool) -> Option<Keeping> {
    match (name, is_forbidden) {
        ("configuration-snippet" | "server-snippet", false) => in_text(text, true),
        // ingress-nginx serves without it, and most that lead away do so from an old name to a new one.
        ("configuration-snippet" | "server-snippet", true) => {
            let mut found = in_text(text, false)?;
            if [RETURN, METHOD].contains(&found.instead) {
                found.instead = UNSNIPPED;
            }
            Some(found)
        }
        _ => None,
    }
}

/// What a text would keep out of all Ingresses, if it is a snippet of the ConfigMap.
pub(crate) fn keeping_for_all(name: &str, text: &str) -> Option<Keeping> {
    match (name, tokens(text)) {
        ("http-snippet", Ok(tokens)) => in_tokens(&without_apart(&tokens), true),
        ("http-snippet" | "location-snippet" | "server-snippet", _) => in_text(text, true),
        _ => None,
    }
}

/// All but the blocks [`APART`].
fn without_apart(tokens: &[Token]) -> Vec<Token> {
    let (mut depth, mut left) = (0_usize, Vec::with_capacity(tokens.len()));
    for directive in tokens.split_inclusive(|token| token.is_mark) {
        let is_apart = directive.first().is_some_and(|first| APART.contains(&&*first.text));
        match mark(directive) {
            Some("{") if depth > 0 || is_apart => depth += 1,
            Some("}") if depth > 0 => depth -= 1,
            _ if depth == 0 => left.extend_from_slice(directive),
            _ => {}
        }
    }
    left
}

/// What a directive ends in.
fn mark(directive: &[Token]) -> Option<&str> {
    directive.last().filter(|token| token.is_mark).map(|mark| &*mark.text)
}

/// `counts_away`: who is led away within an `if` is kept out, too.
fn in_text(text: &str, counts_away: bool) -> Option<Keeping> {
    match tokens(text) {
        Ok(tokens) => in_tokens(&tokens, counts_away),
        // Where a quote does not end nobody knows where directives begin.
        Err(_) => {
            let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = text.split(|c| !is_inside(c)).filter(|word| !word.is_empty());
            let words: Vec<&str> = words.collect();
            let mut is_asked = false;
            words.iter().enumerate().find_map(|(i, word)| {
                is_asked |= counts_away && *word == "if";
                let rest = words.get(i + 1..).unwrap_or_default();
                of(word, rest.get(..DIRECTIVE_WORDS_MAX).unwrap_or(rest), is_asked)
            })
        }
    }
}

fn in_tokens(tokens: &[Token], counts_away: bool) -> Option<Keeping> {
    // Of each block around, whether it or one around it is an `if`'s, where that matters.
    let mut blocks: Vec<bool> = Vec::new();
    tokens.split_inclusive(|token| token.is_mark).find_map(|directive| {
        let is_asked = blocks.last().is_some_and(|is_asked| *is_asked);
        let words: Vec<&str> =
            directive.iter().filter(|token| !token.is_mark).map(|token| &*token.text).collect();
        let first = words.first().copied().unwrap_or_default();
        match mark(directive) {
            Some("{") => blocks.push(counts_away && (is_asked || first == "if")),
            Some("}") => _ = blocks.pop(),
            _ => {}
        }
        of(first, words.get(1..).unwrap_or_default(), is_asked)
    })
}

/// Of a directive and its words; `is_asked`: within an `if`, so that it is for some requests and not for
/// others.
fn of(directive: &str, words: &[&str], is_asked: bool) -> Option<Keeping> {
    let word = words.first().copied().unwrap_or_default();
    let found = |directive: String| Some(Keeping { directive, instead: RETURN });
    match (directive, word.parse::<u16>()) {
        ("return", Ok(400..600)) => return found(format!("return {word}")),
        // Whoever is led away, to where one signs in perhaps, is not let in.
        ("return", Ok(301..=303 | 307 | 308)) if is_asked => {
            return found(format!("return {word}"));
        }
        ("return", Err(_)) if is_asked && leads_away(word) => {
            return found("return of a URL".to_owned());
        }
        ("rewrite", _) if is_asked && words.iter().any(|word| leads_away(word)) => {
            return found("rewrite to a URL".to_owned());
        }
        _ => {}
    }
    let is_off = SWITCHES.contains(&directive) && word == "off";
    if is_off || BESIDE.iter().any(|end| directive.ends_with(end)) {
        return None;
    }
    let (_, instead) = KEEPING.iter().find(|(begin, _)| match begin.ends_with('_') {
        true => directive.starts_with(begin),
        false => {
            let rest = directive.strip_prefix(begin);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        }
    })?;
    Some(Keeping { directive: directive.to_owned(), instead })
}

/// Whether a word of `return` or `rewrite` makes a redirect of it.
fn leads_away(word: &str) -> bool {
    let begins = ["http", "scheme", "$scheme", "${scheme}"];
    matches!(word, "redirect" | "permanent") || begins.iter().any(|begin| word.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_that_keep_somebody_out_are_found_wherever_they_are() {
        for (text, directive) in [
            ("deny 192.0.2.1;", Some("deny")),
            ("more_set_headers 'X: y';\nallow 10.0.0.0/8;\ndeny all;", Some("allow")),
            ("location /x { deny all; }", Some("deny")),
            ("auth_basic \"who\";", Some("auth_basic")),
            ("auth_request /verify;", Some("auth_request")),
            ("satisfy any;", Some("satisfy")),
            ("limit_req zone=a burst=5;", Some("limit_req")),
            ("limit_conn a 5;", Some("limit_conn")),
            ("limit_req_status 429; limit_req zone=a;", Some("limit_req")),
            ("limit_except GET { deny all; }", Some("limit_except")),
            ("access_by_lua_block { ngx.exit(403) }", Some("access_by_lua_block")),
            ("if ($a = b) { return 403; }", Some("return 403")),
            ("if ( $a ~* \"(x|y)\" ) {\n  return 444;\n}", Some("return 444")),
            ("set $x 1; return 503 \"later\";", Some("return 503")),
            ("more_set_headers 'X: y; deny", Some("deny")),
            ("set $a 'b;\nif ($x) { return 401; }", Some("return 401")),
            ("rewrite_by_lua_block { ngx.exit(403) }", Some("rewrite_by_lua_block")),
            ("content_by_lua_file /a.lua;", Some("content_by_lua_file")),
            ("js_access main.access;", Some("js_access")),
            ("internal;", Some("internal")),
            ("ssl_client_certificate /ca.pem;\nssl_verify_client on;", Some("ssl_verify_client")),
            ("modsecurity on;", Some("modsecurity")),
            ("modsecurity_rules 'SecRuleEngine On';", Some("modsecurity_rules")),
            ("set $x 1; if ($x) { return 302 /login; }", Some("return 302")),
            ("location / { if ($x) { return https://a.example/; } }", Some("return of a URL")),
            ("if ($x) { rewrite ^ /login redirect; }", Some("rewrite to a URL")),
            (
                "if ($host != 'www.a') { rewrite ^ https://www.a$request_uri permanent; }",
                Some("rewrite to a URL"),
            ),
            ("if ($x) { rewrite ^ $scheme://a.example/; }", Some("rewrite to a URL")),
            ("more_set_headers 'X: y; if ($x) { return 302 /login; }", Some("return 302")),
            // Nobody is kept out.
            ("ssl_verify_client off; auth_basic off; modsecurity off;", None),
            ("modsecurity_transaction_id $request_id; rewrite_by_lua_no_postpone on;", None),
            ("if ($http_if_none_match) { return 304; }", None),
            ("if ($x) { set $y 1; } return 302 /new;", None),
            ("if ($x) { return 204; }", None),
            ("if ($x) { rewrite ^/a /b break; } rewrite ^/c /d redirect;", None),
            ("internally on;", None),
            ("limit_rate 10k;", None),
            ("limit_req_zone $binary_remote_addr zone=a:1m rate=1r/s;", None),
            ("limit_rate_after 1m;", None),
            ("limit_req_status 429;", None),
            ("limit_req_log_level warn;", None),
            ("limit_req_dry_run on;", None),
            ("limit_conn_status 429;", None),
            ("limit_conn_log_level warn;", None),
            ("limit_conn_dry_run on;", None),
            ("return 301 /x;", None),
            ("return https://b.example/;", None),
            ("# deny all;\nset $a 1;", None),
            ("proxy_set_header X-Auth deny;", None),
            ("more_set_headers 'deny: all;';", None),
            ("denying all;", None),
            ("", None),
        ] {
            for name in ["configuration-snippet", "server-snippet"] {
                let found = keeping(name, text, false).map(|keeping| keeping.directive);
                assert_eq!(found.as_deref(), directive, "{name} {text:?}");
            }
        }
        assert_eq!(keeping("proxy-body-size", "deny all;", false), None);
    }

    /// It closed its paths, and what was to be said instead was another snippet.
    #[test]
    fn bug_what_is_not_allowed_keeps_nobody_out_by_leading_away() {
        const REDIRECT: &str =
            "if ($host = a.example) { return 301 https://b.example$request_uri; }";
        for (text, found) in [
            (REDIRECT, None),
            ("if ($x) { return https://b.example/; }", None),
            ("if ($x) { rewrite ^ https://b.example/ permanent; }", None),
            ("more_set_headers 'X: y; if ($x) { return 302 /login; }", None),
            ("if ($x) { return 403; }", Some(("return 403", UNSNIPPED))),
            (&format!("{REDIRECT} return 503;"), Some(("return 503", UNSNIPPED))),
            (&format!("{REDIRECT} internal;"), Some(("internal", UNSNIPPED))),
            ("limit_except GET { deny all; }", Some(("limit_except", UNSNIPPED))),
            ("auth_request /verify;", Some(("auth_request", "auth-url"))),
            ("limit_conn a 5;", Some(("limit_conn", "limit-connections"))),
            ("more_set_headers 'X: y; if ($x) { return 401; }", Some(("return 401", UNSNIPPED))),
        ] {
            let keeping = keeping("configuration-snippet", text, true);
            let keeping = keeping.as_ref().map(|found| (&*found.directive, found.instead));
            assert_eq!(keeping, found, "{text:?}");
        }
        assert_eq!(keeping("proxy-body-size", "deny all;", true), None);
    }

    #[test]
    fn servers_of_their_own_and_tables_of_values_guard_nobody() {
        const STATUS: &str = "server { listen 1; location /s { allow 127.0.0.1; deny all; } }";
        // What limits clients of outside alone is written so.
        const GEO: &str = "geo $net { default external; 10.0.0.0/8 internal; }";
        const MAP: &str = "map $net $key { external $binary_remote_addr; internal ''; }";
        for (name, text, directive) in [
            ("http-snippet", "deny 192.0.2.1;", Some("deny")),
            ("http-snippet", STATUS, None),
            ("http-snippet", &format!("{STATUS}\ndeny all;"), Some("deny")),
            ("http-snippet", "map $a $b { default 1; }", None),
            ("http-snippet", &format!("{GEO} {MAP}"), None),
            ("http-snippet", "map $a $b { deny 1; allow 0; }", None),
            ("http-snippet", "map \"$a\" $b {\n  hostnames;\n  deny 1;\n}\n", None),
            ("http-snippet", "geo $remote_addr $b { ranges; internal 1; deny 1; }", None),
            ("http-snippet", "split_clients $a $b { deny 1; internal 2; * ''; }", None),
            ("http-snippet", "types { internal a; deny b; }", None),
            ("http-snippet", &format!("{MAP} deny all;"), Some("deny")),
            ("http-snippet", &format!("deny all; {MAP}"), Some("deny")),
            ("http-snippet", &format!("{GEO} {STATUS} {MAP} limit_req zone=a;"), Some("limit_req")),
            ("http-snippet", "set $x map; if ($map) { return 403; }", Some("return 403")),
            ("http-snippet", "mapped { deny all; }", Some("deny")),
            ("http-snippet", "upstream a { server b; } deny all;", Some("deny")),
            ("http-snippet", "set $server {} deny all;", Some("deny")),
            ("server-snippet", "deny all;", Some("deny")),
            ("location-snippet", "return 403;", Some("return 403")),
            ("main-snippet", "deny all;", None),
            ("ssl-protocols", "deny all;", None),
        ] {
            let found = keeping_for_all(name, text).map(|keeping| keeping.directive);
            assert_eq!(found.as_deref(), directive, "{name} {text:?}");
        }
    }
}
