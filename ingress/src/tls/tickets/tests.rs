//! Handshakes in memory, by a clock of their own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fairlead_state::Key as Name;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

use super::*;
use crate::{
    config::TlsSettings,
    tls::{
        TlsWish,
        certificates::{Certificates, Fallback, Resolver},
        prepare,
        server::Handshakes,
    },
};

/// A server, and how many minutes after its start it is.
struct Server {
    config: Arc<ServerConfig>,
    minutes: Arc<AtomicU64>,
}

impl Server {
    fn new(settings: TlsSettings) -> Self {
        let Fallback(certificate) = Fallback::generate().unwrap();
        let resolver = Arc::new(Resolver::new(Certificates::new(certificate), Arc::default()));
        let handshakes = Handshakes::new(&resolver, settings).unwrap();
        let (minutes, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let clock = minutes.clone();
        let now = move || start + Duration::from_secs(60 * clock.load(Relaxed));
        let mut config = Arc::unwrap_or_clone(handshakes.plain);
        config.ticketer = Arc::new(Rotation::by(now).unwrap());
        Self { config: Arc::new(config), minutes }
    }

    /// One connection; whether it went on with the session of an earlier one.
    fn resumes(&self, client: &Arc<ClientConfig>, minutes: u64) -> bool {
        self.minutes.store(minutes, Relaxed);
        let name = "a.example".try_into().unwrap();
        let mut client = ClientConnection::new(client.clone(), name).unwrap();
        let mut server = ServerConnection::new(self.config.clone()).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut there = &wire[..];
            while !there.is_empty() {
                server.read_tls(&mut there).unwrap();
            }
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut back = &wire[..];
            while !back.is_empty() {
                client.read_tls(&mut back).unwrap();
            }
            client.process_new_packets().unwrap();
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        server.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// With sessions of its own.
fn client() -> Arc<ClientConfig> {
    let wish = TlsWish::default();
    prepare(&wish, &Name::new("default", "a"), b"http/1.1", None).unwrap().config
}

#[test]
fn a_ticket_of_the_previous_key_resumes_and_one_of_two_keys_ago_does_not() {
    const H: u64 = 60;
    for (tls12, tls13) in [(true, false), (false, true)] {
        let settings = TlsSettings { tls12, tls13, ..TlsSettings::default() };
        for (what, others, then, resumes) in [
            ("the same key", &[][..], 6 * H - 1, true),
            ("its successor is about to be", &[], 6 * H, true),
            ("the previous key", &[6 * H], 6 * H + 1, true),
            ("the previous key's last minute", &[6 * H], 12 * H - 1, true),
            ("two keys ago", &[6 * H, 12 * H], 12 * H + 1, false),
            ("two keys ago, the second about to be", &[6 * H], 12 * H, false),
            ("bug: nobody came while two keys would have been", &[], 12 * H, false),
            ("nobody came for a week", &[], 7 * 24 * H, false),
            ("its successor came late", &[11 * H], 12 * H, false),
        ] {
            let (server, client) = (Server::new(settings), client());
            assert!(!server.resumes(&client, 0), "{what}");
            for minutes in others {
                assert!(!server.resumes(&self::client(), *minutes), "{what}");
            }
            assert_eq!(server.resumes(&client, then), resumes, "{what}, TLS 1.2: {tls12}");
        }
    }
}

#[test]
fn who_comes_again_in_time_resumes_each_time_by_the_newest_key() {
    let (server, client) = (Server::new(TlsSettings::default()), client());
    for hour in 0..48 {
        assert_eq!(server.resumes(&client, hour * 60), hour > 0, "hour {hour}");
    }
}

#[test]
fn a_ticket_of_another_server_or_changed_is_none() {
    let (one, other) = (Rotation::new().unwrap(), Rotation::new().unwrap());
    let ticket = one.encrypt(b"session").unwrap();
    assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
    assert_eq!(other.decrypt(&ticket), None);
    for at in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        assert_eq!(one.decrypt(&changed), None, "{at}");
    }
    for length in 0..ticket.len() {
        assert_eq!(one.decrypt(&ticket[..length]), None, "{length}");
    }
}
