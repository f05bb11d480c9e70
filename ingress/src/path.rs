//! One form of a path that is forwarded, and one that is matched.
//!
//! Dot segments are resolved, empty segments merged, percent-encoded unreserved characters decoded
//! and the hex digits of the others upper-cased (RFC 3986 6.2.2): this form is forwarded. In it `%2F`
//! stays, which is data to some endpoints and a separator to others. So what is matched is decoded as
//! a whole, as nginx does: no spelling of a protected path escapes its rule, whoever decodes it later.

use std::{borrow::Cow, fmt};

/// Why a path is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRefusal {
    /// It does not begin with `/`.
    NotAbsolute,
    /// `%` without two hex digits.
    BadEncoding,
    /// NUL, another control character, or `\`, encoded or not: upstreams disagree on them.
    ForbiddenCharacter,
    /// `..` above the root.
    AboveRoot,
    /// `..;` or `.;`: a dot segment to servlet containers, a name to everybody else.
    DotWithParameter,
}

impl fmt::Display for PathRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "does not begin with /",
            Self::BadEncoding => "has % without two hex digits",
            Self::ForbiddenCharacter => "holds a control character or a backslash",
            Self::AboveRoot => "leads above the root",
            Self::DotWithParameter => "has a dot segment with a parameter",
        })
    }
}

/// The path of a request, in both its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// What is forwarded. Idempotent.
    pub normal: Cow<'a, str>,
    /// What is matched, where it is another text.
    decoded: Option<Box<str>>,
}

impl Read<'_> {
    /// What rules are compared with.
    pub fn matched(&self) -> &str {
        self.decoded.as_deref().unwrap_or(&self.normal)
    }

    /// A part of what is matched, as it stands in a path: whatever it is put into, it is no more than that.
    pub(crate) fn spelled(&self, part: &[u8]) -> String {
        let Some(decoded) = &self.decoded else {
            return String::from_utf8_lossy(part).into_owned();
        };
        let mut out = String::with_capacity(part.len());
        for (i, &byte) in part.iter().enumerate() {
            // Of a path that is no UTF-8 those bytes are encoded there, too.
            let is_byte = decoded.is_ascii() && is_encoded_byte(part.get(i..).unwrap_or_default());
            if is_path_byte(byte) || is_byte {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }
}

/// Both forms of a path without query.
///
/// # Errors
/// The reason why no request with this path is served.
pub fn read(path: &str) -> Result<Read<'_>, PathRefusal> {
    if !path.starts_with('/') {
        return Err(PathRefusal::NotAbsolute);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Read { normal: Cow::Borrowed(path), decoded: None });
    }
    let mut normal = resolve(&decode(path, is_unreserved)?)?;
    if !normal.contains('%') {
        return Ok(Read { normal: Cow::Owned(normal), decoded: None });
    }
    if has_hidden_dots(&normal) {
        // An endpoint that does not decode it would be asked for what it was not matched for.
        normal = resolve(&normal.replace(SLASH, "/"))?;
    }
    let decoded = resolve(&decode_all(&normal)?)?;
    Ok(Read { normal: Cow::Owned(normal), decoded: Some(decoded.into()) })
}

/// The form of a path without query that is forwarded.
///
/// # Errors
/// As [`read`].
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathRefusal> {
    read(path).map(|read| read.normal)
}

/// A path in normal form with everything decoded that may stand in a path as it is, slashes too.
/// `None`: there is nothing to decode.
pub(crate) fn opened(normal: &str) -> Option<String> {
    if !normal.contains('%') {
        return None;
    }
    resolve(&decode(normal, is_path_byte).ok()?).ok()
}

/// Whether a path has neither dot segments nor empty ones, however they are spelled.
pub fn is_plain(path: &str) -> bool {
    let is_resolved =
        |text: Result<String, _>| text.is_ok_and(|text| resolve(&text).is_ok_and(|r| r == text));
    is_normal(path.as_bytes())
        || (is_resolved(decode(path, is_unreserved)) && is_resolved(decode_all(path)))
}

/// How a slash that is data is spelled in normal form.
const SLASH: &str = "%2F";

/// Whether dot segments come out when `%2F` is decoded.
fn has_hidden_dots(normal: &str) -> bool {
    let mut segments = normal.split('/').flat_map(|segment| segment.split(SLASH));
    segments.any(|segment| matches!(segment, "." | ".."))
}

