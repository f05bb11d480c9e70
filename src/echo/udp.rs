use std::sync::Arc;

use serde_json::json;
use tokio::net::UdpSocket;

/// Larger datagrams are cut: only their coming is answered.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// Answers each datagram with one that names the pod and the client it saw.
pub(crate) async fn serve(socket: UdpSocket, pod: Arc<str>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        // An error here is the ICMP answer to an earlier datagram of ours, whose client is gone.
        let Ok((_, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = json!({"pod": &*pod, "client": super::canonical(peer)}).to_string();
        if let Err(error) = socket.send_to(answer.as_bytes(), peer).await {
            tracing::debug!(%error, %peer, "answer");
        }
    }
}
