//! Cookies of requests (RFC 6265).

use http::{HeaderMap, header::COOKIE};

/// The value of the first cookie of this name.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut crumbs = fields.flat_map(|field| field.split(';')).map(str::trim);
    crumbs.find_map(|crumb| crumb.strip_prefix(name)?.strip_prefix('='))
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
}
