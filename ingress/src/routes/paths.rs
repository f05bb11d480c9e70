//! Path matching of one host (KEP-1453): Exact before Prefix of the same path, else the longest.

use std::{collections::BTreeMap, sync::Arc};

use fairlead_state::{Name, model::PathType};

use super::{
    Route,
    annotations::{self, Reach},
    budget::{Budget, Steps},
};
use crate::expression::Expression;

/// Length of paths by which expressions are tried out, in bytes: longer ones are rare.
const PROBE_BYTES: usize = 256;

/// The paths of one host.
///
/// Both lists are sorted by path; a request costs one binary search per path element that could
/// still be a prefix, whatever the number of rules.
#[derive(Debug, Default)]
pub struct Paths {
    exact: Box<[Arc<Route>]>,
    prefix: Box<[Prefix]>,
    /// No prefix is longer, so longer beginnings of a request's path need not be tried.
    longest_prefix_bytes: usize,
    /// Regular expressions, asked in this order: after exact paths, before beginnings. As by
    /// ingress-nginx, where there is one there is nothing else.
    patterns: Box<[Pattern]>,
    /// Expressions are those of guests: they come before a beginning that says less alone.
    is_shared: bool,
    /// Namespaces that have expressions here, behind the one that has the host.
    namespaces: Box<[Name]>,
    /// Routes whose path ends with a slash and that requests without it are redirected to.
    slashed: Box<[Arc<Route>]>,
}

#[derive(Debug)]
struct Pattern {
    test: Test,
    route: Arc<Route>,
    /// How much of a path's beginning, in bytes, the expression says outright.
    said_bytes: usize,
    /// Which of the namespaces its route is of.
    namespace: usize,
}

#[derive(Debug)]
enum Test {
    Fits(Expression),
    /// The route's own path is how a request's begins, whatever the case.
    Begins,
}

/// Prefix rules for one path, written without or with a trailing slash (`/foo`, `/foo/`).
#[derive(Debug)]
struct Prefix {
    /// Without trailing slash; empty for `/`.
    stem: Box<str>,
    plain: Option<Arc<Route>>,
    slash: Option<Arc<Route>>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Sought<T> {
    Found(T),
    Nobody,
    /// Nobody knows: expressions that might match took more steps than a request is given.
    Costly,
}

/// Collects the paths of one host; of two rules with equal type and path the first stays. Each rule
/// costs look-ups by path, so that a host of ten thousand paths is no trouble.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// The namespace that has the host.
    owner: Option<Name>,
    exact: BTreeMap<Name, Arc<Route>>,
    /// By stem.
    prefix: BTreeMap<Box<str>, Spellings>,
}

/// A prefix rule's path without and with a trailing slash.
#[derive(Debug, Default)]
struct Spellings {
    plain: Option<Arc<Route>>,
    slash: Option<Arc<Route>>,
}

