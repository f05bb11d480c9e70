//! A client's certificate, and whether a host takes it (ingress-nginx: auth-tls-*).

use std::{cell::RefCell, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, StatusCode};
use rustls_pki_types::CertificateDer;

use super::{client::Client, plan::Unplanned, scope::escape};
use crate::{
    counters::Refused,
    expression::Expression,
    routes::{ClientCertificates, Host, REQUEST_STEPS_MAX, Routes},
    tls::{ClientAuth, Mode, Unverified, subject},
};

static SSL_CLIENT_CERT: HeaderName = HeaderName::from_static("ssl-client-cert");
static SSL_CLIENT_ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
static SSL_CLIENT_SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
static SSL_CLIENT_VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");

/// PEM's lines.
const LINE_BYTES: usize = 64;

/// Fields an endpoint is to see; `None`: whatever the client sent as one is taken off.
pub(super) type Fields = Vec<(HeaderName, Option<HeaderValue>)>;

/// What a client showed when it was asked.
#[derive(Debug)]
pub(super) struct Shown {
    /// The host it was asked for.
    pub(super) server_name: String,
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Of the authorities that were asked last.
    verdict: RefCell<Option<(u64, Result<(), Unverified>)>>,
}

impl Shown {
    pub(super) fn new(server_name: String, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { server_name, chain, verdict: RefCell::default() }
    }

    /// Verified once for each connection and authority.
    fn verified(&self, auth: &Arc<ClientAuth>) -> Result<(), Unverified> {
        if let Some((of, verdict)) = &*self.verdict.borrow()
            && *of == auth.id
        {
            return verdict.clone();
        }
        let verdict = auth.verify(&self.chain);
        *self.verdict.borrow_mut() = Some((auth.id, verdict.clone()));
        verdict
    }
}

/// What the endpoint is told, or why the request goes no further.
pub(super) fn check(
    client: &Client,
    routes: &Routes,
    host: &Host,
    certificates: &ClientCertificates,
) -> Result<Fields, Unplanned> {
    let ClientCertificates::Of(auth) = certificates else {
        return Err(Unplanned::Refused(Refused::Certificate));
    };
    let shown = client.shown.get().ok_or(MISDIRECTED)?;
    // Whom a client was asked for decides what it was asked; another host's answer is none here
    // (RFC 9110 15.5.20; nginx does the same).
    let asked_for = routes.host(&shown.server_name).ok_or(MISDIRECTED)?;
    if asked_for.pattern != host.pattern {
        return Err(MISDIRECTED);
    }
    let wanted = &auth.wanted;
    let verdict = if shown.chain.is_empty() { None } else { Some(shown.verified(auth)) };
    let is_in = match (&verdict, wanted.mode) {
        (Some(Ok(())), _) | (_, Mode::Off) => true,
        (None, mode) => mode != Mode::On,
        // nginx: ngx_ssl_verify_error_optional.
        (Some(Err(error)), mode) => mode == Mode::Any && error.is_strangers,
    };
    if !is_in {
        client.worker.counters.refused(Refused::Certificate);
        return Err(match &wanted.error_page {
            Some(page) => Unplanned::Moved(StatusCode::FOUND, page.clone()),
            None => Unplanned::Unserved(StatusCode::BAD_REQUEST),
        });
    }
    let names = shown.chain.first().and_then(|certificate| subject::names(certificate));
    let (subject, issuer) = names.unwrap_or_default();
    // Strangers (optional_no_ca) write names of any length.
    let mut steps = REQUEST_STEPS_MAX;
    let mut fits = |pattern: &Expression| pattern.is_match_within(subject.as_bytes(), &mut steps);
    if wanted.subject.as_ref().is_some_and(|pattern| fits(pattern) != Ok(true)) {
        client.worker.counters.refused(Refused::Certificate);
        return Err(Unplanned::Unserved(StatusCode::FORBIDDEN));
    }
    let verify = match &verdict {
        None => "NONE".to_owned(),
        Some(Ok(())) => "SUCCESS".to_owned(),
        Some(Err(error)) => format!("FAILED:{}", error.reason),
    };
    let field = |text: String| {
        HeaderValue::try_from(text).ok().filter(|value: &HeaderValue| !value.is_empty())
    };
    let certificate = shown.chain.first().filter(|_| wanted.passes).map(|der| pem(der));
    Ok(vec![
        (SSL_CLIENT_VERIFY.clone(), field(verify)),
        (SSL_CLIENT_SUBJECT.clone(), field(subject)),
        (SSL_CLIENT_ISSUER.clone(), field(issuer)),
        (SSL_CLIENT_CERT.clone(), certificate.and_then(field)),
    ])
}

const MISDIRECTED: Unplanned = Unplanned::Unserved(StatusCode::MISDIRECTED_REQUEST);

/// nginx: $ssl_client_escaped_cert.
fn pem(der: &CertificateDer<'_>) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(der);
    for line in encoded.as_bytes().chunks(LINE_BYTES) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    let mut escaped = String::new();
    escape(&pem, &mut escaped);
    escaped
}
