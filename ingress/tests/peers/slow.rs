//! slowhttptest: clients that keep connections open by saying little.

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::model::PathType::Prefix;
use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;

use crate::{
    run,
    support::{
        World,
        client::get,
        config,
        objects::{Authority, IngressExt, backend, ingress},
        upstream::Upstream,
    },
    tls_host,
};

/// Of the answer to those who read slowly: more than a socket holds.
const ANSWER_BYTES: usize = 16 << 20;

/// Slow heads, slow bodies, slow readers: each is given up in its time, and others are served
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_given_up_and_others_served() {
    let upstream = Upstream::echo("web").await;
    let large = Bytes::from(vec![b'x'; ANSWER_BYTES]);
    let large = Upstream::serve(move |_| {
        let large = large.clone();
        async move { Response::new(Full::new(large)) }
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(backend("large", &[large.address]));
    objects.push(ingress("large").rule("*", &[(Prefix, "/large", "large")]).object());
    objects.extend(tls_host(&Authority::new()));
    let timeouts = Timeouts {
        header_read_ms: 2_000,
        client_body_ms: 2_000,
        client_send_ms: 2_000,
        ..Timeouts::default()
    };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, objects).await;
    // A head has its time as a whole. A body has it from part to part, as with nginx: whoever is slower
    // than that is given up, so parts come at longer intervals.
    for (mode, path, more) in [
        ("-H", "/", &["-i", "1"][..]),
        ("-B", "/", &["-i", "4"]),
        ("-X", "/large", &["-n", "4", "-w", "512", "-y", "1024", "-z", "32"]),
    ] {
        let before = given_up(&world);
        let url = format!("http://127.0.0.1:{}{path}", world.http().port());
        let usual = ["-c", "200", "-r", "200", "-l", "8", "-p", "2", "-u", &url, mode];
        let args = usual.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        let attack = run("/usr/bin/slowhttptest".into(), args);
        let served = async {
            for _ in 0..20 {
                assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let ((text, _), ()) = tokio::join!(attack, served);
        let given_up = given_up(&world) - before;
        assert!(given_up >= 200, "{mode}: {given_up} given up\n{text}");
    }
}

/// A body's time is up with an answer; a head's with a close.
fn given_up(world: &World) -> u64 {
    let counters = world.running.counters();
    counters.client_timeouts + counters.responses.get(&408).copied().unwrap_or_default()
}
