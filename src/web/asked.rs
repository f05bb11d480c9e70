//! Which page, and what of it.

use std::collections::BTreeMap;

use crate::report::services::Which;

/// A page with what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// How the agent fares.
    Overview,
    /// Services, or those with these words.
    Services { text: String, which: Which, number: usize },
    /// One of them, `NAMESPACE/NAME`.
    Service(String),
    /// Routes, or those with these words.
    Routes { text: String, number: usize },
    /// One host.
    Host(String),
    /// Names, or those with these words.
    Names { text: String, number: usize, lookup: Option<Lookup> },
    /// What was not served.
    Drops,
    /// What becomes of a connection.
    Trace(Option<Question>),
}

/// A name that is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    pub(super) name: String,
    pub(super) record: String,
    pub(super) namespace: String,
}

/// A connection that is traced; empty: not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) target: String,
    pub(super) from: String,
    pub(super) namespace: String,
}

impl Page {
    /// The page at a path.
    pub(super) fn of(path: &str, query: &str) -> Option<Self> {
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let given = |name: &str| query.get(name).map(|text| text.trim().to_owned());
        let text = |name: &str| given(name).unwrap_or_default();
        let filled = |name: &str| given(name).filter(|text| !text.is_empty());
        let number = given("page").and_then(|page| page.parse().ok()).unwrap_or(1);
        Some(match path {
            "/" => Page::Overview,
            "/services" => {
                let which = match text("which").as_str() {
                    "down" => Which::Down,
                    "problems" => Which::Problematic,
                    _ => Which::All,
                };
                Page::Services { text: text("q"), which, number }
            }
            "/service" => Page::Service(filled("name")?),
            "/routes" => Page::Routes { text: text("q"), number },
            "/host" => Page::Host(filled("name")?),
            "/names" => {
                let lookup = filled("name").map(|name| Lookup {
                    name,
                    record: filled("type").unwrap_or_else(|| "A".to_owned()),
                    namespace: filled("namespace").unwrap_or_else(|| "default".to_owned()),
                });
                Page::Names { text: text("q"), number, lookup }
            }
            "/drops" => Page::Drops,
            "/trace" => Page::Trace(filled("target").map(|target| Question {
                target,
                from: text("from"),
                namespace: text("namespace"),
            })),
            _ => return None,
        })
    }
}

/// The page that `?of=PATH?QUERY` names.
pub(super) fn followed(query: &str) -> Option<Page> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, of) = pairs.find(|(name, _)| name == "of")?;
    let (path, query) = of.split_once('?').unwrap_or((&of, ""));
    Page::of(path, query)
}

/// A link with a query.
pub(super) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let given = query.iter().filter(|(_, value)| !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_pages_they_are_made_for() {
        let awkward = "a b/c&d=e?#\"<ü>";
        let made = link("/service", &[("name", awkward)]);
        let (path, query) = made.split_once('?').unwrap();
        assert_eq!(Page::of(path, query), Some(Page::Service(awkward.to_owned())));
        let made = link("/events", &[("of", &link("/host", &[("name", awkward)]))]);
        let (_, query) = made.split_once('?').unwrap();
        assert_eq!(followed(query), Some(Page::Host(awkward.to_owned())));
        assert_eq!(link("/services", &[("q", "")]), "/services");
    }

    #[test]
    fn there_are_these_pages_and_no_others() {
        for path in ["/", "/services", "/routes", "/names", "/drops", "/trace"] {
            assert!(Page::of(path, "").is_some(), "{path}");
        }
        for path in [
            "",
            "//",
            "/v1/status",
            "/metrics",
            "/services/",
            "/../etc/passwd",
            "/services/../../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/style.css/..",
            "/service",
            "/host",
        ] {
            assert_eq!(Page::of(path, ""), None, "{path}");
        }
        let third = Page::of("/services", "q=+web&which=down&page=3");
        let expected = Page::Services { text: "web".into(), which: Which::Down, number: 3 };
        assert_eq!(third, Some(expected));
        let odd = Page::of("/services", "page=-1&which=x");
        let expected = Page::Services { text: String::new(), which: Which::All, number: 1 };
        assert_eq!(odd, Some(expected));
    }
}
