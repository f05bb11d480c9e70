//! One form of a path: what is matched is what is forwarded.
//!
//! Dot segments are resolved, empty segments merged, percent-encoded unreserved characters decoded
//! and the hex digits of the others upper-cased (RFC 3986 6.2.2), so that no spelling of a
//! protected path escapes its rule. `%2F` stays: it is data, not a separator.

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

/// The normal form of a path without query. Idempotent.
///
/// # Errors
/// The reason why no request with this path is served.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathRefusal> {
    if !path.starts_with('/') {
        return Err(PathRefusal::NotAbsolute);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    resolve(&decoded).map(Cow::Owned)
}

/// Whether a path has neither dot segments nor empty ones, however they are spelled.
pub fn is_plain(path: &str) -> bool {
    is_normal(path.as_bytes())
        || decode_unreserved(path)
            .is_ok_and(|decoded| resolve(&decoded).is_ok_and(|resolved| resolved == decoded))
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

fn decode_unreserved(path: &str) -> Result<String, PathRefusal> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => {
                let (high, low) = (hex(rest.next())?, hex(rest.next())?);
                let byte = u8::try_from(high * 16 + low).map_err(|_| PathRefusal::BadEncoding)?;
                match byte {
                    0..=0x1f | 0x7f | b'\\' => return Err(PathRefusal::ForbiddenCharacter),
                    b if is_unreserved(b) => out.push(char::from(b)),
                    b => out.push_str(&format!("%{b:02X}")),
                }
            }
            '\\' => return Err(PathRefusal::ForbiddenCharacter),
            c if c.is_ascii_control() => return Err(PathRefusal::ForbiddenCharacter),
            // One spelling, too: nginx takes bytes above ASCII as they are.
            c if c == ' ' || !c.is_ascii() => {
                let bytes = c.to_string().into_bytes();
                out.extend(bytes.iter().map(|b| format!("%{b:02X}")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn hex(c: Option<char>) -> Result<u32, PathRefusal> {
    c.and_then(|c| c.to_digit(16)).ok_or(PathRefusal::BadEncoding)
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
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
            ("/a/..%2f..%2fb", "/a/..%2F..%2Fb"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
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
            ("/a%zz", PathRefusal::BadEncoding),
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
                    "/", ".", "..", "%2e", "%2E", "%2f", "a", "B", "%61", ";", "%20", "~", "%7e",
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
            }
        }

        #[test]
        fn no_text_breaks_it(path in "\\PC*") {
            let _ = normalise(&path);
        }
    }
}
