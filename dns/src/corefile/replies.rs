//! The plugins that change replies as a whole: `header`, `nsid`, `dns64`.

use std::net::{IpAddr, Ipv6Addr};

use super::{CorefileError, blocks::Directive, tokens::Token};

/// Flags of a message's header to set and to clear: bits of its third and fourth byte, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagBits {
    /// These become 1.
    pub set: u16,
    /// These become 0.
    pub clear: u16,
}

/// `header`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderOptions {
    /// Of the question, before it is answered.
    pub query: FlagBits,
    /// Of the reply.
    pub response: FlagBits,
}

/// `dns64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns64Options {
    /// The network IPv4 addresses are shown in.
    pub prefix: Ipv6Addr,
    /// Its length in bytes, 4 to 12.
    pub prefix_bytes: usize,
    /// Also where there are IPv6 addresses.
    pub translate_all: bool,
    /// Also for clients that ask by IPv4.
    pub allow_ipv4: bool,
}

impl Default for Dns64Options {
    /// The well-known prefix (RFC 6052 §2.1).
    fn default() -> Self {
        Self {
            prefix: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
            prefix_bytes: 12,
            translate_all: false,
            allow_ipv4: false,
        }
    }
}

pub(super) fn header(line: &Directive) -> Result<HeaderOptions, CorefileError> {
    const USAGE: &str = "header: write `query|response set|clear FLAG...`, flags aa, ra and rd";
    line.expect(0, 0)?;
    if line.body.is_empty() {
        return Err(line.name.error(USAGE));
    }
    let mut options = HeaderOptions::default();
    for rule in &line.body {
        rule.no_body()?;
        let bits = match rule.name.text.to_ascii_lowercase().as_str() {
            "query" => &mut options.query,
            "response" => &mut options.response,
            _ => return Err(rule.name.error(USAGE)),
        };
        let [action, flags @ ..] = rule.expect(2, usize::MAX)? else { continue };
        let (on, off) = match action.text.to_ascii_lowercase().as_str() {
            "set" => (&mut bits.set, &mut bits.clear),
            "clear" => (&mut bits.clear, &mut bits.set),
            _ => return Err(action.error(USAGE)),
        };
        for flag in flags {
            let bit = match flag.text.to_ascii_lowercase().as_str() {
                "aa" => 0x0400,
                "rd" => 0x0100,
                "ra" => 0x0080,
                _ => return Err(flag.error(USAGE)),
            };
            *on |= bit;
            *off &= !bit;
        }
    }
    Ok(options)
}

/// The text of the option; `None`: this machine's name.
pub(super) fn nsid(line: &Directive) -> Result<Option<String>, CorefileError> {
    line.no_body()?;
    let words: Vec<_> = line.args.iter().map(|word| word.text.as_str()).collect();
    let text = words.join(" ");
    if text.len() > NSID_BYTES_MAX {
        return Err(line.name.error(format!("nsid: more than {NSID_BYTES_MAX} bytes: shorten it")));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// It must fit every reply beside what was asked for.
const NSID_BYTES_MAX: usize = 128;

pub(super) fn dns64(line: &Directive) -> Result<Dns64Options, CorefileError> {
    let mut options = Dns64Options::default();
    if let Some(prefix) = line.expect(0, 1)?.first() {
        line.no_body()?;
        set_prefix(&mut options, prefix)?;
    }
    for option in &line.body {
        option.no_body()?;
        match option.name.text.as_str() {
            "prefix" => set_prefix(&mut options, option.one()?)?,
            "translate_all" => options.translate_all = option.expect(0, 0)?.is_empty(),
            "allow_ipv4" => options.allow_ipv4 = option.expect(0, 0)?.is_empty(),
            _ => return Err(option.unknown("dns64", "prefix, translate_all, allow_ipv4")),
        }
    }
    Ok(options)
}

fn set_prefix(options: &mut Dns64Options, word: &Token) -> Result<(), CorefileError> {
    let usage = || word.error("dns64: give an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits");
    let network = word.network()?;
    let IpAddr::V6(prefix) = network.network() else { return Err(usage()) };
    // RFC 6052 §2.2: bits 64 to 71 are nobody's.
    if ![32, 40, 48, 56, 64, 96].contains(&network.prefix()) {
        return Err(usage());
    }
    options.prefix = prefix;
    options.prefix_bytes = usize::from(network.prefix() / 8);
    Ok(())
}
