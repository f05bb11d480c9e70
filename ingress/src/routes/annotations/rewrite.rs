//! Which path an upstream is asked for.

use fairlead_state::{Name, model::PathType};

use super::{
    super::budget::REQUEST_STEPS_MAX,
    template::{Template, Variable},
    value::{Read, Unread, bad, flag, regex, regex_with_case},
};
use crate::{
    config::Matching,
    expression::{Expression, TooCostly},
    path,
};

/// What an Ingress says about paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rewriting {
    /// Its paths are regular expressions, and with them all paths of its hosts.
    use_regex: bool,
    target: Option<(Name, Target)>,
    prefix: Option<Template>,
}

/// `rewrite-target`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    text: Template,
    /// The request's own query follows: it does not end with `?`.
    keeps_args: bool,
    /// It has a query itself, whatever variables become.
    has_args: bool,
}

/// One route's rewriting: `rewrite "(?i)PATH" TARGET break`, in nginx's words.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    pattern: Expression,
    target: Target,
    /// `X-Forwarded-Prefix`.
    prefix: Option<Template>,
}

/// What became of one path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// The path in normal form, and a query that comes before the request's own, if that follows.
    Path { path: String, query: Option<String>, keeps_args: bool, prefix: Option<String> },
    /// The target is a URL: the client is sent there. The request's own query follows, behind what is
    /// between; `None`: it does not.
    Elsewhere { url: String, args_by: Option<char> },
    /// What came out is no path that is served.
    Refused,
    /// It would have been cut, and what is cut is another path.
    TooLong,
    /// To find out takes more steps than a request is given.
    TooCostly,
}

impl Rewriting {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "use-regex" => flag(value).map(|flag| self.use_regex = flag),
            "rewrite-target" => {
                target(value).map(|target| self.target = Some((value.into(), target)))
            }
            "x-forwarded-prefix" => template(value).map(|template| self.prefix = Some(template)),
            _ => return None,
        })
    }

    /// Whether a path is a regular expression, and with it all paths of its host: ingress-nginx
    /// turns it on for rewriting, too.
    pub(crate) fn is_regex(&self, path: &str, path_type: PathType, matching: Matching) -> bool {
        match matching {
            Matching::Compat => {
                self.use_regex || self.target.as_ref().is_some_and(|(text, _)| **text != *path)
            }
            Matching::Strict => self.use_regex && path_type == PathType::ImplementationSpecific,
        }
    }

    /// Whether paths have an expression for it.
    pub(crate) fn is_wished(&self) -> bool {
        self.target.is_some()
    }

    /// The rewriting of one path of the Ingress; `literal`: it is no regular expression.
    pub(crate) fn of(&self, path: &str, literal: bool) -> Result<Option<Rewrite>, String> {
        let Some((text, target)) = &self.target else { return Ok(None) };
        if **text == *path {
            return Ok(None);
        }
        let pattern = if literal {
            pattern(&literally(path), Reach::Anywhere)?
        } else {
            pattern(path, Reach::Anywhere)?
        };
        Ok(Some(Rewrite { pattern, target: target.clone(), prefix: self.prefix.clone() }))
    }
}

impl Rewrite {
    /// What of a path is rewritten.
    pub(crate) fn expression(&self) -> &Expression {
        &self.pattern
    }

