//! Values in lines: numbers, durations, zones, networks.

use std::{net::IpAddr, str::FromStr, time::Duration};

use hickory_proto::op::ResponseCode;
use ipnetwork::IpNetwork;

use super::{CorefileError, blocks::Directive, tokens::Token};
use crate::wire::{name::WireName, rcode, types::type_number};

impl Directive {
    /// That this line has between `least` and `most` words behind its name.
    pub(super) fn expect(&self, least: usize, most: usize) -> Result<&[Token], CorefileError> {
        let name = &self.name.text;
        match self.args.len() {
            count if count < least => Err(self.name.error(format!("{name}: a value is missing"))),
            count if count > most => match self.args.get(most) {
                Some(extra) => {
                    Err(extra.error(format!("{name}: {:?} is too much: remove it", extra.text)))
                }
                None => Ok(&self.args),
            },
            _ => Ok(&self.args),
        }
    }

    /// That nothing stands in braces.
    pub(super) fn no_body(&self) -> Result<(), CorefileError> {
        match self.body.first() {
            Some(line) => {
                let reason =
                    format!("{} takes no option {:?}: remove it", self.name.text, line.name.text);
                Err(line.name.error(reason))
            }
            None => Ok(()),
        }
    }

    /// The one word behind the name.
    pub(super) fn one(&self) -> Result<&Token, CorefileError> {
        let missing = || self.name.error(format!("{}: a value is missing", self.name.text));
        self.expect(1, 1)?.first().ok_or_else(missing)
    }

    /// An option that this plugin does not have.
    pub(super) fn unknown(&self, plugin: &str, known: &str) -> CorefileError {
        let option = &self.name.text;
        self.name.error(format!("{plugin} has no option {option:?} here: known are {known}"))
    }
}

impl Token {
    /// A number in `least..=most`.
    pub(super) fn number<T>(&self, least: T, most: T) -> Result<T, CorefileError>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let number = self.text.parse().ok().filter(|n| (&least..=&most).contains(&n));
        number.ok_or_else(|| {
            self.error(format!("{:?}: give a number from {least} to {most}", self.text))
        })
    }

    /// A duration as Go writes it (`1m30s`, `500ms`); a bare number means seconds.
    pub(super) fn duration(&self) -> Result<Duration, CorefileError> {
        duration(&self.text).ok_or_else(|| {
            self.error(format!("{:?} is no duration: write it as 30s, 5m or 1m30s", self.text))
        })
    }

    /// One zone, or those a network in CIDR notation stands for; lower case, without final dot.
    pub(super) fn zones(&self) -> Result<Vec<String>, CorefileError> {
        if let Ok(network) = self.text.parse::<IpNetwork>()
            && self.text.contains('/')
        {
            return Ok(reverse_zones(network));
        }
        if self.text == "." {
            return Ok(vec![".".to_owned()]);
        }
        let zone = self.text.strip_suffix('.').unwrap_or(&self.text).to_ascii_lowercase();
        WireName::from_text(&zone)
            .map_err(|error| self.error(format!("{:?} is no domain name: {error}", self.text)))?;
        Ok(vec![zone])
    }

    /// A network, or one address.
    pub(super) fn network(&self) -> Result<IpNetwork, CorefileError> {
        self.text
            .parse()
            .map_err(|_| self.error(format!("{:?}: give an address or ADDRESS/LENGTH", self.text)))
    }

    pub(super) fn ip(&self) -> Result<IpAddr, CorefileError> {
        self.text.parse().map_err(|_| self.error(format!("{:?} is no IP address", self.text)))
    }
}

/// All zones of several words.
pub(super) fn zones(words: &[Token]) -> Result<Vec<String>, CorefileError> {
    let zones: Result<Vec<_>, _> = words.iter().map(Token::zones).collect();
    Ok(zones?.concat())
}

