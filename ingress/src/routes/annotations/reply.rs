//! What of an endpoint's answer is told otherwise.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::value::{Read, Unread, bad};

static REFRESH: HeaderName = HeaderName::from_static("refresh");

/// What an Ingress says about answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    cookie_domain: Option<Change>,
    cookie_path: Option<Change>,
    redirect_from: Option<Box<str>>,
    redirect_to: Option<Box<str>>,
}

/// One text becomes another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    from: Box<str>,
    to: Box<str>,
}

impl Reply {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "proxy-cookie-domain" => change(value).map(|change| self.cookie_domain = change),
            "proxy-cookie-path" => change(value).map(|change| self.cookie_path = change),
            "proxy-redirect-from" => url(value).map(|url| self.redirect_from = url),
            "proxy-redirect-to" => url(value).map(|url| self.redirect_to = url),
            _ => return None,
        })
    }

    pub(super) fn is_needed(&self) -> bool {
        let redirects = self.redirect_from.is_some() && self.redirect_to.is_some();
        self.cookie_domain.is_some() || self.cookie_path.is_some() || redirects
    }

    /// Changes an endpoint's fields.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if let (Some(from), Some(to)) = (&self.redirect_from, &self.redirect_to) {
            type Begins = fn(&str) -> Option<usize>;
            let begins: [(&HeaderName, Begins); 2] =
                [(&header::LOCATION, |_| Some(0)), (&REFRESH, url_at)];
            for (name, begins) in begins {
                let changed = headers.get(name).and_then(|value| {
                    let text = value.to_str().ok()?;
                    let (before, url) = text.split_at_checked(begins(text)?)?;
                    let rest = url.strip_prefix(&**from)?;
                    HeaderValue::try_from(format!("{before}{to}{rest}")).ok()
                });
                if let Some(changed) = changed {
                    headers.insert(name, changed);
                }
            }
        }
        if self.cookie_domain.is_none() && self.cookie_path.is_none() {
            return;
        }
        if let header::Entry::Occupied(mut cookies) = headers.entry(header::SET_COOKIE) {
            for cookie in cookies.iter_mut() {
                let text = cookie.to_str().ok().map(|text| self.cookie(text));
                if let Some(changed) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                    *cookie = changed;
                }
            }
        }
    }

    /// RFC 6265 4.1: attributes are separated by semicolons, their names have no case.
    fn cookie(&self, cookie: &str) -> String {
        let mut parts = cookie.split(';');
        let mut changed = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            changed.push(';');
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let new = match name.trim().to_ascii_lowercase().as_str() {
                "domain" => self.cookie_domain.as_ref().and_then(|change| change.domain(value)),
                "path" => self.cookie_path.as_ref().and_then(|change| change.prefix(value)),
                _ => None,
            };
            match new {
                Some(new) => {
                    changed.push_str(name);
                    changed.push('=');
                    changed.push_str(&new);
                }
                None => changed.push_str(part),
            }
        }
        changed
    }
}

impl Change {
    /// nginx: the whole domain, without case and without its first dot.
    fn domain(&self, value: &str) -> Option<String> {
        let bare = |text: &str| text.trim().trim_start_matches('.').to_ascii_lowercase();
        (bare(value) == bare(&self.from)).then(|| self.to.to_string())
    }

    fn prefix(&self, value: &str) -> Option<String> {
        let rest = value.trim().strip_prefix(&*self.from)?;
        Some(format!("{}{rest}", self.to))
    }
}

/// Refresh has its URL after a time; a Location is one from its beginning, whatever is in it.
fn url_at(refresh: &str) -> Option<usize> {
    const NAME: &str = "url=";
    refresh.to_ascii_lowercase().find(NAME).map(|at| at + NAME.len())
}

/// Two words, or `off`.
fn change(value: &str) -> Result<Option<Change>, Unread> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    match &*words {
        ["off"] => Ok(None),
        [from, to] if is_plain(from) && is_plain(to) => {
            Ok(Some(Change { from: (*from).into(), to: (*to).into() }))
        }
        _ => bad("is neither \"off\" nor two words, what is and what it becomes"),
    }
}