    /// `None`: the pattern does not match, so the path stays.
    pub(crate) fn apply(
        &self,
        path: &str,
        variable: impl Fn(&Variable, &mut String),
    ) -> Option<Rewritten> {
        let opened;
        let captures = |path| self.pattern.captures_in(path, REQUEST_STEPS_MAX);
        let captures = match captures(path.as_bytes()) {
            Err(TooCostly) => return Some(Rewritten::TooCostly),
            Ok(Some(captures)) => captures,
            // The route was found by the decoded path: what is not rewritten would go around its target.
            Ok(None) => {
                opened = path::opened(path)?;
                match captures(opened.as_bytes()) {
                    Err(TooCostly) => return Some(Rewritten::TooCostly),
                    Ok(captures) => captures?,
                }
            }
        };
        let Target { text, keeps_args, has_args } = &self.target;
        let look = |name: &Variable, out: &mut String| match name {
            Variable::Capture(group) => captures.write(*group, out),
            name => variable(name, out),
        };
        let target = text.render(look);
        let prefix = self.prefix.as_ref().map(|prefix| prefix.render(look));
        if ![Some(&target), prefix.as_ref()]
            .into_iter()
            .flatten()
            .all(|text| Template::is_whole(text))
        {
            return Some(Rewritten::TooLong);
        }
        if ["http://", "https://"].iter().any(|scheme| target.starts_with(scheme)) {
            // nginx counts a `?` of the target's own alone.
            let args_by = keeps_args.then_some(if *has_args { '&' } else { '?' });
            return Some(Rewritten::Elsewhere { url: target, args_by });
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned()).filter(|query| !query.is_empty())),
            None => (&*target, None),
        };
        let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // Once more: what captures are put between may make a dot segment of them.
        let Ok(normal) = path::normalise(&absolute) else { return Some(Rewritten::Refused) };
        Some(Rewritten::Path { path: normal.into_owned(), query, keeps_args: *keeps_args, prefix })
    }
}

/// What of a path an expression has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Some of it (where it is rewritten).
    Anywhere,
    /// How it begins, whatever the case (where it is matched).
    Beginning,
    /// All of it, with case (where it is matched strictly).
    Whole,
}

impl Reach {
    /// Where paths are matched.
    pub(crate) fn of(matching: Matching) -> Self {
        match matching {
            Matching::Compat => Self::Beginning,
            Matching::Strict => Self::Whole,
        }
    }
}

/// A path as an expression that has no other meaning.
fn literally(path: &str) -> String {
    format!("^{}", regex::escape(path))
}

/// The expression a path is.
pub(crate) fn pattern(path: &str, reach: Reach) -> Result<Expression, String> {
    if path.contains(|c: char| c.is_ascii_control()) {
        return Err(format!(
            "path {path:?} holds a control character, as no request's path does: take it out"
        ));
    }
    let compiled = match reach {
        Reach::Anywhere => regex(path),
        Reach::Beginning => regex(&format!("^{path}")),
        Reach::Whole => regex_with_case(&format!("^(?:{path})$")),
    };
    compiled.map_err(|unread| match unread {
        Unread::Bad(reason) | Unread::NotServed(reason) => format!("path {path:?} {reason}"),
        Unread::Unknown => String::new(),
    })
}

/// nginx: a `?` at the end drops the request's own query.
fn target(value: &str) -> Result<Target, Unread> {
    let (value, keeps_args) = match value.strip_suffix('?') {
        Some(value) => (value, false),
        None => (value, true),
    };
    let text = template(value)?;
    let prefix = text.prefix();
    let is_target = prefix.starts_with('/')
        || prefix.starts_with("http://")
        || prefix.starts_with("https://")
        || text.begins_open();
    if !is_target {
        return bad("begins with neither / nor http:// nor https://");
    }
    Ok(Target { text, keeps_args, has_args: value.contains('?') })
}

