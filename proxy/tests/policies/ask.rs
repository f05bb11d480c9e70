//! Servers that say who they are and whom they see, and clients that listen.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use fairlead_state::model::Protocol;

use crate::support::services::unspecified;

/// Until a packet is taken for dropped.
const SILENCE: Duration = Duration::from_millis(400);

/// A server at `at`, whose port may be 0, that says its name and whom it talks to; where it is.
pub(crate) fn introduce(protocol: Protocol, at: SocketAddr, name: &'static str) -> SocketAddr {
    match protocol {
        Protocol::Udp => {
            let socket = UdpSocket::bind(at).unwrap();
            let at = socket.local_addr().unwrap();
            thread::spawn(move || {
                while let Ok((_, client)) = socket.recv_from(&mut [0; 16]) {
                    let _ = socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
                }
            });
            at
        }
        _ => {
            let listener = TcpListener::bind(at).unwrap();
            let at = listener.local_addr().unwrap();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let client = stream.peer_addr().map(|client| client.ip().to_string());
                    let _ = write!(stream, "{name} {}", client.unwrap_or_default());
                }
            });
            at
        }
    }
}

/// A socket whose port no other had: what a port's earlier datagrams opened would go on.
pub(crate) fn datagrams(to: SocketAddr) -> std::io::Result<UdpSocket> {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    let socket = UdpSocket::bind((unspecified(to.ip()), port))?;
    socket.set_read_timeout(Some(SILENCE))?;
    // Connected: an answer of somebody else's would not be taken.
    socket.connect(to)?;
    Ok(socket)
}

/// What comes back to one more datagram.
pub(crate) fn ask_by(socket: &UdpSocket) -> std::io::Result<String> {
    let mut answer = vec![0; 64];
    socket.send(b"?")?;
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What a new connection, or a flow of one datagram, is told.
pub(crate) fn ask(protocol: Protocol, to: SocketAddr) -> std::io::Result<String> {
    match protocol {
        Protocol::Udp => ask_by(&datagrams(to)?),
        _ => {
            let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
            stream.set_read_timeout(Some(SILENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        }
    }
}
