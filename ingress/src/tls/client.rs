//! TLS towards endpoints: whom to expect there, and who we are.

use std::{fmt, sync::Arc};

use fairlead_state::{Key, Name, model::Secret};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use super::{
    parse::{CERTIFICATE_ENTRY, KEY_ENTRY},
    signatures::Signatures,
};

const AUTHORITY_ENTRY: &str = "ca.crt";

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
        let roots = Arc::new(authorities(secret)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        verifier.build().map_err(|error| format!("Secret {}: {error}", secret.key))?
    } else {
        Arc::new(Anybody(Signatures::by(provider.clone())))
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match secret.map(identity).transpose()?.flatten() {
        Some((chain, key)) => {
            let certified = builder.with_client_auth_cert(chain, key);
            certified
                .map_err(|_| "the Secret's tls.key is not the key of its tls.crt".to_owned())?
        }
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

pub(super) fn authorities(secret: &Secret) -> Result<RootCertStore, String> {
    let entry = secret.data.get(AUTHORITY_ENTRY);
    let bytes =
        entry.ok_or_else(|| format!("Secret {} has no entry {AUTHORITY_ENTRY}", secret.key))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        added.ok_or_else(|| format!("Secret {}: {AUTHORITY_ENTRY} is damaged", secret.key))?;
    }
    if roots.is_empty() {
        return Err(format!("Secret {}: {AUTHORITY_ENTRY} holds no certificate", secret.key));
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Ours, if the Secret holds one.
fn identity(secret: &Secret) -> Result<Option<Identity>, String> {
    let (Some(chain), Some(key)) = (secret.data.get(CERTIFICATE_ENTRY), secret.data.get(KEY_ENTRY))
    else {
        return Ok(None);
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let damaged = |entry: &str| format!("Secret {}: {entry} is damaged", secret.key);
    let chain = chain.map_err(|_| damaged(CERTIFICATE_ENTRY))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| damaged(KEY_ENTRY))?;
    Ok(Some((chain, key)))
}

/// ingress-nginx's default: encrypted, to whoever is there. Signatures are checked all the same.
#[derive(Debug)]
struct Anybody(Signatures);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

impl fmt::Debug for UpstreamTls {
    /// Keys stay out of every log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("name", &self.name).finish_non_exhaustive()
    }
}
