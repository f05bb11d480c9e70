//! A server block's lines by their plugins.

use super::{
    CorefileError, DEFAULT_PORT, ServerBlock, ZoneAt, autopath, bind,
    blocks::{Block, Directive},
    cache, external, forward, guards, hosts, kubernetes,
    loadbalance::{self, Balance},
    log, replies, rewrite, servers, template,
    tokens::Token,
    values, view,
};

/// CoreDNS's plugins that are not here: named, so that the error can say so.
const ELSEWHERE: [&str; 31] = [
    "geoip",
    "tls",
    "timeouts",
    "trace",
    "pprof",
    "dnstap",
    "local",
    "chaos",
    "tsig",
    "dnssec",
    "transfer",
    "route53",
    "azure",
    "clouddns",
    "file",
    "auto",
    "secondary",
    "etcd",
    "grpc",
    "erratic",
    "on",
    "sign",
    "nomad",
    "quic",
    "root",
    "grpc_server",
    "siit",
    "dynupdate",
    "https",
    "https3",
    "proxyproto",
];
const KNOWN: &str = "acl, any, autopath, bind, bufsize, cache, cancel, debug, dns64, errors, \
                     forward, header, health, hosts, k8s_external, kubernetes, loadbalance, \
                     log, loop, metadata, minimal, multisocket, nsid, prometheus, ready, \
                     reload, rewrite, shed, template, view, whoami";

/// Those that only say how the server is run.
const WITHOUT_ANSWERS: [&str; 7] =
    ["bind", "debug", "health", "multisocket", "ready", "reload", "shed"];

/// Plugins of which there may be several lines.
const REPEATABLE: [&str; 6] = ["forward", "acl", "bind", "log", "rewrite", "template"];

/// Understands one block.
pub(super) fn server_block(block: &Block) -> Result<ServerBlock, CorefileError> {
    let mut server = ServerBlock::default();
    for key in &block.keys {
        server.zones.extend(zone_at(key)?);
    }
    let zones: Vec<_> = server.zones.iter().map(|at| at.zone.clone()).collect();
    let mut seen: Vec<&str> = vec![];
    for line in &block.body {
        let name = line.name.text.as_str();
        if seen.contains(&name) && !REPEATABLE.contains(&name) {
            return Err(line.name.error(format!("{name} twice in one server block: join them")));
        }
        if !seen.contains(&name) && !WITHOUT_ANSWERS.contains(&name) {
            server.plugins.push(name.to_owned());
        }
        seen.push(name);
        plugin(line, &zones, &mut server)?;
    }
    Ok(server)
}

fn plugin(
    line: &Directive,
    zones: &[String],
    server: &mut ServerBlock,
) -> Result<(), CorefileError> {
    match line.name.text.as_str() {
        "errors" => server.errors = servers::errors(line)?,
        "log" => server.logs.push(log::read(line)?),
        "health" => server.health = Some(servers::health(line)?),
        "ready" => server.ready = Some(servers::ready(line)?),
        "prometheus" => server.prometheus = Some(servers::prometheus(line)?),
        "reload" => server.reload = Some(servers::reload(line)?),
        "loop" => server.detect_loops = bare(line)?,
        "any" => server.any = bare(line)?,
        "minimal" => server.minimal = bare(line)?,
        "autopath" => server.autopath = Some(autopath::read(line)?),
        // What the first two add is only read by what is refused by name; there is a thread a core
        // as it is, and questions to upstreams end by themselves.
        "metadata" => drop(values::zones(&line.args)?),
        // What there is no time for is shed in any case, and counted.
        "debug" | "shed" => drop(bare(line)?),
        "multisocket" => {
            line.expect(0, 1)?.first().map(|word| word.number(1, 1024)).transpose()?;
        }
        "cancel" => {
            line.expect(0, 1)?.first().map(Token::duration).transpose()?;
        }
        "whoami" => server.whoami = bare(line)?,
        "header" => server.header = Some(replies::header(line)?),
        "nsid" => server.nsid = Some(replies::nsid(line)?),
        "dns64" => server.dns64 = Some(replies::dns64(line)?),
        "view" => server.view = Some(view::read(line)?),
        "loadbalance" => match loadbalance::read(line)? {
            Balance::RoundRobin(networks) => (server.rotate, server.prefer) = (true, networks),
            Balance::Weighted(options) => server.weights = Some(options),
        },
        "bufsize" => {
            let bytes =
                line.expect(0, 1)?.first().map(|word| word.number(512, 4096)).transpose()?;
            server.buffer_bytes = Some(bytes.unwrap_or(1232));
        }
        "bind" => {
            for address in bind::read(line)? {
                if !server.bind.contains(&address) {
                    server.bind.push(address);
                }
            }
        }
        "acl" => server.acl.extend(guards::read(line)?),
        "rewrite" => server.rewrites.push(rewrite::read(line)?),
        "template" => server.templates.push(template::read(line, zones)?),
        "hosts" => server.hosts = Some(hosts::read(line)?),
        "kubernetes" => server.kubernetes = Some(kubernetes::read(line, zones)?),
        "k8s_external" => server.external = Some(external::read(line, zones)?),
        "cache" => server.cache = Some(cache::read(line)?),
        "forward" => server.forwards.push(forward::read(line)?),
        name if ELSEWHERE.contains(&name) => {
            return Err(line.name.error(format!(
                "CoreDNS's plugin {name} is not served here: remove these lines, or keep CoreDNS \
                 for them"
            )));
        }
        name => {
            return Err(line.name.error(format!("no plugin {name:?}: known are {KNOWN}")));
        }
    }
    Ok(())
}

fn bare(line: &Directive) -> Result<bool, CorefileError> {
    line.no_body()?;
    line.expect(0, 0)?;
    Ok(true)
}

/// `.`, `.:53`, `dns://example.org:1053`, `10.0.0.0/24`.
fn zone_at(key: &Token) -> Result<Vec<ZoneAt>, CorefileError> {
    let text = match key.text.split_once("://") {
        Some(("dns", rest)) => rest,
        Some((scheme, _)) => {
            return Err(key.error(format!("{scheme} is not served: only dns:// (UDP and TCP) is")));
        }
        None => &key.text,
    };
    let (zone, port) = match text.rsplit_once(':') {
        Some((zone, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            let port = Token { text: port.to_owned(), ..key.clone() };
            (zone, port.number(1, u16::MAX)?)
        }
        _ => (text, DEFAULT_PORT),
    };
    let zone = Token { text: zone.to_owned(), ..key.clone() };
    Ok(zone.zones()?.into_iter().map(|zone| ZoneAt { zone, port }).collect())
}
