use std::{collections::BTreeMap, time::Duration};

use fairlead_state::Key;
use rustls::crypto::aws_lc_rs;

use super::*;

/// What ingress-nginx's recipe makes (docs/examples/auth/client-certs), for a hundred years from 2026 on:
/// `openssl req -x509 -sha256 -newkey rsa:2048 -nodes -subj '/CN=My Cert Authority'`.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIDGzCCAgOgAwIBAgIUUokdlhGBtMdb6Q4Bsh1Yfu9YtO8wDQYJKoZIhvcNAQEL
BQAwHDEaMBgGA1UEAwwRTXkgQ2VydCBBdXRob3JpdHkwIBcNMjYxMTI5MDMxODQ1
WhgPMjEyNjExMDUwMzE4NDVaMBwxGjAYBgNVBAMMEU15IENlcnQgQXV0aG9yaXR5
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqhax7i/JRlD9His/Gz0L
kkqJwi+6VUlUuDdcA2cwH3FXPrGr7zxIQuI9kIiIPPT0tMkF2GkXfQFO6cpZVbMB
NY0JIzJi/mahI0E/1X5gZyIOLr9G8KMV9rNsXlmOM4pna8UC+EiMPJWqBOvWVIsU
EmrfBom8Tqo48ei21SXniS5v0Q2RXThSpzDQomCwm7sI+QLXu/JxaxrZyxjs13Bo
OyvTXurXwOwIO/CyJtFHxCUaB8UR84QonT673LM/n/asqu03xqgFTVKUd2BjfaOR
MfH/wfadkFqT5WGz7HL1Pq6Cnra2UxSeZSY1jaZYrvUvrNQdVxrd3GT4vSg4VzDz
CwIDAQABo1MwUTAdBgNVHQ4EFgQUHf7TQozYNhQr7loTpZ/ObkdR5ZowHwYDVR0j
BBgwFoAUHf7TQozYNhQr7loTpZ/ObkdR5ZowDwYDVR0TAQH/BAUwAwEB/zANBgkq
hkiG9w0BAQsFAAOCAQEAKhEKGmoXQ+Wnzghux2EXHfR5D6EjO8JCmwQc4hjxIs9w
L9HZvKA8c9G4cW00VPPlPHeORygqp8xABt7aEbrXypizCq+qRtGCroHaTW9WSrNC
IP0pErVyiFLJDlThHAfhoze42P0NU7vF+tEnl9tokgBWHReyI81MFI2gRYui+iLT
TOfkgncXF1CdJtR6oJnFyO7mmzfTL3NqtDvAlyjFKgZUWZ13XOYp2ecSBkpjbNtO
Sk6BfOhmw/DFA+4nRVzEro/PD7bVIThVdx+PUaasXaahF1DO4qEepzs1ZZ7H1hF4
eDagfKkTGookHs9UULdpp6KKE7F92hHl8TOVB7U+XQ==
-----END CERTIFICATE-----
";
/// `openssl x509 -req -sha256 -CA ca.crt -CAkey ca.key -set_serial 02`: of version 1.
const CLIENT: &str = "\
-----BEGIN CERTIFICATE-----
MIICpjCCAY4CAQIwDQYJKoZIhvcNAQELBQAwHDEaMBgGA1UEAwwRTXkgQ2VydCBB
dXRob3JpdHkwIBcNMjYxMTI5MDMxODQ1WhgPMjEyNjExMDUwMzE4NDVaMBQxEjAQ
BgNVBAMMCU15IENsaWVudDCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEB
AK3u6uCaFKjbsnpXRKlP8FbB0SvI9yzmWMjIQwKPFZCiUbqVgu2H1MMtqxfvfQ2Y
gEwNI9DypjzETT8i20g47bySFcRJzbsXsnmy0SbPxpf6dRY9Xa8chsVU8GsodnUr
F7r+negxpIoiKkQK2dShU1hxjy10dwtKfeS/ybrRE/OzjdgaJX6IkWH8GrdHtRKj
WRyDaRUgQwWo74CKW/JRzvZZuXr2/9rm3Xha55MrRXaoAKkk3UZ1UfrK98Sy69OU
N0Na/JoCaG2uPKSxjc3ycBZN8AjqirHYznXDZ4l2yHQqm2dtDem3UIL1SaTEh6ZV
CsoVFTqrbSWX+jZBPQlzlgMCAwEAATANBgkqhkiG9w0BAQsFAAOCAQEAXhS+tRoO
zRMl5QlKA7OmuKEHpJPim89JvDtiqcf071LnAarVBrjdj0v+8EBRVtYvOrhVit96
0LfJ0bbRcdECe+h2Tu1C7/kAMq5t1OMUjVgGcCqt2+oV+2jPWuPAWivZWf23mfoi
8FMS/G81k0UHI/qfY+7he4jbaRn0SVhbePJP2H0KxwN4RT1qAG/dUG5dApeBw8no
xnuThIYPCvg7dml3tjyirVXHbgbtEVcqbY0xrJSwbSf4T1L0nI8Cd+eiKnXRj6Ji
NXUlFCq9MwwTEHJDyndowAOAZlvUgSyVfOHgmIkNkoQqgJSzdL19gS3OGGW9hyWC
PkxU7w2hzsXiyA==
-----END CERTIFICATE-----
";

