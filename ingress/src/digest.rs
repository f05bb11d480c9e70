//! Who may come, by HTTP digest (RFC 7616 with MD5, which is what browsers speak).

mod nonces;

use std::{
    collections::HashMap,
    fmt::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};
use md5::{Digest, Md5};

use self::nonces::Nonces;

const FIELD_BYTES_MAX: usize = 4 << 10;
const PARAMS_MAX: usize = 24;
/// RFC 7616 3.4: nc-value.
const COUNT_DIGITS: usize = 8;

/// Lets in who knows a user's password.
pub(crate) struct DigestGate {
    realm: Box<str>,
    /// User to MD5(user:realm:password), in hex.
    users: HashMap<Box<str>, Box<str>>,
    nonces: Nonces,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotIn {
    /// No words, or the wrong ones.
    Wrong,
    /// The right ones with an old nonce, or once more: they are to be said again with a new one.
    Stale,
}

/// Fields of `Authorization: Digest`.
#[derive(Debug, Default)]
struct Words<'a> {
    username: &'a str,
    realm: &'a str,
    nonce: &'a str,
    uri: &'a str,
    response: &'a str,
    qop: &'a str,
    nc: &'a str,
    cnonce: &'a str,
}

impl DigestGate {
    /// Lines of `USER:REALM:HASH` as htdigest writes them, of this realm.
    pub(crate) fn parse(file: &[u8], realm: &str) -> Self {
        let lines = file.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
        Self::of_entries(lines.filter_map(|line| line.split_once(':')), realm)
    }

    /// Users, and `REALM:HASH` of each.
    pub(crate) fn of_entries<'a>(
        entries: impl Iterator<Item = (&'a str, &'a str)>,
        realm: &str,
    ) -> Self {
        let mut users = HashMap::new();
        for (user, rest) in entries {
            let Some((of, hash)) = rest.rsplit_once(':') else { continue };
            let is_hash = hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            if of == realm && is_hash {
                users.insert(user.into(), hash.to_ascii_lowercase().into());
            }
        }
        Self { realm: realm.into(), users, nonces: Nonces::new() }
    }

    /// Whether anybody could be let in.
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What a client is asked.
    pub(crate) fn challenge(&self, why: NotIn) -> Option<HeaderValue> {
        let stale = if why == NotIn::Stale { ", stale=true" } else { "" };
        let (realm, nonce) = (&self.realm, self.nonces.make(now()));
        HeaderValue::try_from(format!(
            "Digest realm=\"{realm}\", qop=\"auth\", algorithm=MD5, nonce=\"{nonce}\"{stale}"
        ))
        .ok()
    }

    /// Whether a request's words are a user's; `target`: path and query as received.
    pub(crate) fn admits(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<(), NotIn> {
        let field = headers.get(AUTHORIZATION).and_then(|field| field.to_str().ok());
        let words = field.and_then(words).ok_or(NotIn::Wrong)?;
        // Who was overheard saying one thing must not be heard saying another.
        if words.realm != &*self.realm || words.uri != target || words.qop != "auth" {
            return Err(NotIn::Wrong);
        }
        let count = count(words.nc).ok_or(NotIn::Wrong)?;
        let of_user = self.users.get(words.username).ok_or(NotIn::Wrong)?;
        let of_request = hex(&[method.as_str(), ":", words.uri]);
        let Words { nonce, nc, cnonce, qop, .. } = words;
        let expected =
            hex(&[of_user, ":", nonce, ":", nc, ":", cnonce, ":", qop, ":", &of_request]);
        let said = words.response.to_ascii_lowercase();
        verify_slices_are_equal(expected.as_bytes(), said.as_bytes()).map_err(|_| NotIn::Wrong)?;
        if self.nonces.take(nonce, count, now()) { Ok(()) } else { Err(NotIn::Stale) }
    }
}

/// How often a nonce was used, as the client counts.
fn count(digits: &str) -> Option<u32> {
    let is_number = digits.len() == COUNT_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(digits, 16).ok())?
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn hex(parts: &[&str]) -> String {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part.as_bytes()));
    let mut text = String::with_capacity(32);
    for byte in md5.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `NAME=VALUE, NAME="VALUE"`; a value has no quotes in it here.
