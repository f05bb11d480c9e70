//! sslscan and testssl.sh: what versions and suites are offered, and known weaknesses.

use crate::{HOST, run, support::upstream::Upstream, world};

/// Findings that are the user's: what is not in a certificate, and what a site says of itself.
const OF_THE_USER: [&str; 2] = ["cert_", "security_headers"];
/// In warnings of the scanner.
const NOBODY_THERE: [&str; 6] = [
    "couldn't connect",
    "connect problem",
    "cannot connect",
    "stalled",
    "reply empty",
    "response was empty",
];
/// What sslscan knows of the groups that may be offered.
const GROUPS: [&str; 3] = ["x25519", "secp256r1", "secp384r1"];
/// Debian's sslscan cannot offer compression, so that is asked here.
const COMPRESSION: &str = "CRIME_TLS";
/// A scan that found less was none.
const FINDINGS_MIN: usize = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslscan_finds_current_versions_and_suites_only() {
    let upstream = Upstream::echo("web").await;
    let world = world(&[upstream.address]).await;
    let target = format!("127.0.0.1:{}", world.https().port());
    let args = ["--no-colour", &format!("--sni-name={HOST}"), &target];
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let (text, _) = run("/usr/bin/sslscan".into(), args).await;
    for expected in [
        "SSLv2     disabled",
        "SSLv3     disabled",
        "TLSv1.0   disabled",
        "TLSv1.1   disabled",
        "TLSv1.2   enabled",
        "TLSv1.3   enabled",
        "TLSv1.3 not vulnerable to heartbleed",
        "TLSv1.2 not vulnerable to heartbleed",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let is_suite = |line: &&str| line.starts_with("Preferred ") || line.starts_with("Accepted ");
    let offers = text.lines().filter(|line| line.contains(" bits "));
    // Under "Supported Server Cipher(s)" and "Server Key Exchange Group(s)".
    let (suites, groups): (Vec<&str>, Vec<&str>) = offers.partition(is_suite);
    assert!(!suites.is_empty() && !groups.is_empty(), "{text}");
    for suite in suites {
        let is_strong = suite.contains("GCM") || suite.contains("CHACHA20");
        assert!(is_strong && !suite.contains("CBC") && !suite.contains("anon"), "{suite}");
    }
    for group in groups {
        let is_current = GROUPS.iter().any(|known| group.contains(&format!(" {known}")));
        assert!(is_current, "{group}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn testssl_finds_nothing_above_info_with_defaults() {
    let upstream = Upstream::echo("web").await;
    let world = world(&[upstream.address]).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("findings.json");
    let url = format!("https://{HOST}:{}/", world.https().port());
    let (ip, json) = ("--ip=127.0.0.1", file.to_str().unwrap());
    // Nobody is there to press a key, and no name server to be asked.
    let args = ["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", ip];
    let args = args.into_iter().chain(["--jsonfile", json, &url]).map(str::to_owned).collect();
    let (text, _) = run("/usr/bin/testssl".into(), args).await;
    let findings = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings: Vec<serde_json::Value> = serde_json::from_str(&findings).unwrap();
    assert!(findings.len() >= FINDINGS_MIN, "{} findings:\n{text}", findings.len());
    let found = findings.iter().filter(|finding| {
        let id = finding["id"].as_str().unwrap();
        let is_good = match finding["severity"].as_str().unwrap() {
            "OK" | "INFO" => true,
            // What the scanner or its OpenSSL cannot do; a check that met nobody is none.
            "WARN" => {
                let said = finding["finding"].as_str().unwrap();
                !NOBODY_THERE.iter().any(|words| said.contains(words))
            }
            _ => false,
        };
        !is_good && !OF_THE_USER.iter().any(|prefix| id.starts_with(prefix))
    });
    let found: Vec<String> = found.map(ToString::to_string).collect();
    assert!(found.is_empty(), "{found:#?}\n{text}");
    for id in ["cipher_order", COMPRESSION] {
        let finding = findings.iter().find(|finding| finding["id"] == id);
        assert!(finding.is_some_and(|finding| finding["severity"] == "OK"), "{id}: {finding:?}");
    }
}
