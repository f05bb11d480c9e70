//! Load by programs of others on core 1, and what a request of it costs a proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    account::Cpu,
    agent,
    origin::SMALL,
    subject::Proxy,
    table::{self, Table},
};

/// The programs choose what everybody has: Caddy's suite cannot be chosen at its side.
const OPENSSL: &str = "openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
";

/// h2load has a list of its own, from which HAProxy would take another.
const TLS13: &str = "--tls13-ciphers=TLS_AES_128_GCM_SHA256";

/// Eight connections with 32 each.
const STREAMS: f64 = 256.0;

/// wrk tells amounts with two places.
const ROUNDED: f64 = 0.99;

/// Load for the hosts of a table.
pub struct Load {
    /// What wrk asks for in turn.
    script: PathBuf,
    openssl: String,
    /// h2load asks one host.
    middle: String,
}

/// How HTTP/1 is asked.
#[derive(Clone, Copy)]
pub struct Wrk {
    pub tls: bool,
    pub path: &'static str,
    /// Of the body, in bytes.
    pub size: usize,
    pub connections: u32,
}

/// What requests took and what came of them.
#[derive(Clone, Copy)]
pub struct Cost {
    pub requests: f64,
    /// Processor time of the proxy.
    spent: Cpu,
    took: Duration,
}

impl Cost {
    /// Microseconds of a request, those of its user half and of its system half; requests a second; how much of its core the
    /// proxy took, in per cent.
    pub fn all(self) -> [f64; 5] {
        let Cpu { total, user, system } = self.spent;
        let [total_us, user_us, system_us] = [total, user, system].map(|us| us / self.requests);
        let seconds = self.took.as_secs_f64();
        [total_us, user_us, system_us, self.requests / seconds, total / seconds / 1e4]
    }
}

impl Load {
    pub fn new(dir: &Path, table: &Table) -> Self {
        let asked: Vec<String> = table.asked().into_iter().map(table::host).collect();
        let script = format!(
            "local hosts = {{ \"{}\" }}
local requests, turn = {{}}, 0
function init(arguments)
  for i, host in ipairs(hosts) do
    wrk.headers[\"Host\"] = host
    requests[i] = wrk.format()
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
",
            asked.join("\", \"")
        );
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let script = write(&format!("{}.lua", table.hosts()), &script);
        let openssl = format!("OPENSSL_CONF={}", write("openssl.cnf", OPENSSL).display());
        Self { script, openssl, middle: asked[asked.len() / 2].clone() }
    }

    /// Requests over kept connections. Bodies are only counted: that they are right is known before.
    pub fn wrk(&self, proxy: &Proxy, how: Wrk, seconds: u32) -> Cost {
        let (scheme, address) =
            if how.tls { ("https", proxy.place.tls) } else { ("http", proxy.place.plain) };
        let url = format!("{scheme}://{address}{}", how.path);
        let (connections, seconds) = (how.connections.to_string(), seconds.to_string());
        let script = self.script.to_str().unwrap();
        let arguments =
            ["wrk", "-t1", "-c", &connections, "-d", &seconds, "-s", script, url.as_str()];
        let (text, spent, took) = self.run(proxy, &arguments);
        assert!(!text.contains("Non-2xx"), "{} answered errors:\n{text}", proxy.name());
        assert!(!text.contains("Socket errors"), "{} broke connections:\n{text}", proxy.name());
        let requests = agent::number(&text, "requests in");
        let least = requests * how.size as f64 * ROUNDED;
        assert!(read_bytes(&text) >= least, "{} answered less:\n{text}", proxy.name());
        Cost { requests, spent, took }
    }

    /// The same over HTTP/2: 8 connections with 32 streams each.
    pub fn h2load(&self, proxy: &Proxy, seconds: u32) -> Cost {
        let tls = proxy.place.tls;
        let url = format!("https://{}:{}/small", self.middle, tls.port());
        let (to, seconds) = (format!("--connect-to={tls}"), seconds.to_string());
        let arguments = ["h2load", "-t1", "-c8", "-m32", TLS13, "-D", &seconds, &to, url.as_str()];
        let (text, spent, took) = self.run(proxy, &arguments);
        let requests = agent::number(&text, "status codes:");
        for expected in [
            "Application protocol: h2",
            "Cipher: TLS_AES_128_GCM_SHA256",
            " 0 3xx, 0 4xx, 0 5xx",
            // It opens no other connection where one has ended.
            " 0 failed, 0 errored, 0 timeout",
        ] {
            assert!(text.contains(expected), "{}: not {expected:?}:\n{text}", proxy.name());
        }
        // `..., 1.22MB (1280000) data`
        let mut amounts = text.lines().filter_map(|line| line.strip_suffix(") data"));
        let data = amounts.next().and_then(|line| line.rsplit('(').next()?.parse::<f64>().ok());
        let data = data.unwrap_or_else(|| panic!("no amount of data in:\n{text}"));
        // Of each stream's last answer it may have seen the head alone.
        let least = (requests - STREAMS) * SMALL as f64;
        assert!(data >= least, "{} answered less:\n{text}", proxy.name());
        Cost { requests, spent, took }
    }

    /// What a program printed, what the proxy took meanwhile, and how long that was.
    fn run(&self, proxy: &Proxy, arguments: &[&str]) -> (String, Cpu, Duration) {
        let (begun, before) = (Instant::now(), proxy.cpu());
        let mut words = vec![self.openssl.as_str()];
        words.extend_from_slice(arguments);
        let text = agent::load("env", &words);
        (text, proxy.cpu() - before, begun.elapsed())
    }
}

/// What wrk read: `123 requests in 1.00s, 1.22MB read`.
fn read_bytes(text: &str) -> f64 {
    let line = text.lines().find(|line| line.contains("requests in"));
    let amount = line.and_then(|line| line.rsplit(", ").next()?.strip_suffix("B read"));
    let amount = amount.unwrap_or_else(|| panic!("no amount in:\n{text}"));
    let digits = amount.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &amount[digits.len()..] {
        "" => 1.0,
        "K" => 1024.0,
        "M" => 1024.0 * 1024.0,
        "G" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("{other:?} in:\n{text}"),
    };
    digits.parse::<f64>().unwrap_or_else(|error| panic!("{error}: {digits:?}")) * scale
}