fn words(field: &str) -> Option<Words<'_>> {
    let (scheme, mut rest) = field.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("digest") || field.len() > FIELD_BYTES_MAX {
        return None;
    }
    let mut words = Words::default();
    for _ in 0..PARAMS_MAX {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        if rest.is_empty() {
            return Some(words);
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at_checked(after.find(',').unwrap_or(after.len()))?,
        };
        rest = after;
        if value.contains('\\') {
            return None;
        }
        let place = match name.trim().to_ascii_lowercase().as_str() {
            "username" => &mut words.username,
            "realm" => &mut words.realm,
            "nonce" => &mut words.nonce,
            "uri" => &mut words.uri,
            "response" => &mut words.response,
            "qop" => &mut words.qop,
            "nc" => &mut words.nc,
            "cnonce" => &mut words.cnonce,
            _ => continue,
        };
        // Twice the same is two meanings.
        if !place.is_empty() {
            return None;
        }
        *place = value.trim();
    }
    None
}

impl fmt::Debug for DigestGate {
    /// Hashes stay out of every log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestGate").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REALM: &str = "shop";
    const FILE: &[u8] = b"# none\nann:shop:0f1ae5b9e9d0d0c9f4a4ddcf1d9d9a2a\nbob:other:00000000000000000000000000000000\n";

    fn gate() -> DigestGate {
        let hash = hex(&["ann:shop:secret"]);
        DigestGate::of_entries([("ann", &*format!("shop:{hash}"))].into_iter(), REALM)
    }

    fn said(nonce: &str, count: &str, uri: &str, password: &str) -> HeaderMap {
        let of_user = hex(&["ann:shop:", password]);
        let of_request = hex(&["GET:", uri]);
        let response = hex(&[&of_user, ":", nonce, ":", count, ":abc:auth:", &of_request]);
        let field = format!(
            "Digest username=\"ann\", realm=\"shop\", nonce=\"{nonce}\", uri=\"{uri}\", qop=auth, \
             nc={count}, cnonce=\"abc\", response=\"{response}\""
        );
        [(AUTHORIZATION, HeaderValue::try_from(field).unwrap())].into_iter().collect()
    }

    #[test]
    fn words_count_for_one_request_and_a_while() {
        let gate = gate();
        let (fresh, old) = (gate.nonces.make(now()), gate.nonces.make(now() - 120));
        let forged = Nonces::new().make(now());
        for (nonce, count, uri, password, asked, expected) in [
            (&fresh, "00000001", "/a?b", "secret", "/a?b", Ok(())),
            (&fresh, "00000001", "/a?b", "secret", "/a?b", Err(NotIn::Stale)),
            (&fresh, "00000001", "/c", "secret", "/c", Err(NotIn::Stale)),
            (&fresh, "00000002", "/a?b", "wrong", "/a?b", Err(NotIn::Wrong)),
            (&fresh, "00000002", "/a", "secret", "/b", Err(NotIn::Wrong)),
            (&fresh, "00000002", "/a", "secret", "/a", Ok(())),
            (&fresh, "00000000", "/a", "secret", "/a", Err(NotIn::Stale)),
            (&fresh, "3", "/a", "secret", "/a", Err(NotIn::Wrong)),
            (&fresh, "+0000003", "/a", "secret", "/a", Err(NotIn::Wrong)),
            (&old, "00000001", "/a", "secret", "/a", Err(NotIn::Stale)),
            (&forged, "00000001", "/a", "secret", "/a", Err(NotIn::Stale)),
        ] {
            let headers = said(nonce, count, uri, password);
            let seen = gate.admits(&Method::GET, asked, &headers);
            assert_eq!(seen, expected, "{count} {uri} {asked}");
        }
        assert_eq!(
            gate.admits(&Method::POST, "/a", &said(&fresh, "00000003", "/a", "secret")),
            Err(NotIn::Wrong)
        );
        assert_eq!(gate.admits(&Method::GET, "/a", &HeaderMap::new()), Err(NotIn::Wrong));
    }

    #[test]
    fn users_are_those_of_the_realm() {
        let gate = DigestGate::parse(FILE, REALM);
        assert_eq!(gate.users.keys().map(|user| &**user).collect::<Vec<_>>(), ["ann"]);
    }

    #[test]
    fn rfc_7616_3_9_1_has_this_example() {
        let of_user = hex(&["Mufasa:http-auth@example.org:Circle of Life"]);
        let of_request = hex(&["GET:/dir/index.html"]);
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let response = hex(&[&of_user, ":", nonce, ":00000001:", cnonce, ":auth:", &of_request]);
        assert_eq!(response, "8ca523f5e9506fed4657c9700eebdbec");
    }

    proptest! {
        #[test]
        fn no_field_breaks_it(field in "[Dd]igest [a-z=\",\\\\ ]{0,80}") {
            let _ = words(&field);
        }
    }
}
