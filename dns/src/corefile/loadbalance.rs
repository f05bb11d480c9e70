//! `loadbalance [round_robin] { prefer CIDR... }`, `loadbalance weighted FILE { reload DURATION }`.

use std::{path::PathBuf, time::Duration};

use ipnetwork::IpNetwork;

use super::{CorefileError, blocks::Directive, tokens::Token};

const RELOAD: Duration = Duration::from_secs(30);

/// Which addresses come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Balance {
    /// Each in turn; of these networks before others.
    RoundRobin(Vec<IpNetwork>),
    Weighted(WeightOptions),
}

/// `weighted` of `loadbalance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightOptions {
    /// Domain names, and weights of their addresses.
    pub file: PathBuf,
    /// How often it is read again; `None`: never.
    pub reload: Option<Duration>,
}

pub(super) fn read(line: &Directive) -> Result<Balance, CorefileError> {
    match line.expect(0, 2)? {
        [] => prefer(line),
        [policy] if policy.text == "round_robin" => prefer(line),
        [policy] if policy.text == "weighted" => {
            Err(policy.error("loadbalance: name the file of weights: weighted FILE"))
        }
        [policy, file] if policy.text == "weighted" => weighted(line, file),
        [policy, ..] => Err(policy.error("loadbalance: write round_robin or weighted FILE")),
    }
}

fn prefer(line: &Directive) -> Result<Balance, CorefileError> {
    let mut networks = vec![];
    for option in &line.body {
        option.no_body()?;
        if option.name.text != "prefer" {
            return Err(option.unknown("loadbalance", "prefer"));
        }
        for network in option.expect(1, usize::MAX)? {
            networks.push(network.network()?);
        }
    }
    Ok(Balance::RoundRobin(networks))
}

fn weighted(line: &Directive, file: &Token) -> Result<Balance, CorefileError> {
    let mut reload = RELOAD;
    for option in &line.body {
        option.no_body()?;
        if option.name.text != "reload" {
            return Err(option.unknown("loadbalance weighted", "reload"));
        }
        reload = option.one()?.duration()?;
    }
    let reload = (!reload.is_zero()).then_some(reload);
    Ok(Balance::Weighted(WeightOptions { file: file.text.clone().into(), reload }))
}
