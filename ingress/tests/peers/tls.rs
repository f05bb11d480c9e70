//! sslscan: what versions and suites are offered, and known weaknesses.

use crate::{HOST, run, support::upstream::Upstream, world};

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
        "Compression disabled",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let suites: Vec<&str> = text.lines().filter(|line| line.contains(" bits ")).collect();
    assert!(!suites.is_empty(), "{text}");
    for suite in suites {
        let is_strong = suite.contains("GCM") || suite.contains("CHACHA20");
        assert!(is_strong && !suite.contains("CBC") && !suite.contains("anon"), "{suite}");
    }
}