impl Paths {
    /// The route for a path as it is matched: decoded and resolved.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        match self.seek(path) {
            Sought::Found(route) => Some(route),
            Sought::Nobody | Sought::Costly => None,
        }
    }

    /// The same, in a bounded time.
    pub(crate) fn seek(&self, path: &str) -> Sought<&Arc<Route>> {
        let known = |route: Option<_>| route.map_or(Sought::Nobody, Sought::Found);
        if let Ok(i) = self.exact.binary_search_by(|route| (*route.key).cmp(path)) {
            return known(self.exact.get(i));
        }
        if self.patterns.is_empty() {
            return known(self.find_prefix(path));
        }
        let mut steps = Steps::of(self.namespaces.len());
        let begins = if self.is_shared { self.find_prefix(path) } else { None };
        let mut patterns = self.patterns.iter();
        let found = patterns.find(|pattern| {
            begins.is_none_or(|begins| pattern.outranks(begins))
                && pattern.fits(path.as_bytes(), &mut steps)
        });
        let found = match found {
            Some(pattern) => Some(&pattern.route),
            None if self.is_shared => begins,
            None => self.find_prefix(path),
        };
        if self.is_unknown(found, &steps) { Sought::Costly } else { known(found) }
    }

    /// Whether it could be another one of those that were not compared: whoever has the host, or the route
    /// that was found, may have meant the path to be guarded. Guests take nobody else's away so.
    fn is_unknown(&self, found: Option<&Arc<Route>>, steps: &Steps) -> bool {
        let namespaces = self.namespaces.iter().enumerate();
        let mut over = namespaces.filter(|(i, _)| steps.is_over(*i));
        over.any(|(i, name)| i == 0 || found.is_none_or(|found| found.ingress.namespace == *name))
    }

    /// A route whose expression, and those of its namespace before it, take more steps than there are for
    /// paths that match none.
    pub(super) fn costly(&self) -> Option<&Arc<Route>> {
        if self.patterns.is_empty() {
            return None;
        }
        let mut probes = ["a", "a/"].into_iter().map(|part| {
            let mut path = String::from("/");
            path.extend(std::iter::repeat_n(part, PROBE_BYTES / part.len()));
            path
        });
        probes.find_map(|path| {
            let mut steps = Steps::of(self.namespaces.len());
            self.patterns.iter().find_map(|pattern| {
                pattern.fits(path.as_bytes(), &mut steps);
                steps.is_over(pattern.namespace).then_some(&pattern.route)
            })
        })
    }

    /// The route a request is sent to by a slash at its end: nginx does so where that path is a
    /// location and the request's own is none.
    pub fn wants_slash(&self, path: &str) -> Option<&Arc<Route>> {
        if self.slashed.is_empty() || path.ends_with('/') {
            return None;
        }
        let i = self.slashed.binary_search_by(|route| stem_of(route).cmp(path)).ok()?;
        self.slashed.get(i)
    }

    fn find_prefix(&self, path: &str) -> Option<&Arc<Route>> {
        if self.prefix.is_empty() {
            return None;
        }
        // A whole path without trailing slash is the only beginning that may match to its end.
        if !path.ends_with('/')
            && path.len() <= self.longest_prefix_bytes
            && let Some(found) = self.stem(path)
        {
            return found.plain.as_ref().or(found.slash.as_ref());
        }
        let mut end = path.len();
        while let Some(at) = path.get(..end).and_then(|head| head.rfind('/')) {
            end = at;
            if at <= self.longest_prefix_bytes
                && let Some(found) = path.get(..at).and_then(|stem| self.stem(stem))
            {
                return found.slash.as_ref().or(found.plain.as_ref());
            }
        }
        None
    }

    fn stem(&self, stem: &str) -> Option<&Prefix> {
        let i = self.prefix.binary_search_by(|prefix| (*prefix.stem).cmp(stem)).ok()?;
        self.prefix.get(i)
    }

    /// All routes: exact ones, then prefixes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        let prefixes = self.prefix.iter().flat_map(|p| p.plain.iter().chain(&p.slash));
        let patterns = self.patterns.iter().map(|pattern| &pattern.route);
        self.exact.iter().chain(prefixes).chain(patterns)
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.patterns.is_empty()
    }
}

impl Pattern {
    fn new(test: Test, route: Arc<Route>) -> Self {
        let said_bytes = match &test {
            Test::Fits(expression) => expression.said().len(),
            Test::Begins => route.key.len(),
        };
        Self { test, route, said_bytes, namespace: 0 }
    }

    /// ingress-nginx takes the longest text, and with it whoever writes `.*` at length: of another
    /// namespace what counts is what the expression says of a path.
    fn outranks(&self, begins: &Route) -> bool {
        let is_own = self.route.ingress.namespace == begins.ingress.namespace;
        let said = if is_own { self.route.key.len() } else { self.said_bytes };
        said > begins.key.len()
    }

    fn fits(&self, path: &[u8], steps: &mut Steps) -> bool {
        match &self.test {
            Test::Fits(expression) => steps.is_match(self.namespace, expression, path),
            Test::Begins => {
                let key = self.route.key.as_bytes();
                path.get(..key.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(key))
            }
        }
    }
}