const IN_2030: u64 = 1_900_000_000;

fn authorities(pem: &str) -> Authorities {
    let data = BTreeMap::from([(AUTHORITY_ENTRY.into(), pem.as_bytes().into())]);
    let secret = Secret { key: Key::new("default", "ca"), secret_type: "Opaque".into(), data };
    Authorities::of(&secret, Arc::new(aws_lc_rs::default_provider())).unwrap()
}

#[test]
fn bug_of_version_1_is_taken_what_an_authority_signed_and_its_own_certificate() {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    let (authority, client) = (der(AUTHORITY), der(CLIENT));
    let changed = |der: &[u8], place: usize| {
        let mut der = der.to_vec();
        der[place] ^= 1;
        der
    };
    // Lengths of the whole and of what is signed come first, then the serial number.
    let (number, end) = (changed(&client, 10), changed(&client, client.len() - 1));
    let longer = [&client[..], &[0]].concat();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let other = made.cert.pem();
    let times = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let (ok, unknown) = (Some(Ok(())), Some(Err(CertificateError::UnknownIssuer)));
    let (expired, early) = (CertificateError::Expired, CertificateError::NotValidYet);
    for (case, entries, shown, seconds, expected) in [
        ("the client", AUTHORITY, &client, IN_2030, ok.clone()),
        ("out of date", AUTHORITY, &client, 5_000_000_000, Some(Err(expired.clone()))),
        ("not yet", AUTHORITY, &client, 1_700_000_000, Some(Err(early))),
        ("another number", AUTHORITY, &number, IN_2030, unknown.clone()),
        ("another signature", AUTHORITY, &end, IN_2030, unknown.clone()),
        ("another authority", &other, &client, IN_2030, unknown.clone()),
        ("bytes behind it", AUTHORITY, &longer, IN_2030, None),
        ("no certificate", AUTHORITY, &vec![0x30], IN_2030, None),
        ("the authority", AUTHORITY, &authority, IN_2030, ok),
        ("the authority, later", AUTHORITY, &authority, 5_000_000_000, Some(Err(expired))),
        ("a stranger's authority", &other, &authority, IN_2030, None),
        ("of version 3", AUTHORITY, &der(&other), IN_2030, None),
    ] {
        let authorities = authorities(entries);
        for purpose in [ExtendedKeyPurpose::ClientAuth, ExtendedKeyPurpose::ServerAuth] {
            let judged = authorities.judge(shown, &purpose, None, times(seconds));
            assert_eq!(judged, expected, "{case}, {purpose:?}");
        }
    }
}

/// OpenSSL, X509_check_ca.
#[test]
fn attack_whoever_is_no_authority_vouches_for_nobody() {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
        KeyPair, KeyUsagePurpose, NameConstraints,
    };
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let names = NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("a.example".into())],
        excluded_subtrees: Vec::new(),
    };
    for (case, is_ca, usages, names, expected) in [
        ("an authority", ca, vec![], None, true),
        ("one that signs", ca, vec![KeyUsagePurpose::KeyCertSign], None, true),
        ("one that does not", ca, vec![KeyUsagePurpose::DigitalSignature], None, false),
        ("one for some names", ca, vec![], Some(names), false),
        ("CA:FALSE", IsCa::ExplicitNoCa, vec![], None, false),
        ("nothing said", IsCa::NoCa, vec![], None, false),
    ] {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        (params.is_ca, params.key_usages, params.name_constraints) = (is_ca, usages, names);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = parse_x509_certificate(made.der()).unwrap();
        let purpose = ExtendedKeyPurpose::ClientAuth;
        assert_eq!(may_sign(&certificate, &purpose), expected, "{case}");
    }
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let (_, servers) = parse_x509_certificate(made.der()).unwrap();
    assert!(may_sign(&servers, &ExtendedKeyPurpose::ServerAuth));
    assert!(!may_sign(&servers, &ExtendedKeyPurpose::ClientAuth), "of servers alone");
}
