//! Where requests are sent instead of being served.

use http::StatusCode;

use super::{
    template::Template,
    value::{Read, Unread, bad, flag, number},
};

/// What an Ingress says about redirects. The defaults are ingress-nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirects {
    /// Plain HTTP is redirected where there is a TLS section.
    pub(crate) ssl: bool,
    /// Plain HTTP is redirected in any case: somebody in front ends TLS.
    pub(crate) force_ssl: bool,
    /// A redirect to HTTPS keeps the path's last slash.
    pub(crate) keeps_slash: bool,
    /// Redirects name the port, although it is the usual one.
    pub(crate) names_port: bool,
    /// `Location` has no scheme and host.
    pub(crate) relative: bool,
    /// `/` of the host leads there.
    pub(crate) app_root: Option<Box<str>>,
    /// `www.` and the bare name lead to whichever has rules.
    pub(crate) www: bool,
    temporal: Option<Template>,
    temporal_code: Option<u16>,
    permanent: Option<Template>,
    permanent_code: Option<u16>,
}

/// Every request of a route is sent there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    pub(crate) status: StatusCode,
    pub(crate) location: Template,
}

impl Default for Redirects {
    fn default() -> Self {
        Self {
            ssl: true,
            force_ssl: false,
            keeps_slash: false,
            names_port: false,
            relative: false,
            app_root: None,
            www: false,
            temporal: None,
            temporal_code: None,
            permanent: None,
            permanent_code: None,
        }
    }
}

impl Redirects {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "ssl-redirect" => flag(value).map(|flag| self.ssl = flag),
            "force-ssl-redirect" => flag(value).map(|flag| self.force_ssl = flag),
            "preserve-trailing-slash" => flag(value).map(|flag| self.keeps_slash = flag),
            "use-port-in-redirects" => flag(value).map(|flag| self.names_port = flag),
            "relative-redirects" => flag(value).map(|flag| self.relative = flag),
            "from-to-www-redirect" => flag(value).map(|flag| self.www = flag),
            "app-root" => path(value).map(|path| self.app_root = Some(path)),
            "temporal-redirect" => url(value).map(|url| self.temporal = Some(url)),
            "permanent-redirect" => url(value).map(|url| self.permanent = Some(url)),
            "temporal-redirect-code" => {
                code(value, StatusCode::FOUND).map(|code| self.temporal_code = Some(code))
            }
            "permanent-redirect-code" => {
                let usual = StatusCode::MOVED_PERMANENTLY;
                code(value, usual).map(|code| self.permanent_code = Some(code))
            }
            _ => return None,
        })
    }

    /// The temporal one is asked first, as ingress-nginx does.
    pub(crate) fn elsewhere(&self) -> Option<Elsewhere> {
        let (location, code, usual) = match (&self.temporal, &self.permanent) {
            (Some(location), _) => (location, self.temporal_code, StatusCode::FOUND),
            (None, Some(location)) => {
                (location, self.permanent_code, StatusCode::MOVED_PERMANENTLY)
            }
            (None, None) => return None,
        };
        let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(usual);
        Some(Elsewhere { status, location: location.clone() })
    }
}

/// An absolute path, perhaps with a query.
fn path(value: &str) -> Result<Box<str>, Unread> {
    let is_path = value.starts_with('/') && !value.starts_with("//");
    if !is_path || !value.bytes().all(|b| b.is_ascii_graphic()) || value.contains(['\\', '$']) {
        return bad("is no absolute path");
    }
    Ok(value.into())
}

/// An URL of http or https, or a path; variables of nginx may stand in it.
fn url(value: &str) -> Result<Template, Unread> {
    if !value.bytes().all(|b| b.is_ascii_graphic()) || value.contains(['"', '\'', ';', '\\', '<']) {
        return bad("holds what no URL holds");
    }
    let template = Template::parse(value).map_err(|reason| Unread::Bad(reason.into()))?;
    let prefix = template.prefix();
    let is_url = prefix.starts_with("http://") || prefix.starts_with("https://");
    let is_path = prefix.starts_with('/') && !prefix.starts_with("//");
    let names_scheme =
        ["$scheme://", "$pass_access_scheme://"].iter().any(|v| value.starts_with(v));
    if is_url || is_path || names_scheme {
        return Ok(template);
    }
    bad("is no URL of http or https")
}

/// nginx sends `Location` with these only.
fn code(value: &str, usual: StatusCode) -> Result<u16, Unread> {
    match number::<u16>(value)? {
        code @ (301 | 302 | 303 | 307 | 308) => Ok(code),
        _ => bad(format!("is none of 301, 302, 303, 307, 308; {} is sent", usual.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirects(annotations: &[(&str, &str)]) -> Redirects {
        let mut redirects = Redirects::default();
        for (name, value) in annotations {
            let _ = redirects.set(name, value).unwrap();
        }
        redirects
    }

    #[test]
    fn the_code_and_the_url_make_a_redirect_in_any_order() {
        let to = "https://b.example";
        for (annotations, expected) in [
            (&[("permanent-redirect", to)][..], Some(301)),
            (&[("temporal-redirect", to)], Some(302)),
            (&[("permanent-redirect", to), ("temporal-redirect", to)], Some(302)),
            (&[("permanent-redirect-code", "308"), ("permanent-redirect", to)], Some(308)),
            (&[("permanent-redirect-code", "200"), ("permanent-redirect", to)], Some(301)),
            (&[("temporal-redirect-code", "307"), ("temporal-redirect", to)], Some(307)),
            (&[("permanent-redirect-code", "308")], None),
        ] {
            let found = redirects(annotations).elsewhere().map(|to| to.status.as_u16());
            assert_eq!(found, expected, "{annotations:?}");
        }
    }

    #[test]
    fn cve_2021_25745_nothing_but_a_url_gets_in() {
        for good in [
            "https://b.example/x?y=1&z",
            "http://b.example$request_uri",
            "/x",
            "$scheme://b$uri",
            "$pass_access_scheme://b",
        ] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://b.example;}\nserver {",
            "https://b.example/\r\nSet-Cookie: a=b",
            "javascript:alert(1)",
            "//b.example",
            "b.example",
            "https://b.example/$hostname",
            "",
        ] {
            assert!(url(bad).is_err(), "{bad:?}");
        }
        for bad in ["//b.example", "app", "https://b.example", "/a b", "/a\\b", "/a\n"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }
}
