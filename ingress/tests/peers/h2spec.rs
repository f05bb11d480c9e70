//! summerwind/h2spec: RFC 9113 and RFC 7541, case by case.

use std::path::PathBuf;

use crate::{run, support::upstream::Upstream, world};

/// Cases that cannot hold without TLS (`SUITE SECTION/NUMBER`), where HTTP/1 is served too, each with
/// the words of the RFC that say why.
const IMPOSSIBLE: &[(&str, &str)] = &[(
    "Hypertext Transfer Protocol Version 2 (HTTP/2) 3.5/2",
    "RFC 9113 3.4: an invalid preface indicates that the peer is not using HTTP/2; it is answered in \
     HTTP/1",
)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_cases_pass_with_and_without_tls() {
    let program = std::env::var_os("H2SPEC").expect("H2SPEC names the program: make test-peers");
    let upstream = Upstream::echo("web").await;
    let world = world(&[upstream.address]).await;
    for (address, more, impossible) in
        [(world.http(), &[][..], IMPOSSIBLE), (world.https(), &["-t", "-k"], &[])]
    {
        let port = address.port().to_string();
        let args = ["-h", "127.0.0.1", "-p", &port, "--strict", "-o", "5"];
        let args = args.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        let (text, _) = run(PathBuf::from(&program), args).await;
        let summary = text.lines().rev().find(|line| line.contains(" tests, ")).unwrap_or(&text);
        println!("{summary}");
        let count = |what: &str| {
            let (before, _) = summary.split_once(what)?;
            before.rsplit(' ').find(|word| !word.is_empty())?.parse::<usize>().ok()
        };
        let expected: Vec<&str> = impossible.iter().map(|(case, _)| *case).collect();
        assert_eq!(failed(&text), expected, "{text}");
        assert!(count(" tests") > Some(0), "{text}");
        assert_eq!(count(" passed").map(|n| n + expected.len()), count(" tests"), "{text}");
        assert_eq!(count(" failed"), Some(expected.len()), "{text}");
    }
}

/// The cases listed after `Failures:`, each under the titles of its suite and its section.
fn failed(text: &str) -> Vec<String> {
    let mut cases = Vec::new();
    let (mut suite, mut section) = ("", "");
    let lines = text.lines().skip_while(|line| !line.starts_with("Failures:")).skip(1);
    for line in lines {
        let line_text = line.trim();
        let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let title = line_text.split_once(". ").filter(|parts| is_number(parts.0));
        if let Some(case) = line_text.strip_prefix("× ") {
            let number = case.split(':').next().unwrap_or(case);
            cases.push(format!("{suite} {section}/{number}"));
        } else if let Some((number, _)) = title {
            section = number;
        } else if !line.is_empty() && !line.starts_with(' ') {
            (suite, section) = (line_text, "");
        }
    }
    cases
}
