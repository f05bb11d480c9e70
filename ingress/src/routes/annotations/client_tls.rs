//! Whose certificate a client must have.

use fairlead_state::{Key, model::Secret};
use http::HeaderValue;

use super::value::{Read, Unread, bad, flag, number, own_object, regex_with_case};
use crate::{
    expression::Expression,
    tls::{ClientAuth, Mode, Wanted},
};

/// What an Ingress says about it (`auth-tls-*`).
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTls {
    secret: Option<Key>,
    /// One is named that is never read, so that nobody knows whom to let in.
    is_unread: bool,
    mode: Mode,
    subject: Option<Expression>,
    passes: bool,
    error_page: Option<HeaderValue>,
}

impl ClientTls {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, ingress: &Key, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "auth-tls-secret" => {
                let secret = own_object(ingress, value, "Secret");
                self.is_unread = secret.is_err();
                secret.map(|secret| self.secret = Some(secret))
            }
            "auth-tls-verify-client" => mode(value).map(|mode| self.mode = mode),
            "auth-tls-verify-depth" => number::<u8>(value).and_then(|_| {
                Err(Unread::NotServed("limits nothing: a chain may be as long as it is".into()))
            }),
            "auth-tls-match-cn" => subject(value).map(|subject| self.subject = Some(subject)),
            "auth-tls-pass-certificate-to-upstream" => flag(value).map(|flag| self.passes = flag),
            "auth-tls-error-page" => page(value).map(|page| self.error_page = Some(page)),
            _ => return None,
        })
    }

    /// The Secret that has the authorities.
    pub(crate) fn secret(&self) -> Option<&Key> {
        self.secret.as_ref().filter(|_| self.mode != Mode::Off)
    }

    /// `None`: nobody is asked. An error keeps everybody out.
    pub(crate) fn asked(&self, secret: Option<&Secret>) -> Result<Option<ClientAuth>, String> {
        // ingress-nginx: AuthTLSError closes the server, whoever else has paths there.
        if self.is_unread && self.mode != Mode::Off {
            return Err("annotation auth-tls-secret names no Secret that is read".to_owned());
        }
        let Some(key) = self.secret() else { return Ok(None) };
        let secret = secret.ok_or_else(|| format!("Secret {key} does not exist"))?;
        let wanted = Wanted {
            mode: self.mode,
            subject: self.subject.clone(),
            passes: self.passes,
            error_page: self.error_page.clone(),
        };
        ClientAuth::new(secret, wanted).map(Some)
    }
}

fn mode(value: &str) -> Result<Mode, Unread> {
    match value {
        "on" => Ok(Mode::On),
        "off" => Ok(Mode::Off),
        "optional" => Ok(Mode::Optional),
        "optional_no_ca" => Ok(Mode::Any),
        _ => bad("is none of on, off, optional, optional_no_ca"),
    }
}

/// ingress-nginx: an expression after `CN=`, compared with the whole subject.
fn subject(value: &str) -> Result<Expression, Unread> {
    if value.starts_with("CN=") { regex_with_case(value) } else { bad("does not begin with CN=") }
}

/// Whatever it is, it lets nobody in: certificates are asked for all the same.
fn page(value: &str) -> Result<HeaderValue, Unread> {
    let is_url = value.starts_with("http://") || value.starts_with("https://");
    let is_text = value.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\;$`".contains(&b));
    match HeaderValue::from_str(value) {
        Ok(page) if is_url && is_text => Ok(page),
        _ => Err(Unread::NotServed(
            "is no URL of http or https: who shows no proper certificate is answered 400".into(),
        )),
    }
}