impl Builder {
    /// Of a host that a namespace has.
    pub(super) fn owned_by(namespace: &Name) -> Self {
        Self { owner: Some(namespace.clone()), ..Self::default() }
    }

    /// Adds a route, unless somebody has its path already.
    pub(super) fn add(&mut self, route: Arc<Route>) {
        if route.path_type == PathType::Exact {
            self.exact.entry(route.key.clone()).or_insert(route);
            return;
        }
        let (stem, is_slash) = spelling(&route.key);
        let spellings = self.prefix.entry(stem.into()).or_default();
        let slot = if is_slash { &mut spellings.slash } else { &mut spellings.plain };
        slot.get_or_insert(route);
    }

    /// Who has a path already.
    pub(super) fn holder(&self, path: &str, path_type: PathType) -> Option<&Arc<Route>> {
        if path_type == PathType::Exact {
            return self.exact.get(path);
        }
        let (stem, is_slash) = spelling(path);
        let spellings = self.prefix.get(stem)?;
        if is_slash { spellings.slash.as_ref() } else { spellings.plain.as_ref() }
    }

    /// Who has whatever nobody else has, or `/` at least: in the order of `Ruling::owner`. `default`: who
    /// has what no path is for.
    pub(super) fn root<'a>(&'a self, default: Option<&'a Arc<Route>>) -> Option<&'a Arc<Route>> {
        let all = self.holder("/", PathType::Prefix);
        all.or(default).or_else(|| self.holder("/", PathType::Exact))
    }

    pub(super) fn build(self) -> Paths {
        let longest = self.prefix.keys().map(|stem| stem.len()).max();
        let prefix = self.prefix.into_iter();
        Paths {
            exact: self.exact.into_values().collect(),
            prefix: prefix
                .map(|(stem, Spellings { plain, slash })| Prefix { stem, plain, slash })
                .collect(),
            longest_prefix_bytes: longest.unwrap_or(0),
            patterns: Box::default(),
            is_shared: false,
            namespaces: Box::default(),
            slashed: Box::default(),
        }
    }

    /// The same, with redirects to the slash that is missing.
    pub(super) fn build_compat(self) -> Paths {
        let is_there = |path: &str| {
            self.exact.contains_key(path)
                || self.prefix.get(path).is_some_and(|spellings| spellings.plain.is_some())
        };
        let prefixes = self.prefix.values().filter_map(|spellings| spellings.slash.as_ref());
        let slashed = slashed(self.exact.values().chain(prefixes), is_there);
        Paths { slashed, ..self.build() }
    }

    /// Each as its type says; those with a pattern are expressions.
    pub(super) fn build_strict(mut self) -> Paths {
        let patterns = self.take_patterns();
        self.with(patterns, Self::build)
    }

    /// Each as its type says, beside the expressions of guests.
    pub(super) fn build_shared(mut self) -> Paths {
        let patterns = self.take_patterns();
        Paths { is_shared: true, ..self.with(patterns, Self::build_compat) }
    }

    /// The rest as `build` has it.
    fn with(mut self, mut patterns: Vec<Pattern>, build: impl FnOnce(Self) -> Paths) -> Paths {
        let mut namespaces: Vec<Name> = self.owner.take().into_iter().collect();
        for pattern in &mut patterns {
            let of = &pattern.route.ingress.namespace;
            pattern.namespace =
                namespaces.iter().position(|name| name == of).unwrap_or_else(|| {
                    namespaces.push(of.clone());
                    namespaces.len() - 1
                });
        }
        Paths { patterns: patterns.into(), namespaces: namespaces.into(), ..build(self) }
    }

