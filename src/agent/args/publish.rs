//! Flags of what is written to the API server.

use std::{collections::BTreeSet, fmt, str::FromStr};

use fairlead_state::{Key, write::Address};

/// What is written to the API server.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "What is written to the API server")]
pub(crate) struct PublishArgs {
    /// The Lease that says which of several agents writes Events and addresses of Ingresses; without
    /// one nothing is written
    #[arg(long, value_name = "NS/NAME", env = "FAIRLEAD_LEADER_LEASE")]
    pub(crate) leader_lease: Option<NamespacedName>,
    /// The pod this runs in: others of its set are found by it
    #[arg(long, value_name = "NS/NAME", env = "FAIRLEAD_POD")]
    pub(crate) pod: Option<NamespacedName>,
    /// Ingresses are found where this Service is (default: at the nodes that ready pods of the own set
    /// run on)
    #[arg(
        long,
        value_name = "NS/NAME",
        env = "FAIRLEAD_PUBLISH_SERVICE",
        conflicts_with = "publish_address"
    )]
    pub(crate) publish_service: Option<NamespacedName>,
    /// Ingresses are found at these addresses or names
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_PUBLISH_ADDRESS",
          value_parser = address)]
    pub(crate) publish_address: Vec<Address>,
    /// Write Events about Services that are not served as they ask, and about this node
    #[arg(long, env = "FAIRLEAD_SERVICE_EVENTS")]
    pub(crate) service_events: bool,
}

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespacedName(pub(crate) Key);

impl FromStr for NamespacedName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self(Key::new(namespace, name)))
            }
            _ => Err("give it as NAMESPACE/NAME"),
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PublishArgs {
    /// What `--publish-address` names.
    pub(crate) fn addresses(&self) -> BTreeSet<Address> {
        self.publish_address.iter().cloned().collect()
    }
}

fn address(text: &str) -> Result<Address, &'static str> {
    match text.parse() {
        Ok(ip) => Ok(Address::Ip(ip)),
        Err(_) if is_name(text) => Ok(Address::Host(text.to_owned())),
        Err(_) => Err("give an IP address or a host name"),
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_by_namespace_and_name() {
        let wrong = ["", "web", "/web", "shop/", "shop/web/1"];
        for text in wrong {
            assert!(text.parse::<NamespacedName>().is_err(), "{text}");
        }
        let named = "shop/web".parse();
        assert_eq!(named, Ok(NamespacedName(Key::new("shop", "web"))));
    }

    #[test]
    fn clients_are_sent_to_addresses_and_names_only() {
        let ip = Address::Ip([192, 0, 2, 1].into());
        assert_eq!(address("192.0.2.1"), Ok(ip));
        assert_eq!(address("lb.example"), Ok(Address::Host("lb.example".to_owned())));
        for wrong in ["", "192.0.2.1:80", "http://lb", "lb..example", "a b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
