//! Certificates that are taken back (`ca.crl`).

use fairlead_ingress::Refused;
use rustls::ClientConfig;

use super::{CA, ask, pem, secured};
use crate::support::{
    World,
    client::{http1, request, send, showing, tls},
    objects::{Authority, backend, opaque},
    upstream::Upstream,
};

/// As `openssl ca -gencrl` writes them: without `crlnumber`, and with these extensions.
const VERSION_1: &str = "\
-----BEGIN X509 CRL-----
MIGVMD0wCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEb3VycxcNMjYxMTI4MTAwMjUz
WhgPMjEyNjExMDQxMDAyNTNaMAoGCCqGSM49BAMCA0gAMEUCIEV4/1YDTHwmyCyD
sLszkZ5/dgb3Xtc8loMhcO4TB1MsAiEAvrltY2j4aTPQoU9Zz9rNwS1y5WhPm7qW
uUgqGnhYVmo=
-----END X509 CRL-----
";
const DELTA: &str = "\
-----BEGIN X509 CRL-----
MIHaMIGAAgEBMAoGCCqGSM49BAMCMA8xDTALBgNVBAMMBG91cnMXDTI2MTEyODEw
MDI1M1oYDzIxMjYxMTA0MTAwMjUzWqA+MDwwHwYDVR0jBBgwFoAUB9GnNwAeL0U/
QtbVmTCg7zvasqwwDQYDVR0bAQH/BAMCAQEwCgYDVR0UBAMCAQEwCgYIKoZIzj0E
AwIDSQAwRgIhAJZREXZp8gmi9sS21+NlVFkXqD/xY06jjOpUb/qVz/ERAiEAnldU
Llqi4JnWUZVvazbfsoJYm8Rn1qt5KHvd91bQd0M=
-----END X509 CRL-----
";
const INDIRECT: &str = "\
-----BEGIN X509 CRL-----
MIH3MIGdAgEBMAoGCCqGSM49BAMCMA8xDTALBgNVBAMMBG91cnMXDTI2MTEyODEw
MDI1M1oYDzIxMjYxMTA0MTAwMjUzWqBbMFkwHwYDVR0jBBgwFoAUB9GnNwAeL0U/
QtbVmTCg7zvasqwwKgYDVR0cAQH/BCAwHqAZoBeGFWh0dHA6Ly9hLmV4YW1wbGUv
bGlzdIQB/zAKBgNVHRQEAwIBAjAKBggqhkjOPQQDAgNJADBGAiEA7SZ7xZ8fe/jf
CxSLcAA/sBp6fmx36C3QxdugHqvg8gUCIQDxul4CdjslAXdagDpLw73tEmxRuUXp
pUdyGifZfBT1LQ==
-----END X509 CRL-----
";

/// A certificate that is taken back, and another one of the same authority.
struct Clients {
    revoked: ClientConfig,
    other: ClientConfig,
}

impl Clients {
    const REVOKED: u64 = 17;

    fn of(authority: &Authority) -> Self {
        let client = |number| {
            let (certificate, key) = authority.issue_numbered(number);
            showing(&certificate, &key)
        };
        Self { revoked: client(Self::REVOKED), other: client(Self::REVOKED + 1) }
    }

    /// What each of them is answered.
    async fn answered(&self, world: &World, name: &str) -> [u16; 2] {
        let host = format!("{name}.example");
        let of =
            async |config: &ClientConfig| ask(world, &host, &host, config.clone()).await.status;
        [of(&self.revoked).await, of(&self.other).await]
    }
}

