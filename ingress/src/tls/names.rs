//! Hosts that a certificate is for.

use std::collections::BTreeSet;

use fairlead_state::model::Secret;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::parse::CERTIFICATE_ENTRY;
use crate::host::HostPattern;

/// The DNS names in the certificate of a Secret, those that can be a rule's host; `None`: it cannot be
/// read. Its subject's common name is none of them (RFC 9525 2; Go's VerifyHostname neither).
pub(crate) fn names(secret: &Secret) -> Option<Vec<HostPattern>> {
    let entry = secret.data.get(CERTIFICATE_ENTRY)?;
    let certificate = CertificateDer::pem_slice_iter(entry).next()?.ok()?;
    let (_, certificate) = parse_x509_certificate(&certificate).ok()?;
    Some(hosts(dns_names(&certificate)?).collect())
}

/// Hosts that a certificate may be shown for: its DNS names, and of one without them its common name
/// (ingress-nginx: verifyHostname).
pub(super) fn shown_for(certificate: &[u8]) -> BTreeSet<HostPattern> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return BTreeSet::new() };
    let mut names = dns_names(&certificate).unwrap_or_default();
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().last();
        names.extend(common.and_then(|name| name.as_str().ok()));
    }
    hosts(names).collect()
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Option<Vec<&'a str>> {
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    Some(names.collect())
}

fn hosts(names: Vec<&str>) -> impl Iterator<Item = HostPattern> {
    names.into_iter().filter_map(|name| HostPattern::parse(name).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_state::Key;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn params(names: &[&str], common: Option<&str>) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(rcgen::DnType::CommonName, common);
        }
        params
    }

    fn patterns(names: &[&str]) -> Vec<HostPattern> {
        names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_certificate_is_for_its_alternative_names_alone() {
        let pem = |names: &[&str], common| {
            params(names, common).self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        for (certificate, expected) in [
            (
                pem(&["A.example", "*.b.example"], None),
                Some(patterns(&["a.example", "*.b.example"])),
            ),
            (pem(&["192.0.2.1", "a.example"], None), Some(patterns(&["a.example"]))),
            (pem(&["a*.example", "*", "*.*.example"], None), Some(vec![])),
            (pem(&[], Some("a.example")), Some(vec![])),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), None),
            (String::new(), None),
        ] {
            let data = BTreeMap::from([(CERTIFICATE_ENTRY.into(), certificate.as_bytes().into())]);
            let (key, secret_type) = (Key::new("default", "tls"), "kubernetes.io/tls".into());
            let found = names(&Secret { key, secret_type, data });
            assert_eq!(found, expected, "{certificate}");
        }
    }

    #[test]
    fn a_certificate_without_alternative_names_is_shown_for_its_common_name() {
        for (names, common, expected) in [
            (
                &["a.example", "*.b.example"][..],
                Some("c.example"),
                &["a.example", "*.b.example"][..],
            ),
            (&[], Some("*.C.example"), &["*.c.example"]),
            (&["192.0.2.1"], Some("c.example"), &["c.example"]),
            // Whatever it says of names, the common one is none of them.
            (&["a*.example"], Some("c.example"), &[]),
            (&[], Some("Our authority"), &[]),
            (&[], None, &[]),
        ] {
            let key = KeyPair::generate().unwrap();
            let certificate = params(names, common).self_signed(&key).unwrap();
            let found: Vec<HostPattern> = shown_for(certificate.der()).into_iter().collect();
            assert_eq!(found, patterns(expected), "{names:?} {common:?}");
        }
        assert_eq!(shown_for(b"\x30"), BTreeSet::new());
    }
}
