//! Snippets that would have kept somebody out: to serve their paths without them would let everybody in.

use super::read::{Token, tokens};

/// Directives of nginx that keep somebody out, by how they begin, and the annotations that do as much.
/// Who is only slowed down (`limit_rate`) is let in.
const KEEPING: [(&str, &str); 9] = [
    ("allow", "allowlist-source-range"),
    ("deny", "denylist-source-range or allowlist-source-range"),
    ("auth_request", "auth-url"),
    ("auth_", "auth-type and auth-secret, or auth-url"),
    ("satisfy", "satisfy"),
    ("limit_req", "limit-rps or limit-rpm"),
    ("limit_conn", "limit-connections"),
    ("limit_except", "a snippet of `if ($request_method ...) { return 403; }`"),
    ("access_by_", "auth-url"),
];
/// How directives end that say what is counted (`limit_req_zone`), or what becomes of those a limit keeps
/// out, and set none.
const BESIDE_LIMITS: [&str; 4] = ["_zone", "_status", "_log_level", "_dry_run"];
/// What is returned to whoever is kept out: errors.
const RETURN: &str = "a snippet of `return` and of `if` on one variable alone";

/// What of a snippet keeps somebody out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// The directive.
    pub(crate) directive: String,
    /// What may be said instead.
    pub(crate) instead: &'static str,
}

/// What a text would keep out, if it is a snippet.
pub(crate) fn keeping(name: &str, text: &str) -> Option<Keeping> {
    let is_snippet = matches!(name, "configuration-snippet" | "server-snippet");
    is_snippet.then(|| in_text(text)).flatten()
}

/// What a text would keep out of all Ingresses, if it is a snippet of the ConfigMap.
pub(crate) fn keeping_for_all(name: &str, text: &str) -> Option<Keeping> {
    match (name, tokens(text)) {
        // Servers of their own guard themselves (ingress-nginx's stub_status, a `return 444` for strangers).
        ("http-snippet", Ok(tokens)) => in_tokens(&without_servers(tokens)),
        ("http-snippet" | "location-snippet" | "server-snippet", _) => in_text(text),
        _ => None,
    }
}

fn without_servers(tokens: Vec<Token>) -> Vec<Token> {
    let (mut depth, mut left) = (0_usize, Vec::with_capacity(tokens.len()));
    for token in tokens {
        match (&*token.text, token.is_mark) {
            ("{", true) if depth > 0 => depth += 1,
            ("}", true) if depth > 0 => depth -= 1,
            ("{", true) if left.last().is_some_and(|last: &Token| &*last.text == "server") => {
                left.pop();
                depth = 1;
            }
            _ if depth == 0 => left.push(token),
            _ => {}
        }
    }
    left
}

fn in_text(text: &str) -> Option<Keeping> {
    match tokens(text) {
        Ok(tokens) => in_tokens(&tokens),
        // Where a quote does not end nobody knows where directives begin.
        Err(_) => {
            let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = text.split(|c| !is_inside(c)).filter(|word| !word.is_empty());
            let words: Vec<&str> = words.collect();
            words.iter().zip(words.iter().skip(1).chain([&""])).find_map(|(a, b)| of(a, b))
        }
    }
}

fn in_tokens(tokens: &[Token]) -> Option<Keeping> {
    let mut is_first = true;
    tokens.iter().enumerate().find_map(|(i, token)| {
        let begins = std::mem::replace(&mut is_first, token.is_mark);
        let next = tokens.get(i + 1).filter(|next| !next.is_mark);
        let next = next.map_or("", |next| &*next.text);
        (begins && !token.is_mark).then(|| of(&token.text, next)).flatten()
    })
}

/// Of a directive and its first word.
fn of(directive: &str, word: &str) -> Option<Keeping> {
    if directive == "return" {
        let is_error = |status: u16| (400..600).contains(&status);
        let is_error = word.parse().is_ok_and(is_error);
        let directive = format!("return {word}");
        return is_error.then_some(Keeping { directive, instead: RETURN });
    }
    if directive.starts_with("limit_") && BESIDE_LIMITS.iter().any(|end| directive.ends_with(end)) {
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
            // Nobody is kept out.
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
            ("content_by_lua_block { ngx.say(1) }", None),
            ("", None),
        ] {
            let found = in_text(text).map(|keeping| keeping.directive);
            assert_eq!(found.as_deref(), directive, "{text:?}");
        }
        assert_eq!(keeping("proxy-body-size", "deny all;"), None);
    }

    #[test]
    fn servers_of_their_own_guard_nobody_else() {
        const STATUS: &str = "server { listen 1; location /s { allow 127.0.0.1; deny all; } }";
        for (name, text, directive) in [
            ("http-snippet", "deny 192.0.2.1;", Some("deny")),
            ("http-snippet", STATUS, None),
            ("http-snippet", &format!("{STATUS}\ndeny all;"), Some("deny")),
            ("http-snippet", "map $a $b { default 1; }", None),
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
