//! Processor time per proxied request: the agent beside Debian's nginx, same upstream, same load.
//!
//! Proxy on core 0, load and upstream on core 1, loopback, keep-alive to the upstream; rounds interleaved.
//! Needs nginx, wrk and openssl (`make bench-ingress`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark ends at the first surprise"
)]
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a program that prints its table"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures: a clock and an index of samples"
)]
#![allow(unreachable_pub, dead_code, reason = "shared by several benchmarks")]

#[path = "../common/agent.rs"]
mod agent;
#[path = "../common/charts.rs"]
mod charts;
mod handshake;
#[path = "../common/plot.rs"]
mod plot;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;

use std::{fs, net::SocketAddr, net::TcpStream, path::Path, process::Command};

use agent::Running;
use charts::Chart;
use report::Row;

const ROUNDS: usize = 5;
const ROUND_S: &str = "4";
const HANDSHAKES: usize = 600;

const NOTES: &str = "Processor time of the proxy per request (all its processes and threads, /proc schedstat), loopback, proxy on core 0, load \
and upstream on core 1, one Ingress loaded. Keep-alive on both sides, access log off but in `cpu_us_keepalive_logged`, where both write ingress-nginx's line to a file. nginx is Debian's nginx-light with \
`worker_processes 1`, an upstream `keepalive 64` and otherwise its defaults. TLS 1.3, P-256 certificate; `cpu_us_tls_handshake` is a full handshake \
without resumption, one request and close. Debian's nginx uses OpenSSL 3.0, which is known to be slow at handshakes.";

/// ingress-nginx's format, of the variables that nginx itself has.
const UPSTREAMINFO: &str = "log_format u '$remote_addr - $remote_user [$time_local] \"$request\" $status \
    $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_host] [] \
    $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $request_id';";

const CHARTS: &[Chart] = &[Chart::Ratios {
    file: "ratios",
    title: "nginx's cost over Fairlead's",
    scale: 1,
    figures: &[
        "cpu_us_keepalive",
        "cpu_us_keepalive_logged",
        "cpu_us_tls_keepalive",
        "cpu_us_tls_handshake",
        "cpu_us_body_1mib",
        "cpu_us_tls_body_1mib",
        "rss_mib",
    ],
    peers: &["nginx"],
}];

/// A figure's name and how one round of it is measured, in microseconds.
type Figure = (&'static str, fn(&Proxy) -> f64);

/// Whether requests are logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Off,
    On,
}

impl Log {
    /// For the names of files.
    fn suffix(self) -> &'static str {
        if self == Self::On { "-logged" } else { "" }
    }
}

struct Proxy {
    name: &'static str,
    plain: SocketAddr,
    tls: SocketAddr,
    pids: Vec<u32>,
    _running: Running,
}

fn main() {
    if std::env::args().any(|word| word == report::DRAW) {
        return report::publish("ingress", NOTES, CHARTS);
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let certificate = rcgen::generate_simple_self_signed(["bench.example.com".to_owned()]).unwrap();
    let pem = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let (_upstream, upstream) = start_upstream(dir);
    let start =
        |log| [start_fairlead(dir, upstream, &pem, log), start_nginx(dir, upstream, &pem, log)];
    let (proxies, logging) = (start(Log::Off), start(Log::On));

    let figures: [Figure; 6] = [
        ("cpu_us_keepalive_logged", |p| wrk(p, "http", p.plain, "/small", "32")),
        ("cpu_us_keepalive", |p| wrk(p, "http", p.plain, "/small", "32")),
        ("cpu_us_tls_keepalive", |p| wrk(p, "https", p.tls, "/small", "32")),
        ("cpu_us_tls_handshake", |p| {
            let before = cpu_us(p);
            handshake::run(p.tls, "bench.example.com", HANDSHAKES);
            (cpu_us(p) - before) / HANDSHAKES as f64
        }),
        ("cpu_us_body_1mib", |p| wrk(p, "http", p.plain, "/big", "8")),
        ("cpu_us_tls_body_1mib", |p| wrk(p, "https", p.tls, "/big", "8")),
    ];
    let mut rows = vec![];
    for (figure, measure) in figures {
        let mut runs = [vec![], vec![]];
        for round in 0..ROUNDS {
            let proxies = if figure.ends_with("_logged") { &logging } else { &proxies };
            for (proxy, runs) in proxies.iter().zip(&mut runs) {
                let us = measure(proxy);
                println!("round {round}: {figure} {} {us:.2} us", proxy.name);
                runs.push(us);
            }
        }
        for (proxy, runs) in proxies.iter().zip(&runs) {
            rows.push(Row::new(figure, proxy.name, 1, "us", runs));
        }
    }
    for proxy in &proxies {
        let kib: f64 = proxy.pids.iter().map(|pid| process::status_kib(*pid, "VmRSS")).sum();
        rows.push(Row::new("rss_mib", proxy.name, 1, "MiB", &[kib / 1024.0]));
    }
    report::finish("ingress", NOTES, CHARTS, rows);
}

fn cpu_us(proxy: &Proxy) -> f64 {
    proxy.pids.iter().map(|pid| process::cpu_us(*pid)).sum()
}

fn wrk(proxy: &Proxy, scheme: &str, address: SocketAddr, path: &str, connections: &str) -> f64 {
    let url = format!("{scheme}://{address}{path}");
    let before = cpu_us(proxy);
    let text = agent::load(
        "wrk",
        &["-t1", "-c", connections, "-d", ROUND_S, "-H", "Host: bench.example.com", &url],
    );
    let used = cpu_us(proxy) - before;
    assert!(!text.contains("Non-2xx"), "{} answered errors:\n{text}", proxy.name);
    assert!(!text.contains("Socket errors"), "{} broke connections:\n{text}", proxy.name);
    used / agent::number(&text, "requests in")
}

fn start_upstream(dir: &Path) -> (Running, SocketAddr) {
    let address = agent::free_address();
    let root = dir.join("www");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("small"), [b'x'; 128]).unwrap();
    fs::write(root.join("big"), vec![b'x'; 1 << 20]).unwrap();
    let server = format!(
        "server {{ listen {address} reuseport; keepalive_requests 1000000000; root {}; }}",
        root.display()
    );
    (nginx(dir, "upstream", 1, &server), address)
}

