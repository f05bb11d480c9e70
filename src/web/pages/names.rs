//! Names and what they are answered: `fairlead names`.

use std::net::Ipv4Addr;

use maud::{Markup, html};

use super::super::{
    Facts,
    asked::Lookup as Question,
    frame::{Content, pager, search},
    words::{head, pill},
};
use crate::{
    report::{
        names::{self, Asked, Lookup, NameRow, Names},
        part::Wanted,
    },
    table::Tone,
};

const RECORDS: [&str; 6] = ["A", "AAAA", "SRV", "PTR", "CNAME", "TXT"];

/// A form to look a name up, its answer, and all names.
pub(in crate::web) fn page<F: Facts>(
    facts: &F,
    text: &str,
    page: usize,
    question: Option<&Question>,
) -> anyhow::Result<Content> {
    let ((all, extent), lookup) = facts.look(|view| {
        let all = names::some(view, &Wanted::page(text, page))?;
        let lookup = question.map(|asked| {
            let Question { name, record, namespace } = asked;
            names::lookup(view, name, record, namespace, Ipv4Addr::LOCALHOST.into())
        });
        Ok((all, lookup))
    })?;
    let Names { names, note, .. } = all;
    let still = html! {
        (form(question))
        (search("/names", text, "name", &html! {}))
    };
    let pages = pager(extent, "/names", &[("q", text)]);
    let live = html! {
        @match &lookup {
            None => {}
            Some(Ok(lookup)) => (answer(lookup)),
            // The form stays, to be mended.
            Some(Err(error)) => p.note.bad { (crate::exit::one_line(error)) },
        }
        @if let Some(note) = note { p.note.attention { (note) } }
        (pages)
        @if !names.is_empty() { (table(&names)) @if extent.fitting > extent.taken { (pages) } }
    };
    Ok(Content::new("Names", still, live))
}

fn form(question: Option<&Question>) -> Markup {
    let (name, record, namespace) = match question {
        None => ("", "A", "default"),
        Some(Question { name, record, namespace }) => (&**name, &**record, &**namespace),
    };
    html! {
        form.question action="/names" method="get" {
            label {
                "Name "
                input name="name" value=(name) placeholder="web.shop" required
                    spellcheck="false" autocapitalize="off";
            }
            label {
                "Type "
                select name="type" {
                    @for kind in RECORDS { option selected[kind == record] { (kind) } }
                }
            }
            label {
                "Pod's namespace "
                input name="namespace" value=(namespace) spellcheck="false" autocapitalize="off";
            }
            button { "Look up" }
        }
    }
}

fn answer(lookup: &Lookup) -> Markup {
    let tone = if lookup.is_found { "good" } else { "bad" };
    html! {
        section.answer {
            p.outcome.(tone) { (lookup.result) }
            @if !lookup.why.is_empty() { p { (lookup.why) } }
            table.list {
                (head(&["Asked", "Type", "Answer", "By"]))
                tbody { @for asked in &lookup.asked { (line(asked)) } }
            }
        }
    }
}

fn line(asked: &Asked) -> Markup {
    let addresses: Vec<String> = asked.addresses.iter().map(ToString::to_string).collect();
    let found = if addresses.is_empty() { &asked.records } else { &addresses };
    let tone = match asked.code.as_str() {
        "NOERROR" if !found.is_empty() => Tone::Good,
        "NXDOMAIN" | "forwarded" => Tone::Dim,
        _ => Tone::Attention,
    };
    html! {
        tr {
            td data-label="Asked" { code { (asked.name) } }
            td data-label="Type" { (asked.record) }
            td data-label="Answer" {
                @if found.is_empty() { (pill(&asked.code, tone)) }
                @for record in found { span.address { (record) } " " }
            }
            td data-label="By" { (asked.by) }
        }
    }
}

fn table(rows: &[NameRow]) -> Markup {
    html! {
        table.list {
            (head(&["Name", "Answer", "What"]))
            tbody {
                @for NameRow { name, answer, what } in rows {
                    tr {
                        td data-label="Name" { code { (name) } }
                        td data-label="Answer" {
                            @for record in answer { span.address { (record) } " " }
                        }
                        td data-label="What" { span.dim { (what) } }
                    }
                }
            }
        }
    }
}
