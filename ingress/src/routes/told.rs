//! What is repeated of the values of annotations and options, in findings and to whoever asks what
//! acts. Whoever reads a log or opens the page is not always who may read the objects.

/// Text of its writer's own, in which there may be a password, a token, or a word that only some are
/// to know: addresses, patterns, values of fields. All others are told to every client, or are
/// switches, numbers, choices, paths and networks, or names of hosts, fields and objects.
const PRIVATE: [&str; 11] = [
    "auth-request-redirect",
    "auth-tls-match-cn",
    "auth-url",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "mirror-target",
    "otlp-collector-host",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "rewrite-target",
    "skip-access-log-urls",
];

/// Whether the value of an annotation or option is its writer's own.
pub(super) fn is_private(name: &str) -> bool {
    let name = name.strip_prefix("global-").unwrap_or(name);
    name.ends_with("-snippet") || PRIVATE.contains(&name)
}

/// The value in quotes, behind a space, unless it is its writer's own.
pub(super) fn value_of(name: &str, value: &str) -> String {
    if is_private(name) { String::new() } else { format!(" {value:?}") }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ANNOTATIONS, OPTIONS},
        *,
    };

    /// Told to every client, or made of nothing but variables.
    const HARMLESS: [&str; 13] = [
        "auth-cache-key",
        "auth-signin",
        "auth-tls-error-page",
        "cors-allow-origin",
        "global-auth-cache-key",
        "global-auth-signin",
        "limit-conn-zone-variable",
        "log-format-upstream",
        "modsecurity-transaction-id",
        "opentelemetry-operation-name",
        "permanent-redirect",
        "temporal-redirect",
        "upstream-hash-by",
    ];

    #[test]
    fn addresses_snippets_and_templates_are_private_or_known_to_be_harmless() {
        let annotations = ANNOTATIONS.iter().map(|known| (known.name, known.example));
        let options = OPTIONS.iter().map(|known| (known.name, known.example));
        for (name, example) in annotations.chain(options) {
            let is_text =
                ["://", "$", "{", ";", "\"", "^"].iter().any(|part| example.contains(part));
            let is_judged = is_private(name) || HARMLESS.contains(&name);
            assert!(!is_text || is_judged, "{name} {example}: private or harmless?");
        }
    }

    #[test]
    fn private_names_are_names() {
        let is_known = |name: &&str| {
            ANNOTATIONS.iter().any(|known| known.name == *name)
                || OPTIONS.iter().any(|known| known.name == *name)
        };
        let unknown: Vec<_> = PRIVATE.iter().chain(&HARMLESS).filter(|n| !is_known(n)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn values_are_shown_but_for_private_ones() {
        for (name, told) in [
            ("proxy-body-size", " \"v\""),
            ("auth-secret", " \"v\""),
            ("auth-url", ""),
            ("global-auth-url", ""),
            ("configuration-snippet", ""),
            ("otlp-collector-host", ""),
            ("http-snippet", ""),
            ("canary-by-header-value", ""),
        ] {
            assert_eq!(value_of(name, "v"), told, "{name}");
        }
    }
}
