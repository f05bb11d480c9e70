//! Who may come, by password.

use std::sync::Arc;

use fairlead_state::{Key, model::Secret};
use http::HeaderValue;

use super::value::{Read, Unread, bad, own_object};
use crate::{
    digest::DigestGate,
    passwords::{Gate, Passwords},
};

/// The Secret's entry that is a file of htpasswd's.
const FILE_ENTRY: &str = "auth";
const REALM: &str = "Authentication Required";

/// How a password is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Basic,
    Digest,
}

/// Who looks at it.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Basic(Arc<Gate>),
    Digest(Arc<DigestGate>),
}

/// What an Ingress says about passwords.
#[derive(Clone, Debug, Default)]
pub(crate) struct BasicAuth {
    asked: Option<Kind>,
    secret: Option<Key>,
    /// Each entry of the Secret is a user.
    by_entry: bool,
    realm: Option<Box<str>>,
}

impl BasicAuth {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, ingress: &Key, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "auth-type" => kind(value).map(|kind| self.asked = Some(kind)),
            "auth-secret" => {
                own_object(ingress, value, "Secret").map(|secret| self.secret = Some(secret))
            }
            "auth-secret-type" => by_entry(value).map(|by_entry| self.by_entry = by_entry),
            "auth-realm" => realm(value).map(|realm| self.realm = Some(realm)),
            _ => return None,
        })
    }

    /// The Secret that has the passwords.
    pub(super) fn secret(&self) -> Option<&Key> {
        self.secret.as_ref().filter(|_| self.asked.is_some())
    }

    /// Whether passwords are there and nobody asks for them.
    pub(super) fn is_forgotten(&self) -> bool {
        self.asked.is_none() && self.secret.is_some()
    }

    /// `None`: nobody is asked. An error keeps everybody out.
    pub(super) fn gate(&self, secret: Option<&Secret>) -> Result<Option<Door>, String> {
        let Some(kind) = self.asked else { return Ok(None) };
        let key = self.secret.as_ref().ok_or("auth-type needs auth-secret")?;
        let secret = secret.ok_or_else(|| format!("Secret {key} does not exist"))?;
        let realm = self.realm.as_deref().unwrap_or(REALM);
        if kind == Kind::Digest {
            let gate = self.digest(secret, realm)?;
            return Ok(Some(Door::Digest(Arc::new(gate))));
        }
        let passwords = if self.by_entry {
            Passwords::of_entries(secret.data.iter().map(|(user, hash)| (&**user, &**hash)))
        } else {
            let file = secret.data.get(FILE_ENTRY);
            Passwords::parse(file.ok_or_else(|| format!("Secret {key} has no entry {FILE_ENTRY}"))?)
        };
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\""));
        let challenge = challenge.map_err(|_| "auth-realm is no text of a field".to_owned())?;
        // The Secret is of the Ingress' own namespace.
        let gate = Gate::new(passwords, challenge, key.namespace.clone());
        Ok(Some(Door::Basic(Arc::new(gate))))
    }

    fn digest(&self, secret: &Secret, realm: &str) -> Result<DigestGate, String> {
        let key = &secret.key;
        let gate = if self.by_entry {
            let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default().trim();
            let entries = secret.data.iter().map(|(user, hash)| (&**user, text(&**hash)));
            DigestGate::of_entries(entries, realm)
        } else {
            let file = secret.data.get(FILE_ENTRY);
            let file = file.ok_or_else(|| format!("Secret {key} has no entry {FILE_ENTRY}"))?;
            DigestGate::parse(file, realm)
        };
        if gate.is_empty() {
            return Err(format!("Secret {key} has no user of the realm {realm:?} (auth-realm)"));
        }
        Ok(gate)
    }
}

fn by_entry(value: &str) -> Result<bool, Unread> {
    match value {
        "auth-file" => Ok(false),
        "auth-map" => Ok(true),
        _ => bad("is neither \"auth-file\" nor \"auth-map\""),
    }
}

fn kind(value: &str) -> Result<Kind, Unread> {
    match value {
        "basic" => Ok(Kind::Basic),
        "digest" => Ok(Kind::Digest),
        _ => bad("is neither \"basic\" nor \"digest\""),
    }
}

fn realm(value: &str) -> Result<Box<str>, Unread> {
    let is_text = |b: u8| (b == b' ' || b.is_ascii_graphic()) && b != b'"' && b != b'\\';
    if value.bytes().all(is_text) { Ok(value.into()) } else { bad("is no text of a field") }
}
