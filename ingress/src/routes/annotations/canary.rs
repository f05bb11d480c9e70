//! Which requests go to the Service under trial.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    super::budget::REQUEST_STEPS_MAX,
    value::{Read, Unread, bad, flag, number, regex_with_case},
};
use crate::{cookies, expression::Expression};

/// What an Ingress says that is one (`canary: "true"`): its paths are served to some requests of
/// the Ingress that has them otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    pub(crate) enabled: bool,
    weight: u32,
    weight_total: u32,
    header: Option<HeaderName>,
    value: Option<Box<str>>,
    pattern: Option<Expression>,
    cookie: Option<Box<str>>,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            enabled: false,
            weight: 0,
            weight_total: 100,
            header: None,
            value: None,
            pattern: None,
            cookie: None,
        }
    }
}

impl Canary {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "canary" => flag(value).map(|flag| self.enabled = flag),
            "canary-weight" => number(value).map(|weight| self.weight = weight),
            // The Lua code takes a total below 100 for 100.
            "canary-weight-total" => {
                number::<u32>(value).map(|total| self.weight_total = total.max(100))
            }
            "canary-by-header" => header(value).map(|name| self.header = Some(name)),
            "canary-by-header-value" => {
                self.value = Some(value.into());
                Ok(())
            }
            "canary-by-header-pattern" => {
                regex_with_case(value).map(|pattern| self.pattern = Some(pattern))
            }
            "canary-by-cookie" => cookie(value).map(|name| self.cookie = Some(name)),
            _ => return None,
        })
    }

    /// Whether it is meant to be one and does not say so.
    pub(super) fn is_forgotten(&self) -> bool {
        let rules = self.header.is_some() || self.pattern.is_some() || self.cookie.is_some();
        !self.enabled && (self.weight > 0 || rules || self.value.is_some())
    }

    /// Whether a request goes there; `draw(n)`: a number from 1 to n by chance.
    pub(crate) fn takes(&self, headers: &HeaderMap, draw: impl FnOnce(u32) -> u32) -> bool {
        if let Some(sent) = self.header.as_ref().and_then(|name| headers.get(name)) {
            match (&self.value, &self.pattern) {
                (Some(value), _) if sent.as_bytes() == value.as_bytes() => return true,
                (None, Some(pattern)) if fits(pattern, sent) => return true,
                (Some(_), _) | (None, Some(_)) => {}
                (None, None) => match sent.as_bytes() {
                    b"always" => return true,
                    b"never" => return false,
                    _ => {}
                },
            }
        }
        match self.cookie.as_ref().and_then(|name| cookies::find(headers, name)) {
            Some("always") => true,
            Some("never") => false,
            _ => draw(self.weight_total) <= self.weight,
        }
    }
}

/// What takes more steps than there are for a request is as good as another text.
fn fits(pattern: &Expression, sent: &HeaderValue) -> bool {
    let mut steps = REQUEST_STEPS_MAX;
    pattern.is_match_within(sent.as_bytes(), &mut steps) == Ok(true)
}

fn header(value: &str) -> Result<HeaderName, Unread> {
    match value.trim().parse() {
        Ok(name) => Ok(name),
        Err(_) => bad("is no name of a field"),
    }
}

fn cookie(value: &str) -> Result<Box<str>, Unread> {
    if cookies::is_name(value) { Ok(value.into()) } else { bad("is no name of a cookie") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ingress-nginx: header, then cookie, then weight; anything but always and never asks on.
    #[test]
    fn header_cookie_and_weight_are_asked_in_this_order() {
        let header = ("canary-by-header", "X-Try");
        let value = ("canary-by-header-value", "yes");
        let pattern = ("canary-by-header-pattern", "^v[23]$");
        let cookie = ("canary-by-cookie", "try");
        let all = ("canary-weight", "100");
        for (annotations, sent, cookies, takes) in [
            (&[header][..], "always", "", true),
            (&[header, all], "never", "", false),
            (&[header], "else", "", false),
            (&[header, all], "else", "", true),
            (&[header, value], "yes", "", true),
            (&[header, value], "always", "", false),
            (&[header, value, all], "never", "", true),
            (&[header, pattern], "v2", "", true),
            (&[header, pattern], "V2", "", false),
            (&[header, value, pattern], "v2", "", false),
            (&[cookie], "", "try=always", true),
            (&[cookie, all], "", "a=b; try=never", false),
            (&[header, cookie], "never", "try=always", false),
            (&[header, cookie], "else", "try=always", true),
            (&[all], "", "", true),
            (&[("canary-weight", "0")], "", "", false),
        ] {
            let mut canary = Canary::default();
            for (name, value) in annotations {
                canary.set(name, value).unwrap().unwrap();
            }
            let mut headers = HeaderMap::new();
            if !sent.is_empty() {
                headers.insert("x-try", HeaderValue::from_static(sent));
            }
            headers.insert(http::header::COOKIE, HeaderValue::from_static(cookies));
            assert_eq!(canary.takes(&headers, |total| total), takes, "{annotations:?} {sent}");
        }
    }

    /// A field of 32 KiB held up everybody of the thread.
    #[test]
    fn attack_a_field_that_costs_too_many_steps_is_another_text() {
        let mut canary = Canary::default();
        let pattern = "([a-z]{1,60}a){1,9}x$";
        for (name, value) in [("canary-by-header", "X-Try"), ("canary-by-header-pattern", pattern)]
        {
            canary.set(name, value).unwrap().unwrap();
        }
        for (sent, takes) in [("baax".to_owned(), true), (format!("{}x", "a".repeat(7000)), false)]
        {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("x-try"),
                HeaderValue::try_from(sent).unwrap(),
            )]);
            assert_eq!(canary.takes(&headers, |total| total), takes);
        }
    }

    #[test]
    fn a_weight_is_a_share_of_its_total() {
        for (weight, total, taken) in [("30", "100", 30), ("5", "1000", 5), ("5", "10", 5)] {
            let mut canary = Canary::default();
            canary.set("canary-weight", weight).unwrap().unwrap();
            canary.set("canary-weight-total", total).unwrap().unwrap();
            let of: u32 = total.parse::<u32>().unwrap().max(100);
            let headers = HeaderMap::new();
            let takes = (1..=of).filter(|drawn| canary.takes(&headers, |_| *drawn)).count();
            assert_eq!(takes, taken, "{weight} of {total}");
        }
    }
}
