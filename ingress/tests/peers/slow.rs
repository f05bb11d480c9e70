//! slowhttptest: clients that keep connections open by saying little.

use fairlead_ingress::{IngressConfig, Timeouts};

use crate::{
    run,
    support::{
        World,
        client::get,
        config,
        objects::{Authority, backend},
        upstream::Upstream,
    },
    tls_host,
};

/// Slow heads, slow bodies: each is given up in its time, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_given_up_and_others_served() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(tls_host(&Authority::new()));
    let timeouts = Timeouts { header_read_ms: 2_000, client_body_ms: 2_000, ..Timeouts::default() };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, objects).await;
    let url = format!("http://127.0.0.1:{}/", world.http().port());
    for mode in ["-H", "-B"] {
        let before = given_up(&world);
        let args = [mode, "-c", "200", "-r", "200", "-i", "1", "-l", "8", "-p", "2", "-u", &url];
        let attack = run("/usr/bin/slowhttptest".into(), args.map(str::to_owned).into());
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
