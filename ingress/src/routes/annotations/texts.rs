//! Texts that are put together for each request.

use super::{Asking, Balance, Extra, Snippet, Template};

impl Extra {
    /// All but those of snippets.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &Template> {
        let elsewhere = self.elsewhere.iter().map(|elsewhere| &elsewhere.location);
        let asked = self.authority.iter().flat_map(|authority| {
            let Asking { url, signin, request_redirect, cache_key, question, .. } =
                &authority.asking;
            let optional = [signin, request_redirect, cache_key].into_iter().flatten();
            let fields = question.iter().map(|(_, text)| text);
            [&url.authority, &url.target].into_iter().chain(optional).chain(fields)
        });
        let copied = self.mirror.iter().map(|mirror| &mirror.copies);
        let copied = copied.flat_map(|copies| {
            [&copies.url.authority, &copies.url.target].into_iter().chain(&copies.host)
        });
        let told = self.told.iter().map(|(_, text)| text);
        let hashed = self.balance.iter().filter_map(|balance| match balance {
            Balance::Hash { by, .. } => Some(by),
            Balance::Faster | Balance::Idlest | Balance::Sticky(_) => None,
        });
        elsewhere.chain(asked).chain(copied).chain(told).chain(hashed).chain(&self.vhost)
    }

    /// Whether any has what a route's expression captures.
    pub(super) fn captures(&self) -> bool {
        self.templates().any(Template::captures)
            || self.snippet.as_ref().is_some_and(Snippet::captures)
    }
}