fn start_nginx(
    dir: &Path,
    upstream: SocketAddr,
    (cert, key): &(String, String),
    log: Log,
) -> Proxy {
    let (plain, tls) = (agent::free_address(), agent::free_address());
    let (cert_file, key_file) = (dir.join("tls.crt"), dir.join("tls.key"));
    fs::write(&cert_file, cert).unwrap();
    fs::write(&key_file, key).unwrap();
    let server = format!(
        "upstream up {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
         server {{
           listen {plain}; listen {tls} ssl; keepalive_requests 1000000000;
           server_name bench.example.com;
           ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;
           location / {{
             proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";
             proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
             proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;
             proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Real-IP $remote_addr;
             proxy_set_header X-Request-ID $request_id; proxy_set_header X-Scheme $scheme;
           }}
         }}",
        cert_file.display(),
        key_file.display()
    );
    let name = format!("nginx{}", log.suffix());
    let server = match log {
        Log::Off => server,
        Log::On => {
            format!(
                "{UPSTREAMINFO} access_log {}/access.log u; {server}",
                dir.join(&name).display()
            )
        }
    };
    let running = nginx(dir, &name, 0, &server);
    agent::wait("nginx", || TcpStream::connect(tls).is_ok());
    let mut pids = vec![running.pid()];
    let children = Command::new("pgrep").args(["-P", &running.pid().to_string()]).output().unwrap();
    pids.extend(
        String::from_utf8_lossy(&children.stdout).lines().map(|l| l.parse::<u32>().unwrap()),
    );
    assert_eq!(pids.len(), 2, "nginx: one master, one worker");
    Proxy { name: "nginx", plain, tls, pids, _running: running }
}

fn nginx(dir: &Path, name: &str, core: usize, server: &str) -> Running {
    let file = dir.join(format!("{name}.conf"));
    let prefix = dir.join(name);
    fs::create_dir(&prefix).unwrap();
    let text = format!(
        "daemon off; worker_processes 1; user root; pid {p}/pid; error_log {p}/error.log;
         events {{ worker_connections 4096; }}
         http {{ {} sendfile on; tcp_nodelay on; client_body_temp_path {p}/body; proxy_temp_path {p}/proxy;
           fastcgi_temp_path {p}/f; uwsgi_temp_path {p}/u; scgi_temp_path {p}/s;
           {server} }}",
        if server.contains("access_log") { "" } else { "access_log off;" },
        p = prefix.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = agent::on_core(core, "nginx");
    command.arg("-c").arg(&file).arg("-p").arg(&prefix);
    Running::start(&mut command, &dir.join(format!("{name}.log")))
}

fn start_fairlead(dir: &Path, upstream: SocketAddr, pem: &(String, String), log: Log) -> Proxy {
    let (plain, tls) = (agent::free_address(), agent::free_address());
    let manifests = dir.join(format!("manifests{}", log.suffix()));
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("world.yaml"), world(upstream, pem)).unwrap();
    let mut command = agent::agent(&manifests);
    command.args(["--no-proxy", "--no-dns", "--node-name", "bench"]);
    command.args(["--http-listen", &plain.to_string(), "--https-listen", &tls.to_string()]);
    if log == Log::On {
        command.arg("--access-log").arg(dir.join("fairlead-access.log"));
    }
    let running = Running::start(&mut command, &dir.join(format!("fairlead{}.log", log.suffix())));
    agent::wait("the agent's first request", || handshake::get(plain, "bench.example.com"));
    Proxy { name: "fairlead", plain, tls, pids: vec![running.pid()], _running: running }
}

fn world(upstream: SocketAddr, (cert, key): &(String, String)) -> String {
    let indent = |pem: &str| pem.lines().map(|l| format!("    {l}\n")).collect::<String>();
    format!(
        "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: fairlead}}
spec: {{controller: fairlead.io/ingress}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec: {{clusterIP: 10.96.0.80, ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: ['{ip}'], conditions: {{ready: true}}}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: web-tls, namespace: default}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{cert}  tls.key: |
{key}---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: default
  annotations: {{nginx.ingress.kubernetes.io/ssl-redirect: 'false'}}
spec:
  ingressClassName: fairlead
  tls: [{{hosts: [bench.example.com], secretName: web-tls}}]
  rules:
  - host: bench.example.com
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{name: http}}}}}}}}]}}
",
        port = upstream.port(),
        ip = upstream.ip(),
        cert = indent(cert),
        key = indent(key),
    )
}
