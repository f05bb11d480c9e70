//! Which endpoint a request goes to, where it is not simply the next one's turn.

use http::HeaderValue;

use super::{
    template::Template,
    value::{Read, Unread, bad, flag, number, signed},
};
use crate::cookies;

/// ingress-nginx's.
const COOKIE_NAME: &str = "INGRESSCOOKIE";
const SUBSET_SIZE: usize = 3;

/// What an Ingress says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balancing {
    algorithm: Algorithm,
    hash_by: Option<Template>,
    subset: bool,
    subset_size: Option<usize>,
    affinity: bool,
    /// A canary is drawn for each request, unless the other Service's cookie keeps it there.
    legacy_canary: bool,
    cookie: Sticky,
}

/// Whom requests go to that nothing else decides about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Algorithm {
    #[default]
    RoundRobin,
    Ewma,
    LeastConn,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    /// The faster one of two (ewma).
    Faster,
    /// The one with the fewest requests in flight (least_conn).
    Idlest,
    /// Always the same one for the same text, or one of `subset`.
    Hash { by: Template, subset: Option<usize> },
    /// The one a cookie names.
    Sticky(Sticky),
}

/// The cookie (`session-cookie-*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sticky {
    pub(crate) name: Box<str>,
    /// The cookie names an endpoint, and not a share of them.
    pub(crate) persistent: bool,
    /// Another endpoint is named when this one fails.
    pub(crate) change_on_failure: bool,
    pub(crate) expires_seconds: Option<i64>,
    pub(crate) max_age_seconds: Option<i64>,
    /// `None`: the rule's.
    pub(crate) path: Option<HeaderValue>,
    pub(crate) domain: Option<HeaderValue>,
    pub(crate) same_site: Option<SameSite>,
    /// `SameSite=None` is left out for browsers that take it for Strict.
    pub(crate) conditional_none: bool,
    /// In any case, and not only where the request came by HTTPS.
    pub(crate) secure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SameSite {
    None,
    Lax,
    Strict,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            name: COOKIE_NAME.into(),
            persistent: false,
            change_on_failure: false,
            expires_seconds: None,
            max_age_seconds: None,
            path: None,
            domain: None,
            same_site: None,
            conditional_none: false,
            secure: false,
        }
    }
}

impl Balancing {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        let cookie = &mut self.cookie;
        Some(match name {
            "load-balance" => algorithm(value).map(|algorithm| self.algorithm = algorithm),
            "upstream-hash-by" => hash_by(value).map(|by| self.hash_by = Some(by)),
            "upstream-hash-by-subset" => flag(value).map(|flag| self.subset = flag),
            "upstream-hash-by-subset-size" => {
                number(value).map(|size| self.subset_size = Some(size).filter(|size| *size > 0))
            }
            "affinity" => word(value, &[("cookie", true)]).map(|yes| self.affinity = yes),
            "affinity-mode" => word(value, &[("balanced", false), ("persistent", true)])
                .map(|mode| cookie.persistent = mode),
            "affinity-canary-behavior" => word(value, &[("sticky", false), ("legacy", true)])
                .map(|legacy| self.legacy_canary = legacy),
            "session-cookie-name" => cookie_name(value).map(|name| cookie.name = name),
            "session-cookie-expires" => signed(value).map(|s| cookie.expires_seconds = Some(s)),
            "session-cookie-max-age" => signed(value).map(|s| cookie.max_age_seconds = Some(s)),
            "session-cookie-path" => attribute(value).map(|path| cookie.path = Some(path)),
            "session-cookie-domain" => attribute(value).map(|name| cookie.domain = Some(name)),
            "session-cookie-samesite" => {
                let words = [
                    ("None", SameSite::None),
                    ("Lax", SameSite::Lax),
                    ("Strict", SameSite::Strict),
                ];
                word(value, &words).map(|same_site| cookie.same_site = Some(same_site))
            }
            "session-cookie-conditional-samesite-none" => {
                flag(value).map(|flag| cookie.conditional_none = flag)
            }
            // ingress-nginx leaves out what is false (`omitempty`), and sticky.lua goes by HTTPS then.
            "session-cookie-secure" => flag(value).map(|flag| cookie.secure = flag),
            "session-cookie-change-on-failure" => {
                flag(value).map(|flag| cookie.change_on_failure = flag)
            }
            _ => return None,
        })
    }

    /// The cookie decides before the hash, and that before the algorithm.
    pub(super) fn balance(&self) -> Option<Balance> {
        if self.affinity {
            return Some(Balance::Sticky(self.cookie.clone()));
        }
        if let Some(by) = &self.hash_by {
            let subset = self.subset.then(|| self.subset_size.unwrap_or(SUBSET_SIZE));
            return Some(Balance::Hash { by: by.clone(), subset });
        }
        match self.algorithm {
            Algorithm::RoundRobin => None,
            Algorithm::Ewma => Some(Balance::Faster),
            Algorithm::LeastConn => Some(Balance::Idlest),
        }
    }

    pub(super) fn is_legacy_canary(&self) -> bool {
        self.legacy_canary
    }
}

