//! Snippets of nginx's configuration: the few directives people use become typed actions, anything
//! else refuses the whole snippet with its line. Nothing is executed.

mod keeping;
mod read;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(super) use self::{
    keeping::{Keeping, keeping, keeping_for_all},
    read::{field_name, field_text, is_ours},
};
use super::{
    super::budget::REQUEST_STEPS_MAX,
    template::{Captured, Template, Variable},
    value::{Read, Unread, bad},
};
use crate::expression::{Expression, TooCostly};

/// What an Ingress says in snippets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snippets {
    configuration: Snippet,
    server: Snippet,
    /// The ConfigMap's `server-snippet` and `location-snippet`.
    of_all: (Snippet, Snippet),
    /// The ConfigMap allows none of Ingresses.
    pub(super) forbidden: bool,
}

/// Actions in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snippet(Box<[Block]>);

/// An `if` and its block, or what stands beside them.
#[derive(Clone, Debug)]
struct Block {
    /// `None`: always.
    condition: Option<Condition>,
    actions: Vec<Action>,
    /// They ask for what the condition captures.
    captures: bool,
}

#[derive(Clone, Debug)]
enum Action {
    /// `more_set_headers`: whatever the status; an empty text takes the field off.
    SetAlways(HeaderName, Template),
    /// `more_clear_headers`.
    Clear(HeaderName),
    /// `add_header NAME TEXT [always]`.
    Add { name: HeaderName, text: Template, always: bool },
    /// `proxy_set_header`; an empty text takes the field off.
    ToEndpoint(HeaderName, Template),
    /// `return STATUS [TEXT]`.
    Return(StatusCode, Option<Template>),
}

/// `if ($variable ...)`.
#[derive(Clone, Debug)]
struct Condition {
    left: Template,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// Neither empty nor `0`.
    Set,
    Is(Template, bool),
    Matches(Expression, bool),
}

/// An answer without any endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) status: StatusCode,
    /// Where to, or what to say.
    pub(crate) text: Option<String>,
}

/// What answers are told, made when the request was there.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(HeaderName, Option<HeaderValue>, How)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Set,
    Add { always: bool },
}

/// What of a snippet is to be done for one request. nginx asks for conditions once, too.
#[derive(Debug, Default)]
pub(crate) struct InForce<'s>(Vec<(&'s [Action], Option<Captured>)>);

/// A request's variables.
pub(crate) type Look<'a> = &'a dyn Fn(&Variable, &mut String);

impl Snippets {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        let snippet = match name {
            "configuration-snippet" => &mut self.configuration,
            "server-snippet" => &mut self.server,
            _ => return None,
        };
        if self.forbidden {
            return Some(bad("is not allowed by the ConfigMap (allow-snippet-annotations)"));
        }
        Some(match Snippet::parse(value) {
            Ok(read) => {
                *snippet = read;
                Ok(())
            }
            Err(reason) => Err(Unread::Bad(reason.into())),
        })
    }

    /// An option of the ConfigMap; `None`: none of this kind.
    pub(super) fn set_for_all(&mut self, name: &str, value: &str) -> Option<Read> {
        let snippet = match name {
            "server-snippet" => Some(&mut self.of_all.0),
            "location-snippet" => Some(&mut self.of_all.1),
            "http-snippet" => None,
            _ => return None,
        };
        let reason = match (snippet, Snippet::parse(value)) {
            (Some(snippet), Ok(read)) => {
                *snippet = read;
                return Some(Ok(()));
            }
            (Some(_), Err(reason)) => reason,
            (None, _) => "is not served: nothing is executed".to_owned(),
        };
        Some(Err(match keeping_for_all(name, value) {
            None => Unread::NotServed(reason.into()),
            Some(Keeping { directive, .. }) => Unread::Bad(
                format!(
                    "{reason}; it would keep somebody out ({directive}): say it by block-cidrs, \
                     denylist-source-range, whitelist-source-range or global-auth-url, or take it out"
                )
                .into(),
            ),
        }))
    }

    /// The server's come first, as the server's phase does; of either kind the ConfigMap's stands behind
    /// the Ingress's in ingress-nginx's template.
    pub(super) fn snippet(&self) -> Option<Snippet> {
        let (server, location) = &self.of_all;
        let all = self.server.0.iter().chain(&server.0);
        let all = all.chain(&self.configuration.0).chain(&location.0);
        let all: Box<[Block]> = all.cloned().collect();
        (!all.is_empty()).then_some(Snippet(all))
    }
}

