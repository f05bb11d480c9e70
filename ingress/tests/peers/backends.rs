//! Servers of others behind the role: proxies, and what applications run in. Each hands what it takes
//! for a request on to a server that counts.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::TcpStream;

use crate::support::PATIENCE;

/// What a proxy speaks with its clients, without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Http1,
    Http2,
}

/// One of them; it ends with the test.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Child,
    _files: tempfile::TempDir,
}

impl Peer {
    pub(crate) async fn nginx(origin: SocketAddr, front: Front) -> Self {
        let http2 = if front == Front::Http2 { " http2" } else { "" };
        Self::nginx_with(|address| {
            format!(
                "upstream origin {{ server {origin}; keepalive 4; }}
                 server {{ listen {address}{http2};
                   location / {{ proxy_pass http://origin; proxy_http_version 1.1;
                     proxy_set_header Connection \"\"; }} }}"
            )
        })
        .await
    }

    /// `servers`: what is in its block `http`, at this address.
    pub(crate) async fn nginx_with(servers: impl FnOnce(SocketAddr) -> String) -> Self {
        Self::start("nginx", |directory, address| {
            let at = directory.display();
            let text = format!(
                "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
                 events {{}}
                 http {{ access_log off; client_body_timeout 2s; client_body_temp_path {at}/b;
                   proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u;
                   scgi_temp_path {at}/s; {} }}",
                servers(address)
            );
            let file = directory.join("nginx.conf");
            std::fs::write(&file, text).unwrap();
            let mut command = Command::new("/usr/sbin/nginx");
            command.arg("-c").arg(file).arg("-p").arg(directory);
            command
        })
        .await
    }

    pub(crate) async fn haproxy(origin: SocketAddr, front: Front) -> Self {
        Self::start("haproxy", |directory, address| {
            let http2 = if front == Front::Http2 { " proto h2" } else { "" };
            let text = format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n \
                 http-reuse always\nfrontend f\n bind {address}{http2}\n default_backend b\nbackend b\n \
                 server s {origin}\n"
            );
            let file = directory.join("haproxy.cfg");
            std::fs::write(&file, text).unwrap();
            let mut command = Command::new("/usr/sbin/haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        })
        .await
    }

    pub(crate) async fn node(origin: SocketAddr) -> Self {
        Self::start("node", |directory, address| {
            let file = directory.join("node.js");
            std::fs::write(&file, include_str!("servers/node.js")).unwrap();
            let mut command = Command::new("/usr/bin/node");
            command.arg(file).arg(address.to_string()).arg(origin.to_string());
            command
        })
        .await
    }

    /// Threads, because its plain workers keep no connection.
    pub(crate) async fn gunicorn(origin: SocketAddr) -> Self {
        Self::start("gunicorn", |directory, address| {
            std::fs::write(directory.join("wsgi.py"), include_str!("servers/wsgi.py")).unwrap();
            let mut command = Command::new("/usr/bin/gunicorn");
            command.args(["--worker-class", "gthread", "--threads", "4", "--chdir"]).arg(directory);
            command.args(["--bind", &address.to_string(), "wsgi:app"]);
            command.env("ORIGIN", origin.to_string());
            command
        })
        .await
    }

    pub(crate) async fn uvicorn(origin: SocketAddr) -> Self {
        Self::start("uvicorn", |directory, address| {
            std::fs::write(directory.join("asgi.py"), include_str!("servers/asgi.py")).unwrap();
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let mut command = Command::new("/usr/bin/uvicorn");
            command.args(["--host", &host, "--port", &port, "--http", "h11", "--lifespan", "off"]);
            command.arg("--app-dir").arg(directory).arg("asgi:app");
            command.env("ORIGIN", origin.to_string());
            command
        })
        .await
    }

    async fn start(name: &'static str, command: impl FnOnce(&Path, SocketAddr) -> Command) -> Self {
        let files = tempfile::tempdir().unwrap();
        let address = free();
        let log = std::fs::File::create(files.path().join("log")).unwrap();
        let mut command = command(files.path(), address);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let process = process.unwrap_or_else(|error| panic!("{name}: {error}: make test-peers"));
        let peer = Self { name, address, process, _files: files };
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect(name);
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