/// Bytes that are no UTF-8 stay as they are.
fn decode_all(path: &str) -> Result<String, PathRefusal> {
    match String::from_utf8(decode_bytes(path, |_| true)?) {
        Ok(text) => Ok(text),
        Err(_) => decode(path, |byte| byte.is_ascii()),
    }
}

/// Nothing in it could be spelled otherwise. May say no to a normal path, never yes to another.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &b in path {
        match b {
            b'%' | b'\\' | b';' | b' ' | 0x7f.. | 0..=0x1f => return false,
            b'/' | b'.' if previous == b'/' => return false,
            _ => previous = b,
        }
    }
    true
}

/// Decodes some ASCII characters.
fn decode(path: &str, decodes: impl Fn(u8) -> bool) -> Result<String, PathRefusal> {
    let bytes = decode_bytes(path, |byte| byte.is_ascii() && decodes(byte))?;
    // What is not ASCII is as it was.
    String::from_utf8(bytes).map_err(|_| PathRefusal::BadEncoding)
}

fn decode_bytes(path: &str, decodes: impl Fn(u8) -> bool) -> Result<Vec<u8>, PathRefusal> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex(rest.next())?, hex(rest.next())?);
                match high * 16 + low {
                    0..=0x1f | 0x7f | b'\\' => return Err(PathRefusal::ForbiddenCharacter),
                    byte if decodes(byte) => out.push(byte),
                    byte => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                }
            }
            b'\\' | 0..=0x1f | 0x7f => return Err(PathRefusal::ForbiddenCharacter),
            // One spelling, too: nginx takes bytes above ASCII as they are.
            b' ' | 0x80.. if !decodes(byte) => {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            byte => out.push(byte),
        }
    }
    Ok(out)
}

fn hex(digit: Option<u8>) -> Result<u8, PathRefusal> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ (b'a'..=b'f' | b'A'..=b'F')) => Ok((digit | 0x20) - b'a' + 10),
        _ => Err(PathRefusal::BadEncoding),
    }
}

