//! What a field's value must look like.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr as _,
};

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::kube_proxy::duration::GoDuration;

/// The type of a field, with upstream's limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Switch,
    /// true or false, either of which says something.
    Choice,
    /// A whole number from .. to, both included.
    Number(i64, i64),
    /// Any number.
    Real,
    Duration,
    /// A duration; zero says something, too.
    Timeout,
    /// A duration, or nanoseconds.
    DurationOrNanoseconds,
    Ip,
    /// `IP:PORT`, or an IP address that is given this port.
    HostPort(u16),
    Networks,
    /// One or two, separated by a comma.
    NetworkPair,
    /// NodePort places.
    Places,
    OneOf(&'static [&'static str]),
    /// Names and true or false.
    Switches,
    /// `MAJOR.MINOR`
    Version,
    Anything,
}

impl Kind {
    /// The value as text; `None` when it says nothing.
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn check(self, value: &Value) -> Result<Option<String>, String> {
        match (self, value) {
            (_, Value::Null) | (Self::Switch, Value::Bool(false)) => Ok(None),
            (Self::Anything, value) if is_nothing(value) => Ok(None),
            (Self::Anything, value) => Ok(Some(value.to_string())),
            (Self::Switch | Self::Choice, Value::Bool(on)) => Ok(Some(on.to_string())),
            (Self::Number(from, to), Value::Number(number)) => match number.as_i64() {
                Some(number) if (from..=to).contains(&number) => Ok(Some(number.to_string())),
                _ => self.wrong(),
            },
            (Self::Real | Self::DurationOrNanoseconds, Value::Number(number)) => {
                Ok((number.as_f64() != Some(0.0)).then(|| number.to_string()))
            }
            (Self::Duration | Self::Timeout | Self::DurationOrNanoseconds, Value::String(text)) => {
                let GoDuration(length) = text.parse()?;
                let says = !length.is_zero() || matches!(self, Self::Timeout);
                Ok(says.then(|| text.clone()))
            }
            (Self::Switches, Value::Object(map)) if map.values().all(Value::is_boolean) => {
                Ok((!map.is_empty()).then(|| value.to_string()))
            }
            (Self::Networks | Self::Places, Value::Array(list)) => self.list(list),
            (Self::Switch | Self::Choice | Self::Number(..) | Self::Real, _) => self.wrong(),
            (_, Value::String(text)) if text.is_empty() => Ok(None),
            (_, Value::String(text)) => self.text(text),
            _ => self.wrong(),
        }
    }

    fn text(self, text: &str) -> Result<Option<String>, String> {
        let is_good = match self {
            Self::Text => !text.contains(char::is_control),
            Self::Ip => IpAddr::from_str(text).is_ok(),
            Self::HostPort(port) => {
                let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                let address = match (SocketAddr::from_str(text), bare) {
                    (Ok(address), _) if address.port() != 0 => address,
                    (Err(_), Ok(ip)) => SocketAddr::new(ip, port),
                    _ => return self.wrong(),
                };
                return Ok(Some(address.to_string()));
            }
            Self::OneOf(words) => words.contains(&text),
            Self::NetworkPair => {
                let networks: Vec<_> = text.split(',').map(|part| part.trim().parse()).collect();
                networks.len() <= 2 && networks.iter().all(Result::<IpNetwork, _>::is_ok)
            }
            Self::Version => text.split_once('.').is_some_and(|(major, minor)| {
                major.parse::<u8>().is_ok() && minor.parse::<u8>().is_ok()
            }),
            _ => false,
        };
        if is_good { Ok(Some(text.to_owned())) } else { self.wrong() }
    }

    fn list(self, list: &[Value]) -> Result<Option<String>, String> {
        let words: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
        let Some(words) = words else { return self.wrong() };
        let is_network = |word: &str| word.contains('/') && IpNetwork::from_str(word).is_ok();
        let is_place = |word: &str| matches!(word, "primary" | "localhost" | "all");
        let takes_places = matches!(self, Self::Places);
        let is_good = |word: &&str| is_network(word) || (takes_places && is_place(word));
        if !words.iter().all(is_good) {
            return self.wrong();
        }
        Ok((!words.is_empty()).then(|| words.join(",")))
    }

    fn wrong<T>(self) -> Result<T, String> {
        Err(match self {
            Self::Text => "give text in one line".to_owned(),
            Self::Switch | Self::Choice => "give true or false".to_owned(),
            Self::Number(from, to) if to == i64::from(i32::MAX) => {
                format!("give a whole number, at least {from}")
            }
            Self::Number(from, to) => format!("give a whole number from {from} to {to}"),
            Self::Real => "give a number".to_owned(),
            Self::Duration | Self::Timeout | Self::DurationOrNanoseconds => {
                "give a duration as text: 90s, 5m or 24h".to_owned()
            }
            Self::Ip => "give an IP address".to_owned(),
            Self::HostPort(port) => format!("give IP:PORT, or an IP address for port {port}"),
            Self::Networks => "give a list of address ranges: [10.0.0.0/8]".to_owned(),
            Self::NetworkPair => {
                "give an address range, or one of each family with a comma".to_owned()
            }
            Self::Places => {
                "give a list of primary, localhost, all or address ranges: [10.0.0.0/8]".to_owned()
            }
            Self::OneOf(words) => format!("give one of {}, or leave it empty", words.join(", ")),
            Self::Switches => "give names with true or false each".to_owned(),
            Self::Version => "give a version as text: \"1.36\"".to_owned(),
            Self::Anything => "cannot be used".to_owned(),
        })
    }
}

/// kubeadm writes every field; most of them empty, and sizes as "0".
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
    }
}
