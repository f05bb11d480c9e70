//! Cookies of requests (RFC 6265).

use http::{HeaderMap, header::COOKIE};

/// The value of the first cookie of this name, if it is ASCII; what others are does not matter.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(COOKIE).iter();
    let crumbs = fields.flat_map(|field| field.as_bytes().split(|b| *b == b';'));
    let mut crumbs = crumbs.map(<[u8]>::trim_ascii);
    let value = crumbs.find_map(|crumb| crumb.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(value).ok().filter(|value| value.is_ascii())
}

/// Whether a cookie may be called so (RFC 6265 4.1.1: a token).
pub(crate) fn is_name(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; sid2=x; sid=y"));
        headers.append(COOKIE, HeaderValue::from_static("sid=z;b="));
        for (name, value) in
            [("sid", Some("y")), ("a", Some("1")), ("b", Some("")), ("si", None), ("c", None)]
        {
            assert_eq!(find(&headers, name), value, "{name}");
        }
    }

    #[test]
    fn a_cookie_that_is_no_text_hides_no_other() {
        let mut headers = HeaderMap::new();
        let field = HeaderValue::from_bytes("town=Z\u{fc}rich; sid=y".as_bytes()).unwrap();
        headers.append(COOKIE, field);
        assert_eq!(find(&headers, "sid"), Some("y"));
        assert_eq!(find(&headers, "town"), None);
    }
}