impl Snippet {
    /// All whose condition holds, if that can be found in the steps there are for a request.
    pub(crate) fn in_force(&self, look: Look<'_>) -> Result<InForce<'_>, TooCostly> {
        let mut steps = REQUEST_STEPS_MAX;
        let mut blocks = Vec::new();
        for Block { condition, actions, captures } in &self.0 {
            let (holds, captured) = match condition {
                None => (true, None),
                Some(condition) if *captures => {
                    let captured = condition.captured(look, &mut steps)?;
                    (captured.is_some(), captured)
                }
                Some(condition) => (condition.holds(look, &mut steps)?, None),
            };
            if holds {
                blocks.push((&**actions, captured));
            }
        }
        Ok(InForce(blocks))
    }

    /// Whether something of it is what a route's expression captures.
    pub(super) fn captures(&self) -> bool {
        self.0.iter().any(|block| {
            let compares = block.condition.as_ref().is_some_and(Condition::compares_captures);
            compares || (!block.captures && block.actions.iter().any(Action::captures))
        })
    }
}

impl Block {
    fn new(condition: Option<Condition>, actions: Vec<Action>) -> Self {
        let gives = condition.as_ref().is_some_and(Condition::has_groups);
        let captures = gives && actions.iter().any(Action::captures);
        Self { condition, actions, captures }
    }
}

impl Action {
    fn captures(&self) -> bool {
        let text = match self {
            Self::SetAlways(_, text)
            | Self::Add { text, .. }
            | Self::ToEndpoint(_, text)
            | Self::Return(_, Some(text)) => text,
            Self::Return(_, None) | Self::Clear(_) => return false,
        };
        text.captures()
    }
}

impl InForce<'_> {
    /// The first `return`.
    pub(crate) fn returned(&self, look: Look<'_>) -> Option<Returned> {
        self.actions().find_map(|(action, captured)| match action {
            Action::Return(status, text) => Some(Returned {
                status: *status,
                text: text.as_ref().map(|text| render(text, look, captured)),
            }),
            _ => None,
        })
    }

    /// Fields endpoints are to see.
    pub(crate) fn to_endpoint(&self, look: Look<'_>) -> Vec<(HeaderName, Option<HeaderValue>)> {
        let fields = self.actions().filter_map(|(action, captured)| match action {
            Action::ToEndpoint(name, text) => Some((name.clone(), value(text, look, captured))),
            _ => None,
        });
        fields.collect()
    }

    /// Fields clients are to see.
    pub(crate) fn told(&self, look: Look<'_>) -> Told {
        let fields = self.actions().filter_map(|(action, captured)| match action {
            Action::SetAlways(name, text) => {
                Some((name.clone(), value(text, look, captured), How::Set))
            }
            Action::Clear(name) => Some((name.clone(), None, How::Set)),
            Action::Add { name, text, always } => {
                Some((name.clone(), value(text, look, captured), How::Add { always: *always }))
            }
            Action::ToEndpoint(..) | Action::Return(..) => None,
        });
        Told(fields.collect())
    }

    /// Each with what the `if` around it captured.
    fn actions(&self) -> impl Iterator<Item = (&Action, Option<&Captured>)> {
        self.0.iter().flat_map(|(actions, captured)| {
            actions.iter().map(move |action| (action, captured.as_ref()))
        })
    }
}

/// nginx: the text of a `return` is where to, and not what to say.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

impl Returned {
    /// Its text is where to.
    pub(crate) fn is_redirect(&self) -> bool {
        is_redirect(self.status)
    }

    /// nginx ends the connection instead, unless there is something to say (ngx_http_finalize_request).
    pub(crate) fn is_unanswered(&self) -> bool {
        self.text.is_none() && matches!(self.status.as_u16(), 408 | 444 | 499)
    }
}

impl Told {
    pub(crate) fn apply(self, status: StatusCode, headers: &mut HeaderMap) {
        // nginx: add_header without always is for these.
        const STATUSES: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];
        for (name, value, how) in self.0 {
            match (how, value) {
                (How::Set, Some(value)) => _ = headers.insert(name, value),
                (How::Set, None) => _ = headers.remove(name),
                (How::Add { always }, Some(value)) => {
                    if always || STATUSES.contains(&status.as_u16()) {
                        headers.append(name, value);
                    }
                }
                (How::Add { .. }, None) => {}
            }
        }
    }
}

impl Condition {
    fn holds(&self, look: Look<'_>, steps: &mut u32) -> Result<bool, TooCostly> {
        let left = self.left.render(look);
        Ok(match &self.test {
            Test::Set => !left.is_empty() && left != "0",
            Test::Is(right, expected) => (left == right.render(look)) == *expected,
            Test::Matches(regex, expected) => {
                regex.is_match_within(left.as_bytes(), steps)? == *expected
            }
        })
    }

    /// What it captures, if it has groups; `None`: it does not hold.
    fn captured(&self, look: Look<'_>, steps: &mut u32) -> Result<Option<Captured>, TooCostly> {
        let Test::Matches(regex, true) = &self.test else { return Ok(None) };
        let left = self.left.render(look);
        let captures = regex.captures_within(left.as_bytes(), steps)?;
        let lossy = |group: &[u8]| String::from_utf8_lossy(group).into_owned();
        Ok(captures.map(|captures| Captured::of(&captures, lossy)))
    }