/// A URL or its beginning; `off` and `default` change nothing.
fn url(value: &str) -> Result<Option<Box<str>>, Unread> {
    match value.trim() {
        "off" | "default" => Ok(None),
        url if is_plain(url) && !url.is_empty() => Ok(Some(url.into())),
        _ => bad("is neither a URL nor \"off\" nor \"default\""),
    }
}

/// No regular expression, no variable, nothing that ends a field or a cookie's attribute.
fn is_plain(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:,?&=%".contains(&b);
    !text.starts_with('~') && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(
        annotations: &[(&str, &str)],
        name: &'static str,
        value: &'static str,
    ) -> Vec<String> {
        let mut reply = Reply::default();
        for (name, value) in annotations {
            reply.set(name, value).unwrap().unwrap();
        }
        let mut headers = HeaderMap::new();
        headers.append(name, HeaderValue::from_static("first"));
        headers.insert(name, HeaderValue::from_static(value));
        reply.apply(&mut headers);
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn cookies_are_changed_as_nginx_changes_them() {
        let domain = ("proxy-cookie-domain", "inner.example outer.example");
        let path = ("proxy-cookie-path", "/one/ /");
        for (annotations, cookie, expected) in [
            (
                &[domain][..],
                "a=1; Domain=.INNER.example; Path=/",
                "a=1; Domain=outer.example; Path=/",
            ),
            (&[domain], "a=1; domain=x.inner.example", "a=1; domain=x.inner.example"),
            (&[path], "a=1;path=/one/two", "a=1;path=/two"),
            (&[path], "path=/one/; Path=/two", "path=/one/; Path=/two"),
            (
                &[domain, path],
                "a=1; Path=/one/; Domain=inner.example; Secure",
                "a=1; Path=/; Domain=outer.example; Secure",
            ),
            (&[("proxy-cookie-path", "off")], "a=1; Path=/one/", "a=1; Path=/one/"),
        ] {
            assert_eq!(changed(annotations, "set-cookie", cookie), [expected], "{annotations:?}");
        }
    }

    #[test]
    fn redirects_of_endpoints_are_changed_at_their_beginning() {
        let both = [("proxy-redirect-from", "http://web:80/"), ("proxy-redirect-to", "/app/")];
        for (annotations, location, expected) in [
            (&both[..], "http://web:80/x?y", "/app/x?y"),
            (&both, "http://other/x", "http://other/x"),
            (&both[..1], "http://web:80/x", "http://web:80/x"),
            (&[("proxy-redirect-from", "default")], "http://web:80/x", "http://web:80/x"),
        ] {
            assert_eq!(changed(annotations, "location", location), [expected], "{annotations:?}");
        }
    }

    /// ngx_http_upstream_rewrite_location and ngx_http_upstream_rewrite_refresh.
    #[test]
    fn bug_a_url_within_a_location_is_none_of_its_own() {
        let both = [("proxy-redirect-from", "http://web:80/"), ("proxy-redirect-to", "/app/")];
        for (name, value, expected) in [
            (
                "location",
                "http://web:80/login?url=http://web:80/x",
                "/app/login?url=http://web:80/x",
            ),
            ("location", "http://other/?url=http://web:80/x", "http://other/?url=http://web:80/x"),
            ("refresh", "5; url=http://web:80/x", "5; url=/app/x"),
            ("refresh", "5; URL=http://web:80/?url=/y", "5; URL=/app/?url=/y"),
            ("refresh", "5; url=http://other/x", "5; url=http://other/x"),
            ("refresh", "http://web:80/x", "http://web:80/x"),
        ] {
            assert_eq!(changed(&both, name, value), [expected], "{name}: {value}");
        }
    }

    #[test]
    fn nothing_but_plain_text_gets_in() {
        for bad in ["a", "a b c", "~x y", "a; b", "a \"b", "a $host", "a b\r\nc"] {
            assert!(change(bad).is_err() || bad == "off", "{bad:?}");
        }
        for bad in ["", "~^http", "http://a b", "http://$host/"] {
            assert!(url(bad).is_err(), "{bad:?}");
        }
    }
}
