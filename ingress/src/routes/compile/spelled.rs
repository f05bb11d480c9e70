//! A rule's path as requests that are forwarded spell it: what no request's path holds as it is comes
//! encoded (RFC 3986 2.1). nginx compares and rewrites decoded paths, so rules for it have them as they are read.

use std::{borrow::Cow, fmt::Write};

/// The same path; in normal form already if nothing else is amiss.
pub(super) fn literal(path: &str) -> Cow<'_, str> {
    if !path.contains(is_encoded) {
        return Cow::Borrowed(path);
    }
    let mut spelled = String::with_capacity(path.len());
    for c in path.chars() {
        match is_encoded(c) {
            true => push(c, &mut spelled),
            false => spelled.push(c),
        }
    }
    Cow::Owned(spelled)
}

/// The same expression, but for what stands in brackets, and whether there is something.
pub(super) fn expression(path: &str) -> (Cow<'_, str>, bool) {
    if !path.contains(is_encoded) {
        return (Cow::Borrowed(path), false);
    }
    let mut spelled = String::with_capacity(path.len());
    let (mut depth, mut is_in_class) = (0_usize, false);
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(c) if is_encoded(c) && depth == 0 => push_one(c, &mut spelled),
                escaped => {
                    is_in_class |= escaped.is_some_and(is_encoded);
                    spelled.push('\\');
                    spelled.extend(escaped);
                }
            },
            c if is_encoded(c) && depth == 0 => push_one(c, &mut spelled),
            c => {
                depth = match c {
                    '[' => depth + 1,
                    ']' => depth.saturating_sub(1),
                    _ => depth,
                };
                is_in_class |= is_encoded(c);
                spelled.push(c);
            }
        }
    }
    (Cow::Owned(spelled), is_in_class)
}

fn is_encoded(c: char) -> bool {
    c == ' ' || !c.is_ascii()
}

/// Still one to what repeats it.
fn push_one(c: char, out: &mut String) {
    out.push_str("(?:");
    push(c, out);
    out.push(')');
}

fn push(c: char, out: &mut String) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;

    #[test]
    fn a_path_is_what_requests_for_it_are_brought_to() {
        for (text, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/über", "/%C3%BCber"),
            ("/a b/", "/a%20b/"),
            ("/日本/x", "/%E6%97%A5%E6%9C%AC/x"),
            ("/a%20ü", "/a%20%C3%BC"),
        ] {
            let spelled = literal(text);
            assert_eq!(spelled, expected);
            assert_eq!(path::normalise(&spelled).unwrap(), expected);
            // However a request has it.
            assert_eq!(path::normalise(text).unwrap(), expected);
        }
    }

    #[test]
    fn an_expression_is_the_same_one_of_encoded_paths() {
        for (text, expected, is_in_class) in [
            ("/a/(.*)", "/a/(.*)", false),
            ("/über(/|$)(.*)", "/(?:%C3%BC)ber(/|$)(.*)", false),
            ("/a b?", "/a(?:%20)b?", false),
            ("/ü+", "/(?:%C3%BC)+", false),
            ("/a\\ b\\.c", "/a(?:%20)b\\.c", false),
            ("/[aü]", "/[aü]", true),
            ("/[a\\ ]b ", "/[a\\ ]b(?:%20)", true),
            ("/[[:alpha:]]ü", "/[[:alpha:]](?:%C3%BC)", false),
            ("/\\[ü\\]", "/\\[(?:%C3%BC)\\]", false),
        ] {
            assert_eq!(expression(text), (expected.into(), is_in_class), "{text}");
        }
    }
}
