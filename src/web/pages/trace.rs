//! What becomes of one connection or request: `fairlead trace`.

use maud::{Markup, html};

use super::super::{Facts, asked::Question, frame::Content, words::head};
use crate::report::trace::{self, Asker, Candidate, Trace};

/// The form, and what was found out.
pub(in crate::web) fn page<F: Facts>(
    facts: &F,
    question: Option<&Question>,
) -> anyhow::Result<Content> {
    let form = form(question);
    let Some(question) = question else {
        let hint = html! {
            p.lead { "Every decision on the way of one connection or request, and why it fails: a name "
                "or address with its port, or a URL." }
        };
        return Ok(Content::new("Trace", form, hint));
    };
    let made = trace(facts, question);
    let live = match &made {
        Ok(trace) => shown(trace),
        // The form stays, to be mended.
        Err(error) => html! { p.note.bad { (crate::exit::one_line(error)) } },
    };
    Ok(Content::new("Trace", form, live))
}

fn trace<F: Facts>(facts: &F, question: &Question) -> anyhow::Result<Trace> {
    let Question { target, from, namespace } = question;
    let (client, namespace) = (given(from), given(namespace));
    // As on the command line, and forgiving: a bare name with a port is TCP.
    let is_complete = target.contains(' ') || target.contains("://");
    let target = if is_complete { target.clone() } else { format!("tcp {target}") };
    let target = target.parse()?;
    facts.look(|view| {
        let asker = Asker { client, namespace };
        trace::build(view, &target, asker)
    })
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn form(question: Option<&Question>) -> Markup {
    let (target, from, namespace) = match question {
        None => ("", "", ""),
        Some(Question { target, from, namespace }) => (&**target, &**from, &**namespace),
    };
    html! {
        form.question action="/trace" method="get" {
            label {
                "To "
                input.long name="target" value=(target) required spellcheck="false"
                    autocapitalize="off" placeholder="tcp web.shop:80, or https://shop.example/cart";
            }
            label {
                "From "
                input name="from" value=(from) placeholder="this node" spellcheck="false"
                    autocapitalize="off" title="NAMESPACE/POD, or an address";
            }
            label {
                "Pod's namespace "
                input name="namespace" value=(namespace) placeholder="default" spellcheck="false"
                    autocapitalize="off";
            }
            button { "Trace" }
        }
    }
}

fn shown(trace: &Trace) -> Markup {
    let outcome = &trace.outcome;
    let tone = match (outcome.is_served, outcome.verdict.as_str()) {
        (true, _) => "good",
        (_, "passed on") => "attention",
        _ => "bad",
    };
    html! {
        section.answer {
            p.outcome.(tone) { (outcome.text) }
            @if let Some(cure) = &outcome.cure { p.cure { (cure) } }
            dl.steps {
                @for step in &trace.steps {
                    div { dt { (step.part) } dd { @for line in &step.lines { p { (line) } } } }
                }
                @if !trace.candidates.is_empty() {
                    div { dt { "chances" } dd { (candidates(&trace.candidates)) } }
                }
                div { dt { "by" } dd.dim { p { (trace.source) } } }
            }
        }
    }
}

fn candidates(candidates: &[Candidate]) -> Markup {
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    html! {
        table.list {
            (head(&["Endpoint", "#Chance", "Pod", "Node"]))
            tbody {
                @for candidate in candidates {
                    tr {
                        td data-label="Endpoint" { code { (candidate.address) } }
                        @let percent = candidate.probability * 100.0;
                        td.number data-label="Chance" { (format!("{percent:.1} %")) }
                        td data-label="Pod" { (word(&candidate.pod)) }
                        td data-label="Node" {
                            (word(&candidate.node))
                            @if candidate.is_local { span.dim { " (this one)" } }
                        }
                    }
                }
            }
        }
    }
}
