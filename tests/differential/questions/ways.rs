//! Messages there and back.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::op::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The reply, and its bytes.
pub(super) async fn udp(server: SocketAddr, message: &[u8]) -> (Message, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let mut buffer = [0; 1 << 16];
    let exchange = async {
        loop {
            // Refused while a server starts.
            let _ = socket.send(message).await;
            if let Ok(received) = socket.recv(&mut buffer).await {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let received = timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| panic!("{server}: no reply to {message:02x?}"));
    (Message::from_vec(&buffer[..received]).unwrap(), received)
}

/// All at once on one connection; replies as they come.
pub(super) async fn tcp(server: SocketAddr, messages: &[Vec<u8>]) -> Vec<(Message, usize)> {
    let framed = messages.iter().flat_map(|message| {
        [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    });
    let framed: Vec<u8> = framed.collect();
    let mut stream = TcpStream::connect(server).await.unwrap();
    // Else a million questions leave more ports in TIME_WAIT than there are.
    stream.set_zero_linger().unwrap();
    stream.write_all(&framed).await.unwrap();
    let mut replies = vec![];
    while replies.len() < messages.len() {
        let length = timeout(PATIENCE, stream.read_u16()).await.expect("a reply").unwrap();
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await.unwrap();
        replies.push((Message::from_vec(&reply).unwrap(), reply.len()));
    }
    replies
}
