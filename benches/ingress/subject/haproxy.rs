//! Debian's HAProxy, configured as its Ingress controllers configure it: a map from hosts to back ends.

use std::{fmt::Write as _, fs::File};

use nix::sys::signal::Signal;

use super::{Kind, Log, Place, Proxy, Reload};
use crate::{
    agent::{self, Running},
    table::{self, Table},
};

/// nginx's line in HAProxy's words.
const LINE: &str = r#"log-format '%ci - - [%t] "%HM %HPO %HV" %ST %B "%[capture.req.hdr(0)]" "%[capture.req.hdr(1)]" %U %Ta [%b] [] %si:%sp %B %Tr %ST %ID'"#;

pub(super) fn start(kind: Kind, place: &Place, table: &Table) -> Running {
    place.pem_files(table, true);
    write_all(kind, place, table);
    let mut command = place.command("haproxy");
    command.args(["-W", "-f"]).arg(place.file("haproxy.cfg"));
    // Lines of log go where this leads.
    let out = File::create(place.file("access.log")).unwrap();
    Running::start_to(&mut command, out.into(), &place.file("errors"))
}

/// Writes the files, has HAProxy test them, and has the master start anew with them.
pub(super) fn reload(proxy: &Proxy, table: &Table) -> Reload {
    write_all(proxy.kind, &proxy.place, table);
    let mut test = agent::on_core(0, "haproxy");
    test.args(["-c", "-q", "-f"]).arg(proxy.place.file("haproxy.cfg"));
    proxy.tell(test, Signal::SIGUSR2)
}

fn write_all(kind: Kind, place: &Place, table: &Table) {
    let line = |host: usize| format!("{} back{host}\n", table::host(host));
    let hosts: String = (0..table.hosts()).map(line).collect();
    let hosts = place.write("hosts.map", &hosts);
    let splice = kind == Kind::HaproxySplice;
    let mut text = format!(
        "global
    maxconn 7000
    nbthread 1
    hard-stop-after 240s
    ssl-default-bind-options ssl-min-ver TLSv1.2
    {log}
    {pipes}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout http-keep-alive 75s
    http-reuse always
    {splice}
frontend all
    bind {plain}
    bind {calls} proto h2
    {tls}
    {line}
    unique-id-format %[uuid()]
    unique-id-header X-Request-ID
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Scheme %[ssl_fc,iif(https,http)]
    http-request set-header X-Scheme %[ssl_fc,iif(https,http)]
    use_backend %[req.hdr(host),field(1,:),lower,map_str({hosts})]
",
        log = if place.log == Log::On { "log stdout format raw local0 info" } else { "" },
        pipes = if splice { "tune.pipesize 524288" } else { "" },
        splice = if splice { "option splice-auto" } else { "" },
        plain = place.plain,
        calls = place.calls,
        tls = match table.certificates.len() {
            0 => String::new(),
            _ => format!(
                "bind {} ssl crt {} alpn h2,http/1.1",
                place.tls,
                place.file("tls").display()
            ),
        },
        line = if place.log == Log::On {
            format!(
                "log global\n    capture request header Referer len 128\n    \
                 capture request header User-Agent len 128\n    {LINE}"
            )
        } else {
            String::new()
        },
        hosts = hosts.display(),
    );
    for host in 0..table.hosts() {
        let upstream = table.upstreams[table.leads(host)];
        let speaks = if table.called().contains(&host) { "proto h2" } else { "" };
        writeln!(text, "backend back{host}\n    server pod {upstream} {speaks}").unwrap();
    }
    place.write("haproxy.cfg", &text);
}
