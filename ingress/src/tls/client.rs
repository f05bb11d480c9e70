//! TLS towards endpoints: whom to expect there, and who we are.

use std::{fmt, sync::Arc};

use fairlead_state::{Key, Name, model::Secret};
use rustls::{
    ClientConfig,
    client::danger::ServerCertVerifier,
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;

use super::{
    authorities::Authorities,
    parse::{self, CERTIFICATE_ENTRY, KEY_ENTRY},
    signatures::Signatures,
    verifiers::{Anybody, Named},
};

/// What an Ingress says about TLS to its endpoints (`proxy-ssl-*`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsWish {
    /// The endpoint's certificate must be of an authority of the Secret.
    pub verify: bool,
    /// Say whom we want (SNI).
    pub server_name: bool,
    /// Whom we want; `SERVICE.NAMESPACE.svc` if absent.
    pub name: Option<Name>,
    /// `ca.crt`, and perhaps `tls.crt` and `tls.key` of ours. Of the Ingress's own namespace.
    pub secret: Option<Key>,
}

/// The same, ready to connect.
pub struct UpstreamTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Prepares connections to a Service's endpoints. A reason says where, never what.
pub(crate) fn prepare(
    wish: &TlsWish,
    service: &Key,
    protocol: &[u8],
    secret: Option<&Secret>,
) -> Result<UpstreamTls, String> {
    if let (Some(key), None) = (&wish.secret, secret) {
        return Err(format!("Secret {key} does not exist"));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if wish.verify {
        let secret = secret.ok_or("proxy-ssl-verify needs proxy-ssl-secret, with ca.crt in it")?;
        let authorities = Authorities::of(secret, provider.clone())?;
        Arc::new(Named::new(authorities, provider.clone(), service.clone()))
    } else {
        Arc::new(Anybody(Signatures::by(provider.clone())))
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match secret.map(identity).transpose()?.flatten() {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config.enable_sni = wish.server_name;
    let name = match &wish.name {
        Some(name) => name.to_string(),
        None => format!("{}.{}.svc", service.name, service.namespace),
    };
    let name = ServerName::try_from(name.clone())
        .map_err(|_| format!("proxy-ssl-name {name:?} is no server name"))?;
    Ok(UpstreamTls { config: Arc::new(config), name })
}

/// Ours, if the Secret holds one.
fn identity(secret: &Secret) -> Result<Option<Arc<CertifiedKey>>, String> {
    let has = |entry: &str| secret.data.contains_key(entry);
    let is_there = has(CERTIFICATE_ENTRY) && has(KEY_ENTRY);
    is_there.then(|| parse::secret(secret)).transpose()
}

impl fmt::Debug for UpstreamTls {
    /// Keys stay out of every log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("name", &self.name).finish_non_exhaustive()
    }
}
