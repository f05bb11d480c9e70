//! What stands around every page, and how long lists are cut into pages.

use hyper::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::{
    Facts,
    asked::{Page, link},
    pages,
    rates::Rates,
    words::{class, number},
};
use crate::{
    report::{
        part::{Extent, ROWS_MAX},
        status::{Health, span},
    },
    table::Tone,
    version::VERSION,
};

/// What a page consists of.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) title: String,
    /// Forms: they are the reader's while he types.
    pub(super) still: Markup,
    /// What is made again while somebody looks.
    pub(super) live: Markup,
    pub(super) status: StatusCode,
}

impl Content {
    pub(super) fn new(title: impl Into<String>, still: Markup, live: Markup) -> Self {
        Self { title: title.into(), still, live, status: StatusCode::OK }
    }
}

const PLACES: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/services", "Services"),
    ("/routes", "Routes"),
    ("/names", "Names"),
    ("/drops", "Drops"),
    ("/trace", "Trace"),
];

/// A whole document.
pub(super) fn whole<F: Facts>(facts: &F, page: &Page) -> (StatusCode, String) {
    let Content { title, still, live, status } = content(facts, page, &mut Rates::default());
    let agent = facts.health();
    let place = place(page);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · " (agent.node) " · Fairlead" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
                script src="/page.js" defer {}
            }
            body {
                header {
                    a.brand href="/" { img src="/icon.svg" alt="" width="22" height="22"; "Fairlead" }
                    nav {
                        @for (path, name) in PLACES {
                            a href=(path) aria-current=[(path == place).then_some("page")] { (name) }
                        }
                    }
                    div #health { (health(&agent)) }
                }
                main {
                    h1 { (title) }
                    div #still { (still) }
                    div #live { (live) }
                }
                footer {
                    "fairlead " (VERSION) " · read-only · the same as JSON: "
                    code { "fairlead status -o json" }
                }
            }
        }
    };
    (status, document.into_string())
}

fn place(page: &Page) -> &'static str {
    match page {
        Page::Overview => "/",
        Page::Services { .. } | Page::Service(_) => "/services",
        Page::Routes { .. } | Page::Host(_) => "/routes",
        Page::Names { .. } => "/names",
        Page::Drops => "/drops",
        Page::Trace(_) => "/trace",
    }
}

/// A page's content; what cannot be told is said in its place.
pub(super) fn content<F: Facts>(facts: &F, page: &Page, rates: &mut Rates) -> Content {
    let made = match page {
        Page::Overview => Ok(pages::overview::page(facts, rates)),
        Page::Services { text, which, number } => {
            pages::services::list(facts, rates, text, *which, *number)
        }
        Page::Service(name) => pages::services::one(facts, rates, name),
        Page::Routes { text, number } => pages::routes::list(facts, rates, text, *number),
        Page::Host(host) => pages::routes::host(facts, host),
        Page::Names { text, number, lookup } => {
            pages::names::page(facts, text, *number, lookup.as_ref())
        }
        Page::Drops => Ok(pages::drops::page(facts, rates)),
        Page::Trace(question) => pages::trace::page(facts, question.as_ref()),
    };
    made.unwrap_or_else(|error| {
        let said = crate::exit::one_line(&error);
        let live = html! { p.note.attention { (said) } };
        let title = PLACES.iter().find(|(path, _)| *path == place(page));
        let title = title.map_or("", |(_, name)| *name);
        Content { status: StatusCode::UNPROCESSABLE_ENTITY, ..Content::new(title, html! {}, live) }
    })
}

/// The line at the top of every page.
pub(super) fn health(agent: &Health) -> Markup {
    let (word, tone) = match (agent.is_ending, agent.is_healthy) {
        (true, _) => ("ending", Tone::Attention),
        (_, true) => ("healthy", Tone::Good),
        _ => ("not healthy", Tone::Bad),
    };
    let (age, age_tone) = match &agent.snapshot {
        None => ("nothing is known yet".to_owned(), Tone::Attention),
        Some(snapshot) => match snapshot.stale_seconds {
            Some(stale) => (format!("out of touch for {}", span(stale)), Tone::Bad),
            None => ("up to date".to_owned(), Tone::Dim),
        },
    };
    html! {
        span.dot.(class(tone)) {}
        span.node { (agent.node) }
        span.(class(tone)) { (word) }
        span.(class(age_tone)) { (age) }
    }
}

/// How much of a list is shown, with links to the rest of it.
pub(super) fn pager(extent: Extent, path: &str, query: &[(&str, &str)]) -> Markup {
    let Extent { total, fitting, first, taken } = extent;
    let (page, last) = (first / ROWS_MAX + 1, fitting.div_ceil(ROWS_MAX).max(1));
    let count = |n: usize| number(u64::try_from(n).unwrap_or(u64::MAX));
    let to = |page: usize| {
        let page = page.to_string();
        link(path, &[query, &[("page", page.as_str())]].concat())
    };
    html! {
        p.pager {
            span.count {
                @if fitting == 0 { "none" }
                @else if fitting == taken { (count(fitting)) }
                @else { (count(first + 1)) "–" (count(first + taken)) " of " (count(fitting)) }
                @if fitting < total { " (of " (count(total)) " in all)" }
            }
            @if last > 1 {
                @if page > 1 { a href=(to(page - 1)) rel="prev" { "‹ before" } }
                span.dim { "page " (page) " of " (last) }
                @if page < last { a href=(to(page + 1)) rel="next" { "next ›" } }
            }
        }
    }
}

/// A search box whose list follows while one types; without a script, by its button.
pub(super) fn search(path: &str, text: &str, hint: &str, more: &Markup) -> Markup {
    html! {
        form.search action=(path) method="get" role="search" data-filter {
            input type="search" name="q" value=(text) placeholder=(hint) aria-label=(hint)
                autocomplete="off" spellcheck="false" autocapitalize="off";
            (more)
            button { "Filter" }
        }
    }
}
