//! Upstreams over TLS: believed by certificate and name, or not at all.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

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
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    forward::knows,
    world::{World, by, text},
};

/// A certificate for names, and its key, in files of a directory.
pub fn certificate(dir: &Path, file: &str, names: &[&str]) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join(file), made.cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    made
}

/// What a server shows; it wants clients to show `client` if there is one.
pub fn acceptor(
    server: &rcgen::CertifiedKey<rcgen::KeyPair>,
    client: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
    protocols: &[&[u8]],
) -> TlsAcceptor {
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
    let mut config = builder.with_single_cert(vec![server.cert.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Names that clients asked for in their handshakes.
type Told = Arc<Mutex<Vec<Option<String>>>>;

fn tell<S>(stream: &TlsStream<S>, told: &Told) {
    let name = stream.get_ref().1.server_name().map(str::to_owned);
    told.lock().unwrap().push(name);
}

/// An upstream that speaks nothing but DNS over TLS.
async fn upstream(acceptor: TlsAcceptor, told: Told) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::spawn(async move {
                // Clients that do not believe us leave.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                tell(&stream, &told);
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

/// An upstream that speaks nothing but DNS over HTTPS (RFC 8484).
async fn https_upstream(acceptor: TlsAcceptor, told: Told) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                tell(&stream, &told);
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer_request(request, respond));
                }
            });
        }
    });
    address
}

async fn answer_request(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
) {
    assert_eq!((request.method(), request.uri().path()), (&http::Method::POST, "/dns-query"));
    assert_eq!(request.headers()["content-type"], "application/dns-message");
    let mut body = request.into_body();
    let mut bytes = vec![];
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let reply = knows(&Message::from_vec(&bytes).unwrap()).remove(0).to_vec().unwrap();
    let head = http::Response::builder().header("content-type", "application/dns-message");
    let head = head.header("content-length", reply.len()).body(()).unwrap();
    respond.send_response(head, false).unwrap().send_data(reply.into(), true).unwrap();
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
    let to = upstream(acceptor(&server, None, &[]), Told::default()).await;
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
async fn an_upstream_over_tls_is_told_which_name_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let server = certificate(dir.path(), "server", &["dns.test", "127.0.0.1"]);
    let authorities = dir.path().join("server").display().to_string();
    for https in [false, true] {
        let told = Told::default();
        let (to, scheme) = match https {
            false => (upstream(acceptor(&server, None, &[]), told.clone()).await, "tls"),
            true => {
                (https_upstream(acceptor(&server, None, &[b"h2"]), told.clone()).await, "https")
            }
        };
        for (option, name) in [("tls_servername dns.test", Some("dns.test".to_owned())), ("", None)]
        {
            let text = format!(
                ".:53 {{\n forward . {scheme}://{to} {{\n tls {authorities}\n {option}\n }}\n}}\n"
            );
            let reply = ask(&text).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{text}");
            let all = told.lock().unwrap().split_off(0);
            // An address is no name to tell (RFC 6066 §3).
            assert!(!all.is_empty() && all.iter().all(|told| *told == name), "{text}: {all:?}");
        }
    }
}

#[tokio::test]
async fn an_upstream_over_https_is_believed_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: &str| dir.path().join(file).display().to_string();
    let server = certificate(dir.path(), "server", &["dns.test", "127.0.0.1"]);
    certificate(dir.path(), "stranger", &["dns.test"]);
    let to = https_upstream(acceptor(&server, None, &[b"h2"]), Told::default()).await;
    let cases = [
        ("server", "tls_servername dns.test", true),
        ("server", "", true),
        ("server", "tls_servername other.test", false),
        ("stranger", "tls_servername dns.test", false),
    ];
    for (authorities, option, is_believed) in cases {
        let tls = path(authorities);
        let text = format!(".:53 {{\n forward . https://{to} {{\n tls {tls}\n {option}\n }}\n}}\n");
        let reply = ask(&text).await;
        let wanted = if is_believed { ResponseCode::NoError } else { ResponseCode::ServFail };
        assert_eq!(reply.metadata.response_code, wanted, "{text}");
        assert_eq!(reply.answers.is_empty(), !is_believed, "{text}");
    }
}

#[tokio::test]
async fn an_upstream_may_want_a_certificate_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: &str| dir.path().join(file).display().to_string();
    let server = certificate(dir.path(), "server", &["dns.test"]);
    let client = certificate(dir.path(), "client", &["node.test"]);
    let to = upstream(acceptor(&server, Some(&client), &[]), Told::default()).await;
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
