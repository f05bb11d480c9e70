//! TLS that ends at endpoints and not here.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    annotations::site,
    support::{
        PATIENCE, World,
        client::{self, read_until},
        objects::{Authority, IngressExt, backend},
        upstream::{Upstream, dead},
    },
};

/// An endpoint that ends TLS itself and answers each line with it.
pub(crate) async fn encrypted(authority: &Authority, name: &str) -> Upstream {
    let (certificate, key) = authority.issue(&[name]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::raw(move |stream, counts| {
        let acceptor = acceptor.clone();
        async move {
            counts.request();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut bytes = vec![0; 16 << 10];
            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..n]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn tls_of_a_name_is_passed_on_unopened() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let upstream = encrypted(&theirs, "pass.example").await;
    let web = Upstream::echo("plain").await;
    // One of the endpoints is gone: the other one is asked.
    let mut objects = backend("web", &[dead().await, upstream.address]);
    objects.extend(backend("plain", &[web.address]));
    objects.push(ours.secret("cert", &["own.example"]));
    let own = crate::support::objects::ingress("own").host("own.example", "plain");
    objects.push(own.tls(&["own.example"], "cert").object());
    objects.push(site("pass", &[("ssl-passthrough", "true")]).object());
    let world = World::single(objects).await;
    for round in 0..4 {
        let config = client::trusting(theirs.der(), &[]);
        let mut stream = client::tls(world.https(), "pass.example", config).await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        assert_eq!(read_until(&mut stream, "\n").await, "hello\n", "{round}");
    }
    // Other names end here, as before.
    let config = client::trusting(ours.der(), &["http/1.1"]);
    let stream = client::tls(world.https(), "own.example", config).await.unwrap();
    let answer =
        client::send(&mut client::http1(stream).await, client::request("own.example", "/")).await;
    assert_eq!(answer.who(), (200, "plain"));
    // And what is no TLS is refused as before.
    let mut stream = TcpStream::connect(world.https()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: pass.example\r\n\r\n").await.unwrap();
    let _ = client::read_to_close(&mut stream).await;
    world.eventually(|counters| counters.passthroughs == 4 && counters.tls_failures == 1).await;
}

#[tokio::test]
async fn much_tls_goes_within_the_kernel_behind_the_hello_that_was_read() {
    const MUCH: usize = 16 << 20;
    let theirs = Authority::new();
    let upstream = encrypted(&theirs, "pass.example").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("pass", &[("ssl-passthrough", "true")]).object());
    let world = World::single(objects).await;
    let config = client::trusting(theirs.der(), &[]);
    let stream = client::tls(world.https(), "pass.example", config).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let said: Vec<u8> = (0..MUCH as u64 / 8).flat_map(u64::to_le_bytes).collect();
    let mut heard = vec![0; MUCH];
    let saying = async {
        to.write_all(&said).await?;
        to.flush().await
    };
    let both = async { tokio::try_join!(saying, from.read_exact(&mut heard)) };
    timeout(PATIENCE, both).await.unwrap().unwrap();
    assert!(heard == said, "TLS would not have let it pass");
    let spliced = world.running.counters().spliced_bytes;
    assert!(spliced > MUCH as u64 / 2, "{spliced} bytes, of both ways");
}

#[tokio::test]
async fn a_hello_in_two_parts_is_passed_on_whole() {
    let theirs = Authority::new();
    let upstream = encrypted(&theirs, "pass.example").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("pass", &[("ssl-passthrough", "true")]).object());
    let world = World::single(objects).await;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let address = world.https();
    let relaying = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for _ in 0..40 {
            stream.write_u8(far.read_u8().await.unwrap()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut far, &mut stream).await;
    });
    let name = rustls_pki_types::ServerName::try_from("pass.example").unwrap();
    let config = Arc::new(client::trusting(theirs.der(), &[]));
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, near).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "\n").await, "hello\n");
    relaying.abort();
}

#[tokio::test]
async fn without_a_root_there_is_nothing_to_pass_to() {
    let mut objects = backend("web", &[]);
    let path = [(fairlead_state::model::PathType::Prefix, "/a", "web")];
    let ingress = crate::support::objects::ingress("pass").rule("pass.example", &path);
    let ingress = ingress.annotation("nginx.ingress.kubernetes.io/ssl-passthrough", "true");
    objects.push(ingress.object());
    let world = World::single(objects).await;
    assert!(world.reasons("pass")[0].contains("no path / to pass"), "{:?}", world.reasons("pass"));
}
