use std::convert::Infallible;

use futures::stream;
use http_body_util::{Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// Whatever is asked for has no end, but for `/short`.
async fn answer(request: Request<Incoming>) -> Result<Response<Sent>, Infallible> {
    if request.uri().path() == "/short" {
        return Ok(Response::new(Full::from("short").boxed_unsync()));
    }
    let endless = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 4096]))));
    Ok(Response::new(StreamBody::new(endless).boxed_unsync()))
}

fn get(uri: &'static str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static(uri);
    request
}

/// By the windows of HTTP/2 clients three take all that the server may send on their connection.
#[tokio::test]
async fn streams_that_nobody_reads_leave_the_last_one_its_window() {
    let (client, server) = tokio::io::duplex(64 << 10);
    let builder = server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(builder.serve_connection(TokioIo::new(server), service_fn(answer)));
    let lane = Lane::over(TokioIo::new(client)).await.unwrap();
    let mut unread = Vec::new();
    while unread.len() < usize::from(STREAMS_MAX) - 1 {
        assert!(lane.has_room(), "{} streams", unread.len());
        let Stream { mut requests, user } = lane.stream();
        let begun = timeout(PATIENCE, requests.send_request(get("http://api/endless"))).await;
        unread.push((begun.unwrap().unwrap(), user));
    }
    let mut requests = lane.stream().requests;
    let read = async {
        let answer = requests.send_request(get("http://api/short")).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    assert_eq!(timeout(PATIENCE, read).await.unwrap(), "short");
}
