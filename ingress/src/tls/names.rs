//! Hosts that a certificate is for.

use fairlead_state::model::Secret;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::parse::CERTIFICATE_ENTRY;
use crate::host::HostPattern;

/// The DNS names in the certificate of a Secret, those that can be a rule's host; `None`: it cannot be
/// read. Its subject's common name is none of them (RFC 9525 2; Go's VerifyHostname neither).
pub(crate) fn names(secret: &Secret) -> Option<Vec<HostPattern>> {
    let entry = secret.data.get(CERTIFICATE_ENTRY)?;
    let certificate = CertificateDer::pem_slice_iter(entry).next()?.ok()?;
    let (_, certificate) = parse_x509_certificate(&certificate).ok()?;
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let hosts = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => HostPattern::parse(name).ok(),
        _ => None,
    });
    Some(hosts.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_state::Key;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_for_its_alternative_names_alone() {
        let params = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            CertificateParams::new(names).unwrap()
        };
        let pem = |params: CertificateParams| {
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        let mut called = params(&[]);
        called.distinguished_name.push(rcgen::DnType::CommonName, "a.example");
        for (certificate, expected) in [
            (pem(params(&["A.example", "*.b.example"])), Some(vec!["a.example", "*.b.example"])),
            (pem(params(&["192.0.2.1", "a.example"])), Some(vec!["a.example"])),
            (pem(params(&["a*.example", "*", "*.*.example"])), Some(vec![])),
            (pem(called), Some(vec![])),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), None),
            (String::new(), None),
        ] {
            let data = BTreeMap::from([(CERTIFICATE_ENTRY.into(), certificate.as_bytes().into())]);
            let (key, secret_type) = (Key::new("default", "tls"), "kubernetes.io/tls".into());
            let found = names(&Secret { key, secret_type, data });
            let expected = expected
                .map(|names| names.iter().map(|name| HostPattern::parse(name).unwrap()).collect());
            assert_eq!(found, expected, "{certificate}");
        }
    }
}
