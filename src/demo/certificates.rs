//! A certificate authority that exists for one run.

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// What the demo's world needs.
pub(crate) struct Certificates {
    /// The authority's certificate, for clients to trust.
    pub(crate) ca_pem: String,
    /// The host's certificate.
    pub(crate) certificate_pem: String,
    /// And its key.
    pub(crate) key_pem: String,
}

/// A fresh authority and a certificate of it for `host`.
pub(crate) fn generate(host: &str) -> anyhow::Result<Certificates> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(DnType::CommonName, "fairlead demo CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![host.to_owned()]).context("host name")?;
    leaf.distinguished_name.push(DnType::CommonName, host);
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok(Certificates { ca_pem, certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}