fn template(value: &str) -> Result<Template, Unread> {
    if !value.bytes().all(|b| b.is_ascii_graphic()) || value.contains(['"', '\'', ';', '\\', '#']) {
        return bad("holds what no path holds");
    }
    Template::parse(value).map_err(|reason| Unread::Bad(reason.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite(path: &str, target: &str, request: &str) -> Option<Rewritten> {
        let mut rewriting = Rewriting::default();
        rewriting.set("rewrite-target", target).unwrap().unwrap();
        rewriting.set("x-forwarded-prefix", "/p$1").unwrap().unwrap();
        let rewrite = rewriting.of(path, false).unwrap()?;
        rewrite.apply(request, |_, _| {})
    }

    fn path_of(rewritten: Option<Rewritten>) -> Option<String> {
        match rewritten? {
            Rewritten::Path { path, query, keeps_args, .. } => {
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                Some(format!("{path}{query}{}", if keeps_args { " and args" } else { "" }))
            }
            Rewritten::Elsewhere { url, args_by: Some(by) } => Some(format!("{url}{by} and args")),
            Rewritten::Elsewhere { url, args_by: None } => Some(url),
            Rewritten::Refused => Some("refused".to_owned()),
            Rewritten::TooLong => Some("too long".to_owned()),
            Rewritten::TooCostly => Some("too costly".to_owned()),
        }
    }

    /// ingress-nginx, docs/examples/rewrite and what is made of them.
    #[test]
    fn paths_become_what_nginx_makes_of_them() {
        for (path, target, request, expected) in [
            ("/something(/|$)(.*)", "/$2", "/something", Some("/ and args")),
            ("/something(/|$)(.*)", "/$2", "/something/", Some("/ and args")),
            ("/something(/|$)(.*)", "/$2", "/something/new", Some("/new and args")),
            ("/something(/|$)(.*)", "/$2", "/SOMEthing/new", Some("/new and args")),
            ("/a/(\\d+)", "/item?id=$1", "/a/42", Some("/item?id=42 and args")),
            ("/a/(\\d+)", "/item?id=$1?", "/a/42", Some("/item?id=42")),
            ("/a", "/b?", "/a/x", Some("/b")),
            ("/a", "/b", "/a/x", Some("/b and args")),
            // Not anchored, as in nginx.
            ("/a", "/b", "/x/a/y", Some("/b and args")),
            ("/a", "/b", "/c", None),
            ("/(.*)", "/$1", "/a%2Fb", Some("/a%2Fb and args")),
            ("/foo(.*)", "/$1", "/foo/bar", Some("/bar and args")),
            ("/(.*)", "https://b/$1", "/x", Some("https://b/x? and args")),
            ("/(.*)", "https://b/$1?y=z", "/x", Some("https://b/x?y=z& and args")),
            ("/(.*)", "https://b/$1?", "/x", Some("https://b/x")),
            ("/(.*)", "https://b/$1?y=z?", "/x", Some("https://b/x?y=z")),
            ("/(.*)", "$1", "/x", Some("/x and args")),
            ("/foo(/|$)(.*)", "/$2", "/foo%2Fbar", Some("/bar and args")),
            ("/foo(/|$)(.*)", "/$2", "/foo/a%2Fb", Some("/a%2Fb and args")),
            ("/a:b/(.*)", "/$1", "/a%3Ab/c%20", Some("/c%20 and args")),
        ] {
            let got = path_of(rewrite(path, target, request));
            assert_eq!(got.as_deref(), expected, "{path} {target} {request}");
        }
        let Some(Rewritten::Path { prefix, .. }) = rewrite("/a(/x)", "/b", "/a/x") else {
            panic!()
        };
        assert_eq!(prefix.as_deref(), Some("/p/x"));
    }

    #[test]
    fn a_path_put_together_of_captures_is_brought_to_normal_form_or_refused() {
        assert_eq!(path_of(rewrite("/a(.*)", "/b/.$1?", "/a./c")).as_deref(), Some("/c"));
        assert_eq!(path_of(rewrite("/a(.*)", "/.$1", "/a./c")).as_deref(), Some("refused"));
    }

    /// What guards `/x/..` of a path that is longer would not guard what is left of it.
    #[test]
    fn attack_a_path_that_would_be_cut_is_no_path() {
        let long = format!("/{}", "a".repeat(6 << 10));
        for (target, expected) in
            [("/$1$1", None), ("/$1$1$1", Some("too long")), ("https://b/$1$1$1", Some("too long"))]
        {
            let got = path_of(rewrite("/(.*)", target, &long)).unwrap();
            assert_eq!(Some(&*got).filter(|got| got.len() < 20), expected, "{target}");
        }
    }

    #[test]
    fn cve_2026_3288_a_target_is_a_path_and_nothing_else() {
        for bad in ["/\"; return 200 \"x", "/a b", "/a\nb", "/a#", "a", "/$hostname", "ftp://x"] {
            assert!(target(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rewritten_is_in_normal_form(
            target in "/[a-z.$1/%]{0,12}", request in "/[a-z./%25]{0,16}"
        ) {
            let mut rewriting = Rewriting::default();
            if rewriting.set("rewrite-target", &target) == Some(Ok(()))
                && let Ok(Some(rewrite)) = rewriting.of("/(.*)", false)
                && let Ok(request) = path::normalise(&request)
                && let Some(Rewritten::Path { path, .. }) = rewrite.apply(&request, |_, _| {})
            {
                prop_assert_eq!(&path::normalise(&path).unwrap(), &path);
            }
        }
    }
}
