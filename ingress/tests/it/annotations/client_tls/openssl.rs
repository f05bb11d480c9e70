//! Certificates of clients that OpenSSL takes and webpki does not: of version 1, and entries of `ca.crt`
//! that are authorities.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::{ask, pem, secured};
use crate::{
    support::{
        World,
        client::showing,
        objects::{Authority, backend, opaque},
        upstream::Upstream,
    },
    version1::{sign_version_1, version_1},
};

const REVOKED: u64 = 17;

/// Of a client that is called so, good until the end of that year.
fn called(name: &str, year: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 12, 31);
    params.serial_number = Some((REVOKED + 1).into());
    params
}

/// Its own authority, as `openssl req -x509` makes it.
fn own(mut params: CertificateParams) -> (String, String) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn bug_a_client_is_let_in_by_what_openssl_takes() {
    let (ours, theirs) = (Authority::named("ours"), Authority::named("theirs"));
    let namesake = Authority::named("ours");
    let past = Authority::by(called("past", 2021));
    let pinned = own(called("pinned", 2999));
    let old_pinned = own(called("old", 2021));
    let mut serving = called("serving", 2999);
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving = own(serving);
    let mut signing = called("signing", 2999);
    signing.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let signing = own(signing);
    let entries = [&pinned, &old_pinned, &serving, &signing].map(|(certificate, _)| &**certificate);
    let authorities = pem(&ours) + &pem(&past) + &entries.concat();
    let list = ours.revoke(&[REVOKED], 2999);
    let mut revoked = called("client", 2999);
    revoked.serial_number = Some(REVOKED.into());
    let unsigned = |(certificate, key): (String, String)| (version_1(&certificate), key);

    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let (ca, listed) = (("auth-tls-secret", "default/ca"), ("auth-tls-secret", "default/listed"));
    let mode = |mode: &'static str| ("auth-tls-verify-client", mode);
    objects.extend([
        opaque("ca", &[("ca.crt", &authorities)]),
        opaque("listed", &[("ca.crt", &authorities), ("ca.crl", &list)]),
        secured("on", &[ca]),
        secured("optional", &[ca, mode("optional")]),
        secured("any", &[ca, mode("optional_no_ca")]),
        secured("listed", &[listed]),
    ]);
    let world = World::new(objects).await;
    let client = || called("client", 2999);
    // Of a host that wants one, of one that takes strangers, too, and of one with a list.
    for (case, (certificate, key), on, any, listed) in [
        ("version 1", sign_version_1(&ours, &client()), 200, 200, 200),
        ("version 1, taken back", sign_version_1(&ours, &revoked), 200, 200, 400),
        ("version 1, out of date", sign_version_1(&ours, &called("client", 2021)), 400, 400, 400),
        ("version 1, not signed", unsigned(ours.sign(&client())), 400, 400, 400),
        ("version 1, a namesake's", sign_version_1(&namesake, &client()), 400, 400, 400),
        ("version 1, by who is out of date", sign_version_1(&past, &client()), 400, 400, 400),
        ("version 1, a stranger's", sign_version_1(&theirs, &client()), 400, 200, 400),
        // There is no list of its own.
        ("an entry", pinned, 200, 200, 400),
        ("an entry, out of date", old_pinned, 400, 400, 400),
        ("an entry, for servers", serving, 400, 400, 400),
        ("an entry that signs alone", signing, 400, 400, 400),
        ("an entry's namesake", own(called("pinned", 2999)), 400, 400, 400),
    ] {
        let shown = showing(&certificate, &key);
        for (name, status) in [("on", on), ("optional", on), ("any", any), ("listed", listed)] {
            let host = format!("{name}.example");
            let answer = ask(&world, &host, &host, shown.clone()).await;
            assert_eq!(answer.status, status, "{case}, {name}");
            let is_good = answer.saw("ssl-client-verify") == Some("SUCCESS");
            assert_eq!(is_good, status == 200 && on == 200, "{case}, {name}");
        }
    }
}