    /// Where it holds it captures something.
    fn has_groups(&self) -> bool {
        matches!(&self.test, Test::Matches(regex, true) if regex.has_groups())
    }

    /// It is about what was captured.
    fn compares_captures(&self) -> bool {
        matches!(&self.test, Test::Is(right, _) if right.captures())
    }
}

/// With what the `if` around a text captured; without: what the route's expression did.
fn render(text: &Template, look: Look<'_>, captured: Option<&Captured>) -> String {
    match captured {
        None => text.render(look),
        Some(captured) => text.render(|variable, out| match variable {
            Variable::Capture(group) => captured.write(*group, out),
            variable => look(variable, out),
        }),
    }
}

/// `None`: empty, or no text of a field once its variables are put in.
fn value(text: &Template, look: Look<'_>, captured: Option<&Captured>) -> Option<HeaderValue> {
    let text = render(text, look, captured);
    HeaderValue::try_from(text).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(variable: &Variable, out: &mut String) {
        match variable {
            Variable::Header(name) if name == "x-user" || name == "x-twin" => out.push_str("ann"),
            Variable::Header(name) if name == "x-pair" => out.push_str("ann-POST"),
            Variable::Method => out.push_str("POST"),
            _ => {}
        }
    }

    #[test]
    fn conditions_are_nginxs() {
        for (condition, holds) in [
            ("$http_x_user", true),
            ("$http_x_none", false),
            ("$http_x_user = ann", true),
            ("$http_x_user != ann", false),
            ("$http_x_user = \"\"", false),
            ("$http_x_none = \"\"", true),
            ("$http_x_user ~ ^a", true),
            ("$http_x_user ~ ^A", false),
            ("$http_x_user ~* ^A", true),
            ("$request_method !~ ^(GET|POST)$", false),
            // ngx_http_rewrite_value: variables are put in on the right, too.
            ("$http_x_user = $http_x_twin", true),
            ("$http_x_user != $http_x_twin", false),
            ("$http_x_user = \"$http_x_none\"", false),
            ("$http_x_none = $http_x_none", true),
            ("$http_x_user = ${http_x_twin}", true),
            ("$http_x_pair = \"$http_x_user-$request_method\"", true),
        ] {
            let snippet = Snippet::parse(&format!("if ({condition}) {{ return 403; }}")).unwrap();
            let returned = snippet.in_force(&look).unwrap().returned(&look);
            assert_eq!(returned.is_some(), holds, "{condition}");
        }
    }

    /// They were empty.
    #[test]
    fn bug_what_an_if_captures_is_put_in_within_its_block() {
        let look = |variable: &Variable, out: &mut String| match variable {
            Variable::RequestUri => out.push_str("/old/page"),
            Variable::Capture(group) => out.push_str(&format!("<path's {group}>")),
            _ => {}
        };
        for (text, expected, asks_path) in [
            ("if ($request_uri ~* \"^/(OLD)/(.*)$\") { return 200 $2-$1; }", "page-old", false),
            ("if ($request_uri ~ ^/old/(.*)) { return 200 $1$2; }", "page", false),
            ("if ($request_uri ~ ^/old/) { return 200 $1; }", "<path's 1>", true),
            ("if ($request_uri !~ ^/(new)/) { return 200 $1; }", "<path's 1>", true),
            ("if ($request_uri = /old/page) { return 200 $1; }", "<path's 1>", true),
            ("if ($request_uri ~ (o)) { add_header X-A $1; } return 200 $1;", "<path's 1>", true),
            ("if ($http_x = $1) { return 200 x; } return 200 y;", "y", true),
            ("if ($request_uri ~ (o)) { return 200 x; }", "x", false),
        ] {
            let snippet = Snippet::parse(text).unwrap();
            let returned = snippet.in_force(&look).unwrap().returned(&look).unwrap();
            assert_eq!(returned.text.as_deref(), Some(expected), "{text}");
            assert_eq!(snippet.captures(), asks_path, "{text}");
        }
        let fields = "if ($request_uri ~ /(\\w+)$) { add_header X-A $1; proxy_set_header X-B $1; }";
        let snippet = Snippet::parse(fields).unwrap();
        let in_force = snippet.in_force(&look).unwrap();
        let mut headers = HeaderMap::new();
        in_force.told(&look).apply(StatusCode::OK, &mut headers);
        assert_eq!(headers.get("x-a").unwrap(), "page");
        let told = in_force.to_endpoint(&look);
        assert_eq!(
            told,
            [(HeaderName::from_static("x-b"), Some(HeaderValue::from_static("page")))]
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[a-z_ $\\{\\};\"'\\\\\n#():]{0,80}") {
            if let Ok(snippet) = Snippet::parse(&text)
                && let Ok(in_force) = snippet.in_force(&look)
            {
                let _ = (in_force.returned(&look), in_force.to_endpoint(&look), in_force.told(&look));
            }
        }
    }
}
