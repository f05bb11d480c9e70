//! docs/requests.md is the tables of attacks, and what peers made of some of them.

use std::fmt::Write as _;

use super::table::ATTACKS;
use crate::{
    attacks2::table::{FIELDS, HEADS},
    support::{frames::Outcome, page_ends_with},
};

/// As measured behind nginx 1.22, HAProxy 2.6, hyper 1.12 and Pingora 0.9: the status, and whether
/// anything reached the upstream.
const PEERS: &[(&str, [&str; 4])] = &[
    ("CL.TE", ["400", "200, sent on", "200, sent on", "200, sent on"]),
    ("TE.CL", ["400", "200, sent on", "200, sent on", "200, sent on"]),
    ("TE in HTTP/1.0", ["400", "200, sent on", "400", "400"]),
    ("TE xchunked", ["501", "400", "400", "400"]),
    ("TE chunked, identity", ["501", "400", "400", "400"]),
    ("TE behind a vertical tab", ["501", "400", "400", "400"]),
    ("list of lengths", ["400", "200, sent on", "400", "200, sent on"]),
    ("duplicate Host", ["400", "400", "200, sent on", "400"]),
    ("no Host", ["400", "200, sent on", "200, sent on", "200, sent on"]),
    ("bad bytes in Host", ["400", "200, sent on", "200, sent on", "200, sent on"]),
    ("absolute form, other Host", ["200, sent on", "400", "200, sent on", "200, sent on"]),
    ("obs-fold", ["400", "200, sent on", "400", "400"]),
    ("NUL in a value", ["400", "200, sent on", "400", "400"]),
    ("CONNECT", ["400", "200, sent on", "closed, sent on", "405"]),
    ("TRACE", ["405", "200, sent on", "200, sent on", "200, sent on"]),
    ("HTTP/1.2", ["200, sent on", "200, sent on", "400", "400"]),
];

fn tables() -> String {
    let mut text = String::from("| over HTTP/1 | Fairlead | nginx | HAProxy | hyper | Pingora |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for (name, _, status) in ATTACKS {
        let peers = PEERS.iter().find(|(known, _)| known == name);
        let peers = peers.map_or([""; 4], |(_, peers)| *peers).join(" | ");
        let _ = writeln!(text, "| {name} | {status} | {peers} |");
    }
    text.push_str("\n| over HTTP/2 | Fairlead |\n|---|---|\n");
    let fields = FIELDS.iter().map(|(name, _, outcome)| (name, outcome));
    for (name, outcome) in fields.chain(HEADS.iter().map(|(name, _, outcome)| (name, outcome))) {
        let _ = match outcome {
            Outcome::Status(status) => writeln!(text, "| {name} | {status} |"),
            Outcome::Refused => writeln!(text, "| {name} | reset |"),
        };
    }
    text
}

#[test]
fn the_documentation_is_up_to_date() {
    page_ends_with("requests.md", "requests", &tables());
}

#[test]
fn what_any_peer_refuses_is_refused() {
    for (name, _) in PEERS {
        let row = ATTACKS.iter().find(|(known, ..)| known == name);
        assert!(row.is_some_and(|(.., status)| *status >= 400), "{name}");
    }
    for (name, _, outcome) in FIELDS.iter().chain(HEADS) {
        assert!(!matches!(outcome, Outcome::Status(..400)), "{name}");
    }
}
