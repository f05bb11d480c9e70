//! Certificates, and the one of the host that the world's Ingress serves.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::world::World;

/// Whose it is.
pub(crate) const HOST: &str = "hello.example.com";

/// Self-signed, as PEM.
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// A Secret of this text, whatever it is.
pub(crate) fn secret(namespace: &str, name: &str, chain: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"tls.crt": STANDARD.encode(chain), "tls.key": STANDARD.encode(key)},
    })
}

impl Certificate {
    /// Made anew.
    pub(crate) fn of(host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
        Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// Made anew, as the Secret that the Ingress names.
    pub(crate) fn apply(world: &World) -> Self {
        let made = Self::of(HOST);
        let secret = secret("default", "hello-tls", &made.chain, &made.key);
        world.apply("hello-tls.json", &secret.to_string());
        made
    }

    /// Whether a text has something of the key in it, as PEM or as the Secret has it.
    pub(crate) fn is_betrayed_by(&self, text: &str) -> bool {
        text.contains(&STANDARD.encode(&self.key)) || has_line_of(text, &self.key)
    }

    /// Whether a text has something of it, the key or not.
    pub(crate) fn is_shown_by(&self, text: &str) -> bool {
        self.is_betrayed_by(text) || has_line_of(text, &self.chain)
    }
}

/// But for its last line, which may be a few letters.
fn has_line_of(text: &str, pem: &str) -> bool {
    let mut lines = pem.lines().filter(|line| !line.starts_with("--") && line.len() > 16);
    lines.any(|line| text.contains(line))
}
