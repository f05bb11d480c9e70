//! `hosts [FILE [ZONES...]] { ... }`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{CorefileError, blocks::Directive, kubernetes::Fallthrough, values};

const TTL_SECONDS: u32 = 3600;
const RELOAD: Duration = Duration::from_secs(5);
/// CoreDNS's own, whether or not there are lines in the Corefile.
const FILE: &str = "/etc/hosts";

/// Options of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsOptions {
    /// The file, read again when it has changed.
    pub file: PathBuf,
    /// Zones it is for; empty for the block's.
    pub zones: Vec<String>,
    /// Lines written in the Corefile: an address and its names.
    pub inline: Vec<(IpAddr, Vec<String>)>,
    /// `ttl`, in seconds.
    pub ttl_seconds: u32,
    /// Addresses have no names.
    pub no_reverse: bool,
    /// `fallthrough`.
    pub fallthrough: Fallthrough,
    /// `reload`: how often the file's time stamp is looked at; `None`: never.
    pub reload: Option<Duration>,
}

pub(super) fn read(line: &Directive) -> Result<HostsOptions, CorefileError> {
    let mut options = HostsOptions {
        file: FILE.into(),
        zones: vec![],
        inline: vec![],
        ttl_seconds: TTL_SECONDS,
        no_reverse: false,
        fallthrough: Fallthrough::Never,
        reload: Some(RELOAD),
    };
    if let [file, zones @ ..] = &line.args[..] {
        options.file = file.text.clone().into();
        options.zones = values::zones(zones)?;
    }
    for option in &line.body {
        option.no_body()?;
        match option.name.text.as_str() {
            "ttl" => options.ttl_seconds = option.one()?.number(1, 65535)?,
            "no_reverse" => options.no_reverse = option.expect(0, 0)?.is_empty(),
            "fallthrough" => options.fallthrough = Fallthrough::read(option)?,
            "reload" => {
                let interval = option.one()?.duration()?;
                options.reload = (!interval.is_zero()).then_some(interval);
            }
            _ => {
                let address = option.name.ip().map_err(|_| {
                    option.unknown(
                        "hosts",
                        "lines `ADDRESS NAME...`, ttl, no_reverse, reload, fallthrough",
                    )
                })?;
                let names = values::zones(option.expect(1, usize::MAX)?)?;
                options.inline.push((address, names));
            }
        }
    }
    Ok(options)
}