    /// Expressions, the longest text first.
    fn take_patterns(&mut self) -> Vec<Pattern> {
        let is_pattern = |_: &Name, route: &mut Arc<Route>| route.pattern.is_some();
        let exact = self.exact.extract_if(.., is_pattern);
        let mut patterns: Vec<Pattern> = exact
            .filter_map(|(_, route)| Some(Pattern::new(Test::Fits(route.pattern.clone()?), route)))
            .collect();
        for spellings in self.prefix.values_mut() {
            for slot in [&mut spellings.plain, &mut spellings.slash] {
                let pattern = slot.as_ref().and_then(|route| route.pattern.clone());
                if let Some((pattern, route)) = pattern.and_then(|p| Some((p, slot.take()?))) {
                    patterns.push(Pattern::new(Test::Fits(pattern), route));
                }
            }
        }
        self.prefix.retain(|_, spellings| spellings.plain.is_some() || spellings.slash.is_some());
        let text = |pattern: &Pattern| pattern.route.path.clone();
        patterns.sort_by(|a, b| text(b).len().cmp(&text(a).len()).then(text(b).cmp(&text(a))));
        patterns
    }

    /// ingress-nginx: where one path of a host is a regular expression all are, whatever their
    /// type and Ingress. They begin at the path's beginning, end anywhere, ignore case, and the
    /// longest text is asked first. Those that are none, or that there is no room for, are compared as
    /// they stand; their routes come with the paths.
    pub(super) fn build_patterns(mut self, budget: &mut Budget) -> (Paths, Vec<Arc<Route>>) {
        let owner = self.owner.take();
        let mut routes: Vec<Arc<Route>> = self.build().iter().cloned().collect();
        routes.sort_by(|a, b| b.path.cmp(&a.path));
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        let mut literal = Vec::new();
        let patterns = routes.into_iter().map(|mut route| {
            let test = match &route.pattern {
                Some(pattern) => Test::Fits(pattern.clone()),
                None if is_plain(&route.key) => Test::Begins,
                None => {
                    let pattern = (!budget.is_over())
                        .then(|| annotations::pattern(&route.key, Reach::Beginning).ok());
                    let pattern = pattern.flatten().filter(|pattern| budget.take([pattern]));
                    pattern.map_or_else(
                        || {
                            literal.push(route.clone());
                            Test::Begins
                        },
                        Test::Fits,
                    )
                }
            };
            // Nobody else has it yet: its texts have what it captures, too.
            if let (Test::Fits(pattern), Some(route)) = (&test, Arc::get_mut(&mut route)) {
                route.pattern.get_or_insert_with(|| pattern.clone());
            }
            Pattern::new(test, route)
        });
        let patterns = patterns.collect();
        let empty = Self { owner, ..Self::default() };
        (empty.with(patterns, |_| Paths::default()), literal)
    }
}

/// As an expression it means itself: there are as many as there are paths, and they cost nothing.
fn is_plain(text: &str) -> bool {
    !text.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'])
}

/// The stem of a prefix rule's path, and whether it is written with a slash behind it.
fn spelling(path: &str) -> (&str, bool) {
    match path.strip_suffix('/') {
        // `/` has one spelling only.
        Some("") | None if path.len() <= 1 => ("", false),
        Some(stem) => (stem, true),
        None => (path, false),
    }
}

/// Routes that requests without their path's last slash are sent to; `is_there`: another rule has
/// the path without it. ingress-nginx makes a location without the slash of a path that is written
/// without it alone, whatever the type (`updateServerLocations`).
fn slashed<'a>(
    routes: impl Iterator<Item = &'a Arc<Route>>,
    is_there: impl Fn(&str) -> bool,
) -> Box<[Arc<Route>]> {
    let slashes = |route: &&Arc<Route>| {
        let stem = route.key.strip_suffix('/').filter(|stem| !stem.is_empty());
        stem.is_some_and(|stem| !is_there(stem))
    };
    let mut slashed: Vec<_> = routes.filter(slashes).cloned().collect();
    slashed.sort_by(|a, b| stem_of(a).cmp(stem_of(b)));
    slashed.dedup_by(|later, first| later.key == first.key);
    slashed.into()
}

/// The path without its last slash.
fn stem_of(route: &Route) -> &str {
    route.key.strip_suffix('/').unwrap_or(&route.key)
}

#[cfg(test)]
mod tests;
