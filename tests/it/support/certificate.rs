//! The certificate of the host that the world's Ingress serves.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::world::World;

/// Whose it is.
pub(crate) const HOST: &str = "hello.example.com";

/// Self-signed, as PEM.
pub(crate) struct Certificate {
    pub(crate) chain: String,
    key: String,
}

impl Certificate {
    /// Made anew, as the Secret that the Ingress names.
    pub(crate) fn apply(world: &World) -> Self {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "hello-tls", "namespace": "default"},
            "data": {"tls.crt": STANDARD.encode(&chain), "tls.key": STANDARD.encode(&key)},
        });
        world.apply("hello-tls.json", &secret.to_string());
        Self { chain, key }
    }

    /// Whether a text has something of the key in it, as PEM or as the Secret has it.
    pub(crate) fn is_betrayed_by(&self, text: &str) -> bool {
        let mut lines = self.key.lines().filter(|line| !line.starts_with("--"));
        text.contains(&STANDARD.encode(&self.key)) || lines.any(|line| text.contains(line))
    }
}
