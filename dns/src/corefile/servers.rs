//! The plugins that serve HTTP beside DNS, and when the file is read again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{CorefileError, blocks::Directive, tokens::Token};

const HEALTH_PORT: u16 = 8080;
const READY_PORT: u16 = 8181;
const METRICS_PORT: u16 = 9153;
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// `health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where `/health` is served.
    pub address: SocketAddr,
    /// How long names are still answered after SIGTERM, while `/ready` says no.
    pub lameduck: Duration,
}

/// `reload`: how often, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload(pub Option<Duration>);

/// What `errors` says goes to the log, joined as the log joins.
pub(super) fn errors(line: &Directive) -> Result<bool, CorefileError> {
    if let Some(target) = line.expect(0, 1)?.first()
        && target.text != "stdout"
    {
        return Err(target.error("errors: only stdout can be written to: remove the word"));
    }
    for option in &line.body {
        option.no_body()?;
        match option.name.text.as_str() {
            "stacktrace" => {
                option.expect(0, 0)?;
            }
            "consolidate" => {
                let [every, pattern, ..] = option.expect(2, 4)? else { continue };
                every.duration()?;
                if let Err(error) = regex::Regex::new(&pattern.text) {
                    return Err(
                        pattern.error(format!("consolidate: no regular expression: {error}"))
                    );
                }
            }
            _ => return Err(option.unknown("errors", "consolidate, stacktrace")),
        }
    }
    Ok(true)
}

pub(super) fn health(line: &Directive) -> Result<Health, CorefileError> {
    let address = listen(line, HEALTH_PORT)?;
    let mut health = Health { address, lameduck: Duration::ZERO };
    for option in &line.body {
        option.no_body()?;
        match option.name.text.as_str() {
            "lameduck" => health.lameduck = option.one()?.duration()?,
            _ => return Err(option.unknown("health", "lameduck")),
        }
    }
    Ok(health)
}

pub(super) fn ready(line: &Directive) -> Result<SocketAddr, CorefileError> {
    for option in &line.body {
        // Readiness is always watched here.
        if option.name.text != "monitor" {
            return Err(option.unknown("ready", "monitor"));
        }
        let mode = option.one()?;
        if !["until-ready", "continuously"].contains(&mode.text.as_str()) {
            return Err(mode.error("monitor: write until-ready or continuously"));
        }
    }
    listen(line, READY_PORT)
}

pub(super) fn prometheus(line: &Directive) -> Result<SocketAddr, CorefileError> {
    for option in &line.body {
        option.no_body()?;
        match option.name.text.as_str() {
            // Of Go's processes, which this is not.
            "runtime_metrics" => {
                option.expect(0, 0)?;
            }
            "tls" => {
                return Err(option.name.error(
                    "prometheus: tls is CoreDNS's and not served here: remove this line, and let only \
                     who may read metrics reach the port",
                ));
            }
            _ => return Err(option.unknown("prometheus", "runtime_metrics")),
        }
    }
    // CoreDNS's default is the loopback address.
    match line.expect(0, 1)?.first() {
        None => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))),
        Some(word) => address(word, METRICS_PORT),
    }
}

/// `[INTERVAL] [JITTER]`, or `off`. Several nodes need no jitter: a file is cheap to read.
pub(super) fn reload(line: &Directive) -> Result<Reload, CorefileError> {
    line.no_body()?;
    let words = line.expect(0, 2)?;
    let interval = match words.first() {
        None => Some(RELOAD_INTERVAL),
        Some(word) if word.text == "off" => None,
        Some(word) => {
            let interval = word.duration()?;
            if interval < Duration::from_secs(2) {
                return Err(word.error("reload: at least 2s"));
            }
            Some(interval)
        }
    };
    if let Some(jitter) = words.get(1) {
        jitter.duration()?;
    }
    Ok(Reload(interval))
}

fn listen(line: &Directive, port: u16) -> Result<SocketAddr, CorefileError> {
    match line.expect(0, 1)?.first() {
        None => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        Some(word) => address(word, port),
    }
}

/// `:8080`, `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
fn address(word: &Token, port: u16) -> Result<SocketAddr, CorefileError> {
    let text = word.text.replacen("localhost", "127.0.0.1", 1);
    let with_host = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text };
    with_host.parse().map_err(|_| {
        word.error(format!("{:?}: give ADDRESS:PORT or :PORT, such as :{port}", word.text))
    })
}