/// Whether a text begins with `%` and a byte above ASCII.
fn is_encoded_byte(text: &[u8]) -> bool {
    matches!(text, [b'%', b'8' | b'9' | b'A'..=b'F', low, ..] if low.is_ascii_hexdigit())
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 3.3: pchar, and what is between segments.
fn is_path_byte(b: u8) -> bool {
    const OTHERS: &[u8] = b"!$&'()*+,;=:@/";
    is_unreserved(b) || OTHERS.contains(&b)
}

fn resolve(path: &str) -> Result<String, PathRefusal> {
    let mut out: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path.split('/').skip(1) {
        open = false;
        match segment {
            "" | "." => open = true,
            ".." => {
                out.pop().ok_or(PathRefusal::AboveRoot)?;
                open = true;
            }
            s if s.starts_with("..;") || s.starts_with(".;") => {
                return Err(PathRefusal::DotWithParameter);
            }
            s => out.push(s),
        }
    }
    let mut text = String::with_capacity(path.len());
    for segment in &out {
        text.push('/');
        text.push_str(segment);
    }
    if open || out.is_empty() {
        text.push('/');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_paths_are_told_from_those_that_are_resolved() {
        for (path, plain) in [
            ("/", true),
            ("/a/b/", true),
            ("/a%7Eb%2F;x", true),
            ("/a//b", false),
            ("//a", false),
            ("/a/../b", false),
            ("/a/%2e%2e/b", false),
            ("/a/.", false),
            ("/a/..%2fb", false),
            ("/a/%2fb", false),
            ("/%zz", false),
        ] {
            assert_eq!(is_plain(path), plain, "{path}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_has_one_form() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%20b%c3%a4", "/a%20b%C3%A4"),
            ("/a b\u{e4}", "/a%20b%C3%A4"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a%2f/b", "/a%2F/b"),
            ("/a/%2fb", "/a/%2Fb"),
            // Dot segments between slashes that are data to some.
            ("/a/b/..%2f..%2fc", "/c"),
            ("/a/..%2fb%20", "/b%20"),
            ("/a%2f..%2f%2e/b", "/b"),
            ("/a%2f..", "/"),
            ("/a%2f.b", "/a%2F.b"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    /// As nginx decodes it before it looks for a location (ngx_http_parse_complex_uri).
    #[test]
    fn attack_what_is_matched_has_no_spelling_but_one() {
        for (path, matched) in [
            ("/admin", "/admin"),
            ("/admin%2fx", "/admin/x"),
            ("/%2Fadmin", "/admin"),
            ("/public/..%2fadmin", "/admin"),
            ("/public%2f..%2fadmin", "/admin"),
            ("/public/%2e%2e%2Fadmin", "/admin"),
            ("/admin%2F", "/admin/"),
            ("/a%3Ab%2Cc%40d", "/a:b,c@d"),
            ("/a%20%c3%a4", "/a \u{e4}"),
            ("/a%3Fb%23c", "/a?b#c"),
            // Once, and not again.
            ("/a%252Fb", "/a%2Fb"),
            ("/a%25", "/a%"),
            // No UTF-8: those bytes stay.
            ("/%FF%2Fa", "/%FF/a"),
        ] {
            assert_eq!(read(path).unwrap().matched(), matched, "{path}");
        }
    }

    #[test]
    fn a_part_of_what_is_matched_is_spelled_as_a_path() {
        for (path, matched, spelled) in [
            ("/a/b", "/a/b", "/a/b"),
            ("/a%2Fb", "/a/b", "/a/b"),
            ("/a%20%c3%a4", "/a \u{e4}", "/a%20%C3%A4"),
            ("/a%3Fb%23c%25%3C", "/a?b#c%<", "/a%3Fb%23c%25%3C"),
            ("/caf%e9%20", "/caf%E9 ", "/caf%E9%20"),
        ] {
            let read = read(path).unwrap();
            assert_eq!(read.matched(), matched, "{path}");
            assert_eq!(read.spelled(matched.as_bytes()), spelled, "{path}");
        }
    }

    #[test]
    fn what_may_stand_in_a_path_as_it_is_can_be_had_so() {
        for (normal, expected) in [
            ("/a/b", None),
            ("/a%2Fb", Some("/a/b")),
            ("/a%3Ab%20%C3%A4", Some("/a:b%20%C3%A4")),
            ("/a%2F%2Fb", Some("/a/b")),
        ] {
            assert_eq!(opened(normal).as_deref(), expected, "{normal}");
        }
    }

    #[test]
    fn attacks_by_path_are_refused() {
        for (path, reason) in [
            ("*", PathRefusal::NotAbsolute),
            ("", PathRefusal::NotAbsolute),
            ("/..", PathRefusal::AboveRoot),
            ("/a/../../etc", PathRefusal::AboveRoot),
            ("/%2e%2e/etc", PathRefusal::AboveRoot),
            ("/a%00.html", PathRefusal::ForbiddenCharacter),
            ("/a%0d%0aX: y", PathRefusal::ForbiddenCharacter),
            ("/a\\..\\b", PathRefusal::ForbiddenCharacter),
            ("/a%5c..%5Cb", PathRefusal::ForbiddenCharacter),
            ("/admin/..;/secret", PathRefusal::DotWithParameter),
            ("/admin/%2e%2e;/secret", PathRefusal::DotWithParameter),
            ("/admin/.;/secret", PathRefusal::DotWithParameter),
            ("/admin%2F..;/secret", PathRefusal::DotWithParameter),
            ("/admin/..%3B/secret", PathRefusal::DotWithParameter),
            ("/..%2f..%2fetc", PathRefusal::AboveRoot),
            ("/a%2f..%2f..%2fetc", PathRefusal::AboveRoot),
            ("/a%zz", PathRefusal::BadEncoding),
            ("/a%\u{e4}", PathRefusal::BadEncoding),
            ("/a%2", PathRefusal::BadEncoding),
            ("/a%", PathRefusal::BadEncoding),
        ] {
            assert_eq!(normalise(path), Err(reason), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "/", ".", "..", "%2e", "%2E", "%2f", "%2F", "%3b", "a", "B", "%61", ";", "%20", "~", "%7e",
                    "%25",
                ]),
                0..24,
            )
        ) {
            let path = format!("/{}", parts.concat());
            if let Ok(normal) = normalise(&path) {
                prop_assert_eq!(normalise(&normal), Ok(Cow::Borrowed(&*normal)));
                prop_assert!(!normal.contains("//"));
                prop_assert!(!normal.split('/').any(|s| s == "." || s == ".."));
                let read = read(&path).unwrap();
                let matched = read.matched();
                prop_assert!(!matched.contains("//"));
                prop_assert!(!matched.split('/').any(|s| s == "." || s == ".."));
            }
        }

        #[test]
        fn no_text_breaks_it(path in "\\PC*") {
            let _ = normalise(&path);
        }
    }
}
