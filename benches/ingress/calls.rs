//! gRPC calls that stream both ways for as long as something else is going on.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::{SinkExt as _, channel::mpsc, future::join_all};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Uri,
    body::{Frame, Incoming},
    client::conn::http2,
    header::{CONTENT_TYPE, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, runtime, time};

use crate::{origin, table};

/// Of each connection.
const CALLS_MAX: usize = 5;
/// Each sends a message and awaits its echo so often.
const BETWEEN: Duration = Duration::from_millis(200);
const ECHO_MAX: Duration = Duration::from_secs(5);
/// Not compressed, five bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

type Messages = StreamBody<mpsc::Receiver<Result<Frame<Bytes>, Infallible>>>;

struct Call {
    messages: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    echoes: Incoming,
}

/// Begins so many to these hosts, keeps them until it is told to end, and returns how many broke.
pub fn broken(address: SocketAddr, hosts: &[usize], count: usize, ended: &AtomicBool) -> usize {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut calls = vec![];
        for first in (0..count).step_by(CALLS_MAX) {
            let connection = connect(address).await.expect("a connection for gRPC");
            for n in first..count.min(first + CALLS_MAX) {
                let host = table::host(hosts[n % hosts.len()]);
                let call = begin(connection.clone(), &host).await;
                calls.push(call.unwrap_or_else(|error| panic!("gRPC to {host}: {error:#}")));
            }
        }
        let ends = join_all(calls.into_iter().map(|call| call.talk(ended))).await;
        let broken: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        if let Some(error) = broken.first() {
            println!("a gRPC call: {error:#}");
        }
        broken.len()
    })
}

async fn connect(address: SocketAddr) -> Result<http2::SendRequest<Messages>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (calls, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(calls)
}

async fn begin(mut connection: http2::SendRequest<Messages>, host: &str) -> Result<Call> {
    let (messages, body) = mpsc::channel(1);
    let uri = Uri::builder().scheme("http").authority(host).path_and_query("/echo.Echo/Talk");
    let request = Request::post(uri.build()?)
        .header(CONTENT_TYPE, origin::GRPC)
        .header(TE, "trailers")
        .body(StreamBody::new(body))?;
    let response = connection.send_request(request).await?;
    ensure!(response.status().is_success(), "{:?}", response.status());
    Ok(Call { messages, echoes: response.into_body() })
}

impl Call {
    async fn talk(mut self, ended: &AtomicBool) -> Result<()> {
        while !ended.load(Relaxed) {
            self.messages.send(Ok(Frame::data(Bytes::from_static(MESSAGE)))).await?;
            time::timeout(ECHO_MAX, self.echo()).await.context("no echo")??;
            time::sleep(BETWEEN).await;
        }
        drop(self.messages);
        let end = self.echoes.frame().await.context("no trailers")??;
        let trailers = end.trailers_ref().context("more than was sent")?;
        ensure!(trailers.get(origin::STATUS).is_some_and(|status| status == "0"), "{trailers:?}");
        Ok(())
    }

    async fn echo(&mut self) -> Result<()> {
        let mut echo = vec![];
        while echo.len() < MESSAGE.len() {
            let part = self.echoes.frame().await.context("ended")??;
            echo.extend_from_slice(part.data_ref().context("ended before it was told to")?);
        }
        ensure!(echo == MESSAGE, "what comes back is what was sent");
        Ok(())
    }
}
