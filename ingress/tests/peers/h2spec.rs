//! summerwind/h2spec: RFC 9113 and RFC 7541, case by case.

use std::path::PathBuf;

use crate::{run, support::upstream::Upstream, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_cases_pass_with_and_without_tls() {
    let program = std::env::var_os("H2SPEC").expect("H2SPEC names the program: make test-peers");
    let upstream = Upstream::echo("web").await;
    let world = world(&[upstream.address]).await;
    for (address, more) in [(world.http(), &[][..]), (world.https(), &["-t", "-k"])] {
        let port = address.port().to_string();
        let args = ["-h", "127.0.0.1", "-p", &port, "--strict", "-o", "5"];
        let args = args.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        let (text, _) = run(PathBuf::from(&program), args).await;
        let summary = text.lines().rev().find(|line| line.contains(" tests, ")).unwrap_or(&text);
        println!("{summary}");
        let count = |what: &str| {
            let (before, _) = summary.split_once(what)?;
            before.rsplit(' ').find(|word| !word.is_empty())?.parse::<u32>().ok()
        };
        assert_eq!(count(" failed"), Some(0), "{text}");
        assert_eq!(count(" skipped"), Some(0), "{text}");
        assert!(count(" passed") >= Some(140), "{text}");
    }
}
