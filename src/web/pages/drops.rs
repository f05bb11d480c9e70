//! What was not served, by role and reason: `fairlead traffic`.

use maud::html;

use super::super::{
    Facts,
    frame::Content,
    rates::Rates,
    words::{class, head, number, rate},
};
use crate::{report::traffic::UnservedRow, table::Tone};

/// The page.
pub(in crate::web) fn page<F: Facts>(facts: &F, rates: &mut Rates) -> Content {
    let traffic = facts.traffic();
    let live = html! {
        @if traffic.unserved.is_empty() {
            p.note.good { "Everything was served: nothing was dropped, refused or left alone." }
        } @else {
            table.list {
                (head(&["Role", "Reason", "#Count", "#Rate", "What it means"]))
                tbody {
                    @for UnservedRow { role, reason, count, meaning } in &traffic.unserved {
                        @let now = rates.of(&format!("{role}/{reason}"), *count);
                        tr {
                            td data-label="Role" { (role) }
                            td data-label="Reason" { code { (reason) } }
                            td.number data-label="Count" { (number(*count)) }
                            td.number data-label="Rate" {
                                @let tone = if now > Some(0.0) { Tone::Attention } else { Tone::Dim };
                                span.(class(tone)) { (rate(now)) }
                            }
                            td.wide data-label="Meaning" { (meaning) }
                        }
                    }
                }
            }
        }
    };
    let still = html! {
        p.lead { "What was dropped, refused or left alone since the start, by role and reason. "
            "To see why it meets one client: " a href="/trace" { "trace" } "." }
    };
    Content::new("Drops by reason", still, live)
}
