//! Who a client is, by its certificate.
//!
//! The handshake takes any certificate, or none: what becomes of a request is said in HTTP, as nginx
//! says it. Nothing is believed of a certificate before it was verified for the host of the request.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use fairlead_state::model::Secret;
use http::HeaderValue;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ExtendedKeyPurpose, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs,
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    authorities::Authorities,
    revoked::{Lists, unusable},
    signatures::Signatures,
};
use crate::expression::Expression;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How much a certificate matters (`auth-tls-verify-client`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// There must be one, and it must be of the authorities.
    #[default]
    On,
    /// Nobody is asked.
    Off,
    /// If there is one it must be of the authorities.
    Optional,
    /// If there is one, whoever made it, the endpoint is told. One that names an authority must be good.
    Any,
}

/// What is asked of clients.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) mode: Mode,
    /// The subject must match.
    pub(crate) subject: Option<Expression>,
    /// The endpoint is given the certificate.
    pub(crate) passes: bool,
    /// Where somebody without a proper one is sent.
    pub(crate) error_page: Option<HeaderValue>,
}

/// The same, ready to verify.
pub(crate) struct ClientAuth {
    /// Never used twice: verdicts of one are not another's.
    pub(crate) id: u64,
    pub(crate) wanted: Wanted,
    authorities: Authorities,
    lists: Option<Lists>,
    /// Of what the authorities alone say nothing about.
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Why a certificate is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unverified {
    pub(crate) reason: String,
    /// None of the authorities is named in it, and it is not out of date: nothing can be said of it.
    pub(crate) is_strangers: bool,
}

/// Asks everybody for a certificate and takes what comes.
#[derive(Debug)]
pub(super) struct Asking(pub(super) Signatures);

impl ClientAuth {
    /// Reads the authorities of a Secret. A reason says where, never what.
    pub(crate) fn new(secret: &Secret, wanted: Wanted) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let authorities = Authorities::of(secret, provider.clone())?;
        let roots = authorities.roots.clone();
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let lists = Lists::of(secret)?;
        if let Some(lists) = &lists {
            // As OpenSSL: who keeps the newest list from us is not to have an old one believed.
            builder = builder.with_crls(lists.all()).enforce_revocation_expiration();
        }
        let verifier = builder.build().map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(error) => {
                unusable(secret, &format!("damaged: {error:?}"))
            }
            error => format!("Secret {}: {error}", secret.key),
        })?;
        Ok(Self { id: NEXT_ID.fetch_add(1, Relaxed), wanted, authorities, lists, verifier })
    }

    /// Whether a chain is of the authorities, and still good.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Unverified> {
        let Some((first, rest)) = chain.split_first() else {
            return Err(Unverified { reason: "no certificate".into(), is_strangers: true });
        };
        let (purpose, now) = (ExtendedKeyPurpose::ClientAuth, UnixTime::now());
        let verified = match self.authorities.judge(first, &purpose, self.lists.as_ref(), now) {
            Some(judged) => judged.map_err(Error::from),
            None => self.verifier.verify_client_cert(first, rest, now).map(drop),
        };
        verified.map_err(|error| Unverified {
            is_strangers: self.are_strangers(chain),
            reason: error.to_string(),
        })
    }

    /// Asked of the certificates, not of the error: the verifier looks at what one is for, and at
    /// `CA:TRUE` (which `openssl req -x509` writes), before it looks for who made it.
    fn are_strangers(&self, chain: &[CertificateDer<'_>]) -> bool {
        let authorities = self.verifier.root_hint_subjects();
        chain.iter().all(|der| {
            x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
                let issuer = certificate.issuer().as_raw();
                certificate.validity().is_valid()
                    && authorities.iter().all(|authority| authority.as_ref() != issuer)
            })
        })
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Asking {
    /// None: a client may show what it likes.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
