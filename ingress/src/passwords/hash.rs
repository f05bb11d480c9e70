//! One hashed password.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

const MD5_ROUNDS: usize = 1000;
const SHA1_BYTES: usize = 20;
/// Of bcrypt, about a second of a processor: 2^14 rounds.
const COST_MAX: u32 = 14;
/// Of SHA-crypt, as much. What it may say, up to 999,999,999, is a quarter of an hour.
const ROUNDS_MAX: u32 = 1_000_000;
const UNREAD: &str = "is hashed in a way that is not read";
const TOO_SLOW: &str = "takes too long to check (more than cost 14 of bcrypt, or 1,000,000 rounds)";
/// crypt(3)'s digits.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A password's hash and how it is made.
pub(super) enum Hash {
    /// `$2y$`.
    Bcrypt(Box<str>),
    /// `$5$`, `$6$`.
    ShaCrypt(Box<str>),
    /// `$apr1$` and `$1$`: marker, salt, digest.
    Md5 { marker: &'static [u8], salt: Box<[u8]>, digest: Box<[u8]> },
    /// `{SHA}`, and with a salt `{SSHA}`.
    Sha1 { salt: Box<[u8]>, digest: Box<[u8]> },
    /// `{PLAIN}`.
    Plain(Box<[u8]>),
}

impl Hash {
    /// Reads one.
    ///
    /// # Errors
    /// Not a way that is read (crypt(3) by DES, or damaged), or made to take too long.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let hash = Self::read(text).ok_or(UNREAD)?;
        if hash.is_bearable() { Ok(hash) } else { Err(TOO_SLOW) }
    }

    fn read(text: &[u8]) -> Option<Self> {
        if let Some(plain) = text.strip_prefix(b"{PLAIN}") {
            return Some(Self::Plain(plain.into()));
        }
        for marker in [&b"{SHA}"[..], b"{SSHA}"] {
            if let Some(encoded) = text.strip_prefix(marker) {
                let bytes = STANDARD.decode(encoded).ok()?;
                let (digest, salt) = bytes.split_at_checked(SHA1_BYTES)?;
                let has_salt = marker.len() == b"{SSHA}".len();
                return (salt.is_empty() != has_salt)
                    .then(|| Self::Sha1 { salt: salt.into(), digest: digest.into() });
            }
        }
        for marker in [&b"$apr1$"[..], b"$1$"] {
            if let Some(rest) = text.strip_prefix(marker) {
                let at = memchr::memchr(b'$', rest)?;
                let (salt, digest) = rest.split_at_checked(at)?;
                let digest = digest.get(1..).filter(|digest| digest.len() == 22)?;
                // crypt(3) looks at eight characters.
                let salt = salt.get(..8).unwrap_or(salt);
                return Some(Self::Md5 { marker, salt: salt.into(), digest: digest.into() });
            }
        }
        let text = std::str::from_utf8(text).ok()?;
        let is = |markers: &[&str]| markers.iter().any(|marker| text.starts_with(marker));
        if is(&["$2a$", "$2b$", "$2y$"]) {
            return text.parse::<bcrypt::HashParts>().ok().map(|_| Self::Bcrypt(text.into()));
        }
        is(&["$5$", "$6$"]).then(|| Self::ShaCrypt(text.into()))
    }

    fn is_bearable(&self) -> bool {
        match self {
            Self::Bcrypt(text) => {
                text.parse::<bcrypt::HashParts>().is_ok_and(|parts| parts.get_cost() <= COST_MAX)
            }
            Self::ShaCrypt(text) => {
                let said = text.split('$').nth(2).and_then(|part| part.strip_prefix("rounds="));
                said.is_none_or(|rounds| {
                    rounds.bytes().all(|b| b.is_ascii_digit())
                        && rounds.parse().is_ok_and(|rounds: u32| rounds <= ROUNDS_MAX)
                })
            }
            _ => true,
        }
    }

    /// Made to be slow: not for a thread that serves.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self, Self::Bcrypt(_) | Self::ShaCrypt(_) | Self::Md5 { .. })
    }

    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| verify_slices_are_equal(a, b).is_ok();
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::ShaCrypt(hash) => sha_crypt(hash, password),
            Self::Md5 { marker, salt, digest } => same(&md5_crypt(marker, salt, password), digest),
            Self::Sha1 { salt, digest: wanted } => {
                let made = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[password, salt].concat());
                same(made.as_ref(), wanted)
            }
            Self::Plain(plain) => same(plain, password),
        }
    }
}

fn sha_crypt(hash: &str, password: &[u8]) -> bool {
    use sha_crypt::{PasswordVerifier, ShaCrypt};
    let Ok(hash) = sha_crypt::PasswordHashRef::new(hash) else { return false };
    ShaCrypt::default().verify_password(password, hash).is_ok()
}

/// FreeBSD's crypt by MD5, which Apache calls apr1.
fn md5_crypt(marker: &[u8], salt: &[u8], password: &[u8]) -> Vec<u8> {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password);
    let inner = inner.finalize();
    let mut outer = Md5::new();
    outer.update([password, marker, salt].concat());
    outer.update(inner.iter().copied().cycle().take(password.len()).collect::<Vec<u8>>());
    let first = password.first().copied().unwrap_or(0);
    let mut length = password.len();
    while length > 0 {
        outer.update([if length & 1 == 1 { 0 } else { first }]);
        length >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..MD5_ROUNDS {
        let mut next = Md5::new();
        let (first, last) = match round % 2 {
            1 => (password, &digest[..]),
            _ => (&digest[..], password),
        };
        next.update(first);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(last);
        digest = next.finalize();
    }
    let at = |i: usize| u32::from(digest.get(i).copied().unwrap_or(0));
    let mut text = Vec::with_capacity(22);
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        push_digits(&mut text, (at(a) << 16) | (at(b) << 8) | at(c), 4);
    }
    push_digits(&mut text, at(11), 2);
    text
}

fn push_digits(text: &mut Vec<u8>, mut value: u32, count: usize) {
    for _ in 0..count {
        let digit = usize::try_from(value & 0x3f).unwrap_or(0);
        text.extend(DIGITS.get(digit));
        value >>= 6;
    }
}
