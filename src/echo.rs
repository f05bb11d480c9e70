//! The application in a pod: says who answered whom, over HTTP/1.1 and UDP on one port, IPv4 and
//! IPv6.

mod http;
mod udp;

use std::{
    net::{Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Connections waiting for accept; the kernel caps it at net.core.somaxconn.
const LISTEN_BACKLOG: i32 = 4096;

/// Flags of `fairlead world pod`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it calls itself
    #[arg(long)]
    name: String,
    /// HTTP (TCP) and echo (UDP) port, all addresses
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// After SIGTERM connections are taken until none has come for so long: who sends them has yet
    /// to hear of it
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    quiet_ms: u64,
    /// Yet not longer than that in all
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    drain_ms: u64,
}

/// Runs until SIGTERM, then drains.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let tcp = listen(args.port).with_context(|| format!("TCP port {}", args.port))?;
    let udp = bind_udp(args.port).with_context(|| format!("UDP port {}", args.port))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let draining = CancellationToken::new();
    let name: Arc<str> = args.name.as_str().into();
    let quiet = Duration::from_millis(args.quiet_ms);
    let most = Duration::from_millis(args.drain_ms);
    let http = tokio::spawn(http::serve(tcp, name.clone(), draining.clone(), quiet, most));
    tokio::spawn(udp::serve(udp, name));
    crate::exit::print("ready\n")?;

    terminate.recv().await;
    draining.cancel();
    http.await.context("HTTP")
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = dual_stack(Type::STREAM, Protocol::TCP, port)?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_udp(port: u16) -> std::io::Result<UdpSocket> {
    UdpSocket::from_std(dual_stack(Type::DGRAM, Protocol::UDP, port)?.into())
}

fn dual_stack(kind: Type, protocol: Protocol, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(false)?;
    if kind == Type::STREAM {
        // A restarted pod must not wait for its predecessor's TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// The client as it would write its own address.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
