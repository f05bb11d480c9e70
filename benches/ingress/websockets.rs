//! WebSockets that are open for as long as something else is going on.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::{client, origin, paced, table};

/// Each says something and awaits its echo so often.
const BETWEEN: Duration = Duration::from_millis(200);
/// A masked text frame that says `hello` (RFC 6455 5.7).
const FRAME: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

/// Opens so many for these hosts, keeps them until it is told to end, and returns how many broke.
pub fn broken(address: SocketAddr, hosts: &[usize], count: usize, ended: &AtomicBool) -> usize {
    let open = |n: usize| {
        let host = table::host(hosts[n % hosts.len()]);
        open(address, &host).unwrap_or_else(|error| panic!("a WebSocket to {host}: {error}"))
    };
    let sockets: Vec<TcpStream> = (0..count).map(open).collect();
    thread::scope(|scope| {
        let keep = |socket| scope.spawn(move || talk(socket, ended).is_err());
        let threads: Vec<_> = sockets.into_iter().map(keep).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    })
}

fn open(address: SocketAddr, host: &str) -> io::Result<TcpStream> {
    let mut socket = client::connect(address)?.stream;
    write!(
        socket,
        "GET /chat HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        origin::KEY
    )?;
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
    }
    Ok(socket)
}

fn talk(mut socket: TcpStream, ended: &AtomicBool) -> io::Result<()> {
    while !ended.load(Relaxed) {
        socket.write_all(&FRAME)?;
        let mut echo = [0; FRAME.len()];
        socket.read_exact(&mut echo)?;
        assert_eq!(echo, FRAME, "what comes back is what was sent");
        paced::sleep(BETWEEN);
    }
    Ok(())
}
