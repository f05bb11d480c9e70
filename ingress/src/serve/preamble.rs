//! What a balancer in front says before the client's first byte.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::proxy_protocol::{Header, Route, parse};

/// Longer than any header that has a line end.
const LINE_BYTES: usize = 107;

/// Who is on the other side of a connection, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// Who connected, if it said so of the client.
    pub(super) balancer: Option<IpAddr>,
    /// The port the client connected to.
    pub(super) port: u16,
}

/// Reads a PROXY header and not a byte more. An error means that there is none.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Option<Route>> {
    let mut header = Vec::new();
    loop {
        let missing = match parse(&header) {
            Header::Proxied(route) => return Ok(route),
            Header::Invalid => return Err(io::ErrorKind::InvalidData.into()),
            Header::Needs(missing) => missing,
            Header::NeedsLineEnd => to_line_end(stream).await?,
        };
        let start = header.len();
        header.resize(start + missing, 0);
        let Some(room) = header.get_mut(start..) else { continue };
        stream.read_exact(room).await?;
    }
}

/// How many of the bytes that are there belong to the line.
async fn to_line_end(stream: &TcpStream) -> io::Result<usize> {
    let mut ahead = [0; LINE_BYTES];
    let there = stream.peek(&mut ahead).await?;
    let ahead = ahead.get(..there).unwrap_or_default();
    if ahead.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(memchr::memchr(b'\n', ahead).map_or(ahead.len(), |at| at + 1))
}
