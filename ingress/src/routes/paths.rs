//! Path matching of one host (KEP-1453): Exact before Prefix of the same path, else the longest.

use std::{cmp::Ordering, sync::Arc};

use fairlead_state::model::PathType;
use regex::bytes::Regex;

use super::{
    Route,
    annotations::{self, Reach},
};

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
    /// Paths that end with a slash and that requests without it are redirected to.
    slashed: Box<[Box<str>]>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    route: Arc<Route>,
}

/// Prefix rules for one path, written without or with a trailing slash (`/foo`, `/foo/`).
#[derive(Debug)]
struct Prefix {
    /// Without trailing slash; empty for `/`.
    stem: Box<str>,
    plain: Option<Arc<Route>>,
    slash: Option<Arc<Route>>,
}

/// Collects the paths of one host; of two rules with equal type and path the first stays.
#[derive(Debug, Default)]
pub(super) struct Builder {
    exact: Vec<Arc<Route>>,
    prefix: Vec<Prefix>,
}

impl Paths {
    /// The route for a normalised path.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if let Ok(i) = self.exact.binary_search_by(|route| (*route.path).cmp(path)) {
            return self.exact.get(i);
        }
        if !self.patterns.is_empty() {
            let mut patterns = self.patterns.iter();
            let found = patterns.find(|pattern| pattern.regex.is_match(path.as_bytes()));
            if let Some(pattern) = found {
                return Some(&pattern.route);
            }
        }
        self.find_prefix(path)
    }

    /// Whether a request is sent to the path with a slash at its end: nginx does so where that one
    /// is a location and this one is none.
    pub fn wants_slash(&self, path: &str) -> bool {
        if self.slashed.is_empty() || path.ends_with('/') {
            return false;
        }
        let slashed = |stem: &str| stem.strip_suffix('/').unwrap_or(stem).cmp(path);
        self.slashed.binary_search_by(|own| slashed(own)).is_ok()
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

impl Builder {
    /// Adds a route, or returns the one that already holds its path.
    pub(super) fn add(&mut self, route: Arc<Route>) -> Result<(), Arc<Route>> {
        if route.path_type == PathType::Exact {
            return match self.exact.binary_search_by(|other| other.path.cmp(&route.path)) {
                Ok(i) => self.exact.get(i).cloned().map_or(Ok(()), Err),
                Err(i) => {
                    self.exact.insert(i, route);
                    Ok(())
                }
            };
        }
        let (stem, is_slash) = match route.path.strip_suffix('/') {
            // `/` has one spelling only.
            Some("") | None if route.path.len() <= 1 => ("", false),
            Some(stem) => (stem, true),
            None => (&*route.path, false),
        };
        let i = match self.prefix.binary_search_by(|prefix| (*prefix.stem).cmp(stem)) {
            Ok(i) => i,
            Err(i) => {
                self.prefix.insert(i, Prefix { stem: stem.into(), plain: None, slash: None });
                i
            }
        };
        let Some(prefix) = self.prefix.get_mut(i) else { return Ok(()) };
        let slot = if is_slash { &mut prefix.slash } else { &mut prefix.plain };
        match slot {
            Some(older) => Err(older.clone()),
            None => {
                *slot = Some(route);
                Ok(())
            }
        }
    }

    pub(super) fn build(self) -> Paths {
        debug_assert!(self.prefix.is_sorted_by(|a, b| a.stem.cmp(&b.stem) == Ordering::Less));
        let longest = self.prefix.iter().map(|prefix| prefix.stem.len()).max();
        Paths {
            exact: self.exact.into(),
            prefix: self.prefix.into(),
            longest_prefix_bytes: longest.unwrap_or(0),
            patterns: Box::default(),
            slashed: Box::default(),
        }
    }

    /// The same, with redirects to the slash that is missing.
    pub(super) fn build_compat(self) -> Paths {
        let is_there = |path: &str| {
            let exact = self.exact.iter().any(|route| *route.path == *path);
            exact
                || self.prefix.iter().any(|prefix| *prefix.stem == *path && prefix.plain.is_some())
        };
        let slashes = |route: &&Arc<Route>| {
            // ingress-nginx makes a location without the slash beside one of type Prefix.
            let is_location = route.path_type != PathType::Prefix;
            let stem = route.path.strip_suffix('/').filter(|stem| !stem.is_empty());
            is_location && stem.is_some_and(|stem| !is_there(stem))
        };
        let routes = self.exact.iter().chain(self.prefix.iter().filter_map(|p| p.slash.as_ref()));
        let mut slashed: Vec<Box<str>> =
            routes.filter(slashes).map(|route| (*route.path).into()).collect();
        slashed.sort_unstable_by(|a, b| a.trim_end_matches('/').cmp(b.trim_end_matches('/')));
        slashed.dedup();
        Paths { slashed: slashed.into(), ..self.build() }
    }

    /// Each as its type says; those with a pattern are expressions, the longest text first.
    pub(super) fn build_strict(mut self) -> Paths {
        let mut patterns = Vec::new();
        for prefix in &mut self.prefix {
            for slot in [&mut prefix.plain, &mut prefix.slash] {
                let regex = slot.as_ref().and_then(|route| route.pattern.clone());
                if let Some((regex, route)) = regex.and_then(|regex| Some((regex, slot.take()?))) {
                    patterns.push(Pattern { regex, route });
                }
            }
        }
        self.prefix.retain(|prefix| prefix.plain.is_some() || prefix.slash.is_some());
        let text = |pattern: &Pattern| pattern.route.path.clone();
        patterns.sort_by(|a, b| text(b).len().cmp(&text(a).len()).then(text(b).cmp(&text(a))));
        Paths { patterns: patterns.into(), ..self.build() }
    }

    /// ingress-nginx: where one path of a host is a regular expression all are, whatever their
    /// type and Ingress. They begin at the path's beginning, end anywhere, ignore case, and the
    /// longest text is asked first. Those that are none are compared as they stand; their routes
    /// come with the paths.
    pub(super) fn build_patterns(self) -> (Paths, Vec<Arc<Route>>) {
        let mut routes: Vec<Arc<Route>> = self.build().iter().cloned().collect();
        routes.sort_by(|a, b| b.path.cmp(&a.path));
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        let mut literal = Vec::new();
        let patterns = routes.into_iter().filter_map(|route| {
            let regex = route
                .pattern
                .clone()
                .map_or_else(|| annotations::pattern(&route.path, Reach::Beginning), Ok);
            let regex = regex.or_else(|_| {
                literal.push(route.clone());
                annotations::pattern(&regex::escape(&route.path), Reach::Beginning)
            });
            Some(Pattern { regex: regex.ok()?, route })
        });
        let patterns = patterns.collect();
        (Paths { patterns, ..Paths::default() }, literal)
    }
}

#[cfg(test)]
mod tests;