#[tokio::test]
async fn a_certificate_that_is_taken_back_lets_nobody_in_and_others_of_its_authority_do() {
    let (ours, theirs) = (Authority::named("ours"), Authority::named("theirs"));
    let upstream = Upstream::echo("web").await;
    let clients = Clients::of(&ours);
    let (none, list) = (ours.revoke(&[], 2999), ours.revoke(&[Clients::REVOKED, 1], 2999));
    let (another, foreign) = (ours.revoke(&[1], 2999), theirs.revoke(&[Clients::REVOKED], 2999));
    let old = ours.revoke(&[Clients::REVOKED], 2021);
    let both = foreign.clone() + &list;
    let mut objects = backend("web", &[upstream.address]);
    let cases = [
        ("absent", None, [200, 200]),
        ("empty", Some(""), [200, 200]),
        ("nobody", Some(&*none), [200, 200]),
        ("another", Some(&*another), [200, 200]),
        ("listed", Some(&*list), [400, 200]),
        ("second", Some(&*both), [400, 200]),
        // Nobody's state is known by a list of another authority, or by one that is out of date: as by
        // OpenSSL, nobody is let in.
        ("foreign", Some(&*foreign), [400, 400]),
        ("old", Some(&*old), [400, 400]),
    ];
    // It takes strangers, and still nobody whose certificate was taken back.
    objects.push(secured(
        "any",
        &[("auth-tls-secret", "default/listed"), ("auth-tls-verify-client", "optional_no_ca")],
    ));
    for (name, list, _) in &cases {
        let authority = pem(&ours);
        let entries =
            [("ca.crt", &*authority)].into_iter().chain(list.map(|list| ("ca.crl", list)));
        objects.push(opaque(name, &entries.collect::<Vec<_>>()));
        let secret = format!("default/{name}");
        objects.push(secured(name, &[("auth-tls-secret", &secret)]));
    }
    let world = World::new(objects).await;
    for (name, _, expected) in cases {
        let reached = upstream.requests();
        assert_eq!(clients.answered(&world, name).await, expected, "{name}");
        let let_in = expected.iter().filter(|status| **status == 200).count();
        assert_eq!(upstream.requests() - reached, let_in, "{name}");
        assert_eq!(world.reasons(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(clients.answered(&world, "any").await, [400, 200]);
    assert_eq!(Clients::of(&theirs).answered(&world, "any").await, [200, 200], "strangers");
}

#[tokio::test]
async fn bug_a_list_that_cannot_be_read_takes_nobody_for_good_and_says_why() {
    let ours = Authority::new();
    let upstream = Upstream::echo("web").await;
    let clients = Clients::of(&ours);
    let list = ours.revoke(&[Clients::REVOKED], 2999);
    let (begin, end) = ("-----BEGIN X509 CRL-----\n", "-----END X509 CRL-----\n");
    let (cut, certificate) = (list.replace(end, ""), pem(&ours));
    let (no_base64, no_list) = (format!("{begin}!\n{end}"), format!("{begin}AAAA\n{end}"));
    let half = format!("{list}{begin}AAAA\n{end}");
    let delta_beside = format!("{list}{DELTA}");
    let mut objects = backend("web", &[upstream.address]);
    objects.push(secured("a", &[CA]));
    let mut world = World::new(objects).await;
    let secret = |list: &str| opaque("ca", &[("ca.crt", &pem(&ours)), ("ca.crl", list)]);
    for (broken, reason) in [
        ("no PEM", "holds no list"),
        ("\n", "holds no list"),
        (&*certificate, "holds no list"),
        (&*cut, "is damaged"),
        (&*no_base64, "is damaged"),
        (&*no_list, "cannot be used: a list is damaged"),
        (&*half, "cannot be used: a list is damaged"),
        // Whole, and yet not served.
        (VERSION_1, "cannot be used: a list is of version 1"),
        (DELTA, "cannot be used: a list is a delta list"),
        (INDIRECT, "cannot be used: a list is an indirect list"),
        (&*delta_beside, "cannot be used: a list is a delta list"),
    ] {
        world.apply(vec![secret(&list)]).await;
        assert_eq!(clients.answered(&world, "a").await, [400, 200], "before {broken}");
        assert_eq!(world.reasons("a"), Vec::<String>::new());
        world.apply(vec![secret(broken)]).await;
        assert_eq!(clients.answered(&world, "a").await, [403, 403], "{broken}");
        let reasons = world.reasons("a");
        let is_said = reasons.len() == 1
            && reasons[0].contains(&format!("Secret default/ca: ca.crl {reason}"));
        assert!(is_said, "{broken}: {reasons:?}");
    }
    assert_eq!(world.running.counters().refused[&Refused::Certificate], 33);
}

#[tokio::test]
async fn a_list_that_changes_counts_under_open_connections() {
    let ours = Authority::new();
    let upstream = Upstream::echo("web").await;
    let clients = Clients::of(&ours);
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([opaque("ca", &[("ca.crt", &pem(&ours))]), secured("a", &[CA])]);
    let mut world = World::new(objects).await;
    let open = async |config: &ClientConfig| {
        http1(tls(world.https(), "a.example", config.clone()).await.unwrap()).await
    };
    let mut senders = [open(&clients.revoked).await, open(&clients.other).await];
    for (revoked, expected) in [
        (&[][..], [200, 200]),
        (&[Clients::REVOKED], [400, 200]),
        (&[Clients::REVOKED, Clients::REVOKED + 1], [400, 400]),
        (&[], [200, 200]),
    ] {
        let list = ours.revoke(revoked, 2999);
        world.apply(vec![opaque("ca", &[("ca.crt", &pem(&ours)), ("ca.crl", &list)])]).await;
        for (sender, status) in senders.iter_mut().zip(expected) {
            let answer = send(sender, request("a.example", "/")).await;
            assert_eq!(answer.status, status, "{revoked:?}");
        }
        // Nor is there a way in by a new connection, or a session that goes on.
        assert_eq!(clients.answered(&world, "a").await, expected, "{revoked:?}");
    }
}
