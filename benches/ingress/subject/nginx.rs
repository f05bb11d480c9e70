//! Debian's nginx, configured as ingress-nginx configures it: a server block for each host, one upstream.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command};

use nix::sys::signal::Signal;

use super::{Kind, Log, Place, Proxy, Reload, UPSTREAM_IDLE_MAX};
use crate::{
    agent::{self, Running},
    check,
    origin::{BIG, LETTERS, SMALL},
    table::{self, Table},
};

/// ingress-nginx's line, of the variables that nginx itself has.
const UPSTREAMINFO: &str = "log_format u '$remote_addr - $remote_user [$time_local] \"$request\" $status \
    $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_host] [] \
    $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $request_id';";

/// ingress-nginx's, but for what only its Lua has.
const FIELDS: &str = "proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $host; proxy_set_header X-Request-ID $request_id;
    proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Scheme $scheme;
    proxy_set_header X-Scheme $scheme;";

pub(super) fn start(kind: Kind, place: &Place, table: &Table) -> Running {
    place.pem_files(table, false);
    let text = text(kind, place, table);
    run(place.command("nginx"), &place.dir, &text)
}

/// What ingress-nginx does for a change that is not one of endpoints: writes the file, has nginx test it, and has nginx
/// take it.
pub(super) fn reload(proxy: &Proxy, table: &Table) -> Reload {
    fs::write(proxy.place.file("nginx.conf"), text(proxy.kind, &proxy.place, table)).unwrap();
    let mut test = agent::on_core(0, "nginx");
    test.args(["-t", "-q", "-c"]).arg(proxy.place.file("nginx.conf"));
    test.arg("-p").arg(&proxy.place.dir);
    // `nginx -s reload` would read the whole file once more to find the process.
    proxy.tell(test, Signal::SIGHUP)
}

/// The upstream of everybody: files of 128 bytes and of 1 MiB, and what it was sent.
pub fn files(dir: &Path, core: usize) -> (Running, SocketAddr) {
    let address = agent::free_address();
    let dir = dir.join("upstream");
    let root = dir.join("www");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("small"), [LETTERS[0]; SMALL]).unwrap();
    fs::write(root.join("big"), vec![LETTERS[0]; BIG]).unwrap();
    let line = |name: &str| format!("{name} $http_{}\\n", name.to_lowercase().replace('-', "_"));
    let server = format!(
        "server {{ listen {address}; root {}; location = {} {{ return 200 \"{}\"; }} }}",
        root.display(),
        check::PATH,
        check::FIELDS.map(line).concat()
    );
    (run(agent::on_core(core, "nginx"), &dir, &around(&dir, &server)), address)
}

fn run(mut command: Command, dir: &Path, text: &str) -> Running {
    let file = dir.join("nginx.conf");
    fs::write(&file, text).unwrap();
    command.arg("-c").arg(&file).arg("-p").arg(dir);
    Running::start(&mut command, &dir.join("errors"))
}

fn text(kind: Kind, place: &Place, table: &Table) -> String {
    let mut http = format!("{UPSTREAMINFO}\n");
    if place.log == Log::On {
        writeln!(http, "access_log {} u;", place.file("access.log").display()).unwrap();
    }
    if kind == Kind::NginxBuffers {
        http += "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;\n";
    }
    http += "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
        server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
        ssl_protocols TLSv1.2 TLSv1.3;\n";
    for (i, upstream) in table.upstreams.iter().enumerate() {
        writeln!(
            http,
            "upstream up{i} {{ server {upstream}; keepalive {UPSTREAM_IDLE_MAX}; keepalive_requests 1000000000; }}
             upstream calls{i} {{ server {upstream}; keepalive {UPSTREAM_IDLE_MAX}; keepalive_requests 1000000000; }}"
        )
        .unwrap();
    }
    for host in 0..table.hosts() {
        server(&mut http, place, table, host);
    }
    around(&place.dir, &http)
}

fn server(http: &mut String, place: &Place, table: &Table, host: usize) {
    let (name, leads) = (table::host(host), table.leads(host));
    if table.called().contains(&host) {
        writeln!(
            http,
            "server {{ server_name {name}; listen {} http2; location / {{ grpc_pass grpc://calls{leads}; }} }}",
            place.calls
        )
        .unwrap();
        return;
    }
    write!(http, "server {{ server_name {name}; listen {}; ", place.plain).unwrap();
    if let Some(own) = table.certificate(host) {
        let file = place.file("tls").join(own.to_string());
        let file = file.display();
        write!(
            http,
            "listen {} ssl http2; ssl_certificate {file}.pem; ssl_certificate_key {file}.key; ",
            place.tls
        )
        .unwrap();
    }
    writeln!(http, "location / {{ proxy_pass http://up{leads}; {FIELDS} }} }}").unwrap();
}

fn around(dir: &Path, http: &str) -> String {
    let log = if http.contains("access_log") { "" } else { "access_log off;" };
    format!(
        "daemon off; worker_processes 1; user root; pid {p}/pid; error_log {p}/error.log;
         worker_shutdown_timeout 240s;
         events {{ worker_connections 16384; }}
         http {{ {log} sendfile on; tcp_nodelay on; keepalive_requests 1000000000;
           client_body_temp_path {p}/body; proxy_temp_path {p}/proxy;
           fastcgi_temp_path {p}/f; uwsgi_temp_path {p}/u; scgi_temp_path {p}/s;
           {http} }}",
        p = dir.display()
    )
}
