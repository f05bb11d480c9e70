//! Upstreams over TLS: believed by certificate and name, or not at all.

use std::{net::SocketAddr, path::Path, sync::Arc};

use fairlead_dns::{DnsError, explain::Explainer};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    forward::knows,
    world::{World, by, text},
};

/// A certificate for names, and its key, in files of a directory.
fn certificate(dir: &Path, file: &str, names: &[&str]) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join(file), made.cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    made
}

/// An upstream that speaks nothing but TLS; wants clients to show `client` if there is one.
async fn upstream(
    server: &rcgen::CertifiedKey<rcgen::KeyPair>,
    client: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
) -> SocketAddr {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(server.signing_key.serialize_der().into());
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.cert.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = builder.with_single_cert(vec![server.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Clients that do not believe us leave.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                while let Ok(length) = stream.read_u16().await {
                    let mut bytes = vec![0; length.into()];
                    stream.read_exact(&mut bytes).await.unwrap();
                    for reply in knows(&Message::from_vec(&bytes).unwrap()) {
                        let reply = reply.to_vec().unwrap();
                        stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                }
            });
        }
    });
    address
}

async fn ask(corefile: &str) -> Message {
    let world = World::by(corefile, vec![]).await;
    let reply = world.ask("www.example.", RecordType::A).await;
    world.end().await;
    reply
}

#[tokio::test]
async fn an_upstream_over_tls_is_believed_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: &str| dir.path().join(file).display().to_string();
    let server = certificate(dir.path(), "server", &["dns.test", "127.0.0.1"]);
    certificate(dir.path(), "stranger", &["dns.test"]);
    let to = upstream(&server, None).await;
    let (ours, strangers) = (path("server"), path("stranger"));
    let cases = [
        (format!("tls://{to}"), format!("tls {ours}\n tls_servername dns.test"), true),
        (format!("tls://{to}%dns.test"), format!("tls {ours}"), true),
        // Its address is in the certificate, too.
        (format!("tls://{to}"), format!("tls {ours}"), true),
        (format!("tls://{to}"), format!("tls {ours}\n tls_servername other.test"), false),
        (format!("tls://{to}%other.test"), format!("tls {ours}"), false),
        (format!("tls://{to}%dns.test"), format!("tls {strangers}"), false),
        // Never in clear instead.
        (to.to_string(), String::new(), false),
    ];
    for (to, options, is_believed) in cases {
        let reply = ask(&format!(".:53 {{\n forward . {to} {{\n {options}\n }}\n}}\n")).await;
        let wanted = if is_believed { ResponseCode::NoError } else { ResponseCode::ServFail };
        assert_eq!(reply.metadata.response_code, wanted, "{to} {options}");
        if is_believed {
            assert_eq!(
                text(&reply.answers),
                ["web.example. A 192.0.2.1", "www.example. CNAME web.example."]
            );
        }
    }
}

#[tokio::test]
async fn an_upstream_may_want_a_certificate_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: &str| dir.path().join(file).display().to_string();
    let server = certificate(dir.path(), "server", &["dns.test"]);
    let client = certificate(dir.path(), "client", &["node.test"]);
    let to = upstream(&server, Some(&client)).await;
    let (authorities, ours, key) = (path("server"), path("client"), path("client.key"));
    for (files, wanted) in [
        (format!("{ours} {key} {authorities}"), ResponseCode::NoError),
        (authorities, ResponseCode::ServFail),
    ] {
        let corefile =
            format!(".:53 {{\n forward . tls://{to}%dns.test {{\n tls {files}\n }}\n}}\n");
        assert_eq!(ask(&corefile).await.metadata.response_code, wanted, "{files}");
    }
}

#[tokio::test]
async fn files_that_hold_no_certificate_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("empty");
    std::fs::write(&file, "").unwrap();
    for (files, named) in
        [(file.display().to_string(), "empty"), ("/nowhere/ca.pem".to_owned(), "/nowhere/ca.pem")]
    {
        let text = format!(".:53 {{\n forward . tls://127.0.0.1 {{\n tls {files}\n }}\n}}\n");
        let error = Explainer::new(&by(&text), None).unwrap_err();
        assert!(matches!(error, DnsError::TlsFile { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}
