//! Certificates, and the authority that signs them. All keys are P-256.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DnType, IsCa, KeyPair,
};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// For these names and addresses.
pub(crate) fn issue(authority: &Authority, names: &[&str]) -> CertifiedKey<KeyPair> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let signing_key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names).unwrap();
    let cert = params.signed_by(&signing_key, authority).unwrap();
    CertifiedKey { cert, signing_key }
}