/// A record type by its name.
pub(super) fn record_type(word: &Token) -> Result<u16, CorefileError> {
    type_number(&word.text).ok_or_else(|| word.error(format!("{:?} is no record type", word.text)))
}

/// A response code by its name or number, of those that fit a header.
pub(super) fn response_code(word: &Token) -> Result<ResponseCode, CorefileError> {
    let text = word.text.to_ascii_uppercase();
    let wanted = if text == "SUCCESS" { "NOERROR" } else { &text };
    let by_name =
        || (0..).zip(rcode::NAMES).find(|(_, name)| *name == wanted).map(|(code, _)| code);
    let code = text.parse().ok().or_else(by_name).filter(|code: &u8| *code <= rcode::MAX);
    code.map(ResponseCode::from_low).ok_or_else(|| {
        let (names, most) = (rcode::NAMES.join(", "), rcode::MAX);
        word.error(format!("{text:?}: give {names}, or a number from 0 to {most}"))
    })
}

fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// The reverse zones of a network: one if its length ends at a label, else up to 128 (v4) or 8.
fn reverse_zones(network: IpNetwork) -> Vec<String> {
    let (bits_per_label, octets, suffix) = match network.network() {
        IpAddr::V4(v4) => (8, v4.octets().to_vec(), "in-addr.arpa"),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().iter().flat_map(|o| [o >> 4, o & 15]).collect();
            (4, nibbles, "ip6.arpa")
        }
    };
    let prefix = usize::from(network.prefix());
    let labels = prefix.div_ceil(bits_per_label);
    let spread = 1_u16 << (labels * bits_per_label - prefix);
    let text =
        |label: u8| if bits_per_label == 8 { label.to_string() } else { format!("{label:x}") };
    let zone = |step: u16| {
        let mut parts: Vec<_> = octets.iter().take(labels).copied().collect();
        if let Some(last) = parts.last_mut() {
            *last = last.saturating_add(u8::try_from(step).unwrap_or(u8::MAX));
        }
        let parts = parts.into_iter().rev().map(text);
        parts.chain([suffix.to_owned()]).collect::<Vec<_>>().join(".")
    };
    (0..spread).map(zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5h", Some(5_400_000)),
            ("10", Some(10_000)),
            ("", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
        ] {
            let wanted = milliseconds.map(Duration::from_millis);
            assert_eq!(duration(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn response_codes_have_names_and_numbers() {
        for (text, wanted) in [
            ("NOERROR", Some(ResponseCode::NoError)),
            ("success", Some(ResponseCode::NoError)),
            ("0", Some(ResponseCode::NoError)),
            ("2", Some(ResponseCode::ServFail)),
            ("NxDomain", Some(ResponseCode::NXDomain)),
            ("NOTZONE", Some(ResponseCode::NotZone)),
            ("11", Some(ResponseCode::from_low(11))),
            ("15", Some(ResponseCode::from_low(15))),
            // RFC 6891 §6.1.3: the upper bits are in the OPT record.
            ("16", None),
            ("BADVERS", None),
            ("-1", None),
            ("", None),
        ] {
            let word = Token { text: text.to_owned(), file: "".into(), line: 1, quoted: false };
            assert_eq!(response_code(&word).ok(), wanted, "{text:?}");
        }
    }

    #[test]
    fn networks_are_reverse_zones() {
        for (network, zones) in [
            ("10.0.0.0/8", vec!["10.in-addr.arpa"]),
            ("10.96.0.0/16", vec!["96.10.in-addr.arpa"]),
            ("10.96.0.0/15", vec!["96.10.in-addr.arpa", "97.10.in-addr.arpa"]),
            ("fd00::/8", vec!["d.f.ip6.arpa"]),
            ("fd00:10:96::/46", vec!["4.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa"]),
        ] {
            let found = reverse_zones(network.parse().unwrap());
            if network.ends_with("/46") {
                assert_eq!(found.len(), 4, "{found:?}");
                continue;
            }
            assert_eq!(found, zones, "{network}");
        }
    }
}