impl SameSite {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Lax => "Lax",
            Self::Strict => "Strict",
        }
    }
}

fn algorithm(value: &str) -> Result<Algorithm, Unread> {
    match value.trim() {
        "round_robin" => Ok(Algorithm::RoundRobin),
        "ewma" => Ok(Algorithm::Ewma),
        // nginx's own name for it.
        "least_conn" => Ok(Algorithm::LeastConn),
        "chash" | "chashsubset" | "sticky_balanced" | "sticky_persistent" => {
            Err(Unread::NotServed(
                "goes by upstream-hash-by or affinity, which say by what; round_robin is used \
                 without them"
                    .into(),
            ))
        }
        _ => bad("is not \"round_robin\", \"ewma\" or \"least_conn\"; round_robin is used"),
    }
}

fn hash_by(value: &str) -> Result<Template, Unread> {
    match Template::parse(value.trim()) {
        Ok(by) if by.constant().is_none() => Ok(by),
        Ok(_) => bad("has no variable, so all requests would go to one endpoint"),
        Err(reason) => bad(reason),
    }
}

fn word<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, Unread> {
    match words.iter().find(|(word, _)| *word == value.trim()) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            bad(format!("is not {}", words.join(" or ")))
        }
    }
}

fn cookie_name(value: &str) -> Result<Box<str>, Unread> {
    if cookies::is_name(value) { Ok(value.into()) } else { bad("is no name of a cookie") }
}

/// The value of a cookie's attribute (RFC 6265 4.1.1).
fn attribute(value: &str) -> Result<HeaderValue, Unread> {
    let is_value = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    match HeaderValue::from_str(value) {
        Ok(text) if is_value => Ok(text),
        _ => bad("is no attribute of a cookie"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(annotations: &[(&str, &str)]) -> Option<Balance> {
        let mut balancing = Balancing::default();
        for (name, value) in annotations {
            let _ = balancing.set(name, value).unwrap();
        }
        balancing.balance()
    }

    #[test]
    fn the_cookie_wins_then_the_hash_then_the_algorithm() {
        let (cookie, hash) = (("affinity", "cookie"), ("upstream-hash-by", "$remote_addr"));
        let ewma = ("load-balance", "ewma");
        assert!(matches!(balance(&[ewma, hash, cookie]), Some(Balance::Sticky(_))));
        assert!(matches!(balance(&[ewma, hash]), Some(Balance::Hash { subset: None, .. })));
        assert_eq!(balance(&[ewma]), Some(Balance::Faster));
        let least_conn = ("load-balance", "least_conn");
        assert!(matches!(balance(&[least_conn, hash]), Some(Balance::Hash { .. })));
        assert_eq!(balance(&[least_conn]), Some(Balance::Idlest));
        assert_eq!(balance(&[("load-balance", "round_robin")]), None);
        let subset = ("upstream-hash-by-subset", "true");
        assert!(matches!(balance(&[hash, subset]), Some(Balance::Hash { subset: Some(3), .. })));
    }

    #[test]
    fn nothing_gets_into_a_cookie_that_ends_its_attribute() {
        for (name, value) in [
            ("session-cookie-name", "a=b"),
            ("session-cookie-name", "a b"),
            ("session-cookie-path", "/; HttpOnly"),
            ("session-cookie-domain", "a\r\nSet-Cookie: b"),
            ("session-cookie-max-age", "1h"),
            ("session-cookie-samesite", "none"),
            ("affinity", "ip"),
            ("load-balance", "least_time"),
            ("upstream-hash-by", "constant"),
            ("upstream-hash-by", "$unknown"),
        ] {
            assert!(Balancing::default().set(name, value).unwrap().is_err(), "{name} {value}");
        }
    }
}
