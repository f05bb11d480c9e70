//! Requests read whole before an endpoint is chosen (nginx: proxy_request_buffering).

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};

use super::{Held, Lease};
use crate::serve::{
    answer,
    body::{BodyError, Progress, RequestBody, ResponseBody, Upload},
    client::Client,
    forward::{self, Errand},
    websocket::Asked,
    worker::Worker,
};

/// gRPC's messages, however they are written.
const GRPC: &[u8] = b"application/grpc";

/// A request's body of which there is something before it is sent.
#[derive(Debug)]
pub(crate) enum Read {
    /// All of it. The next one to be sent, of its blocks and then its trailers.
    Whole(Rc<Kept>, usize),
    /// There is more of it than may be held.
    Begun(Begun),
}

/// A body that may be sent more than once.
#[derive(Debug)]
pub(crate) struct Kept {
    blocks: Box<[(Bytes, Lease)]>,
    trailers: Option<HeaderMap>,
    progress: Rc<Progress>,
}

/// What was read of a body, and the rest as the client sends it.
#[derive(Debug)]
pub(crate) struct Begun {
    held: Held,
    /// Behind that: what found no room.
    over: Bytes,
    /// `None`: nothing more comes.
    rest: Option<RequestBody>,
    progress: Rc<Progress>,
}

/// gRPC's messages go both ways at once: who waits for the last one waits for ever. nginx's
/// grpc_pass reads none ahead, whatever is said of buffering.
pub(in crate::serve) fn is_conversation(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..GRPC.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC))
}

/// Sends a request on once all of it is there, or `bytes_max` of it are.
pub(in crate::serve) async fn forward(
    client: &Rc<Client>,
    errand: &Errand<'_>,
    mut request: Box<Request<RequestBody>>,
    bytes_max: usize,
    asked: Option<Box<Asked>>,
) -> Response<ResponseBody> {
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    match read(&client.worker, body, bytes_max).await {
        Ok(body) => *request.body_mut() = body,
        Err(status) => return answer::status(status),
    }
    if let Some(record) = errand.record {
        // What the client took for it is not the endpoint's time.
        record.admitted();
    }
    forward::forward(client, errand, request, asked).await
}

/// Reads a body; an error is what the client is answered, whom no endpoint knows of.
async fn read(
    worker: &Worker,
    mut body: RequestBody,
    bytes_max: usize,
) -> Result<RequestBody, StatusCode> {
    let Some(progress) = body.progress() else { return Ok(body) };
    if body.size_hint().lower() > bytes_max as u64 {
        worker.counters.requests_unbuffered.add();
        return Ok(body);
    }
    let watch = worker.clock.watch();
    progress.begin(&watch);
    let mut held = Held::new(&worker.buffers, bytes_max);
    let mut trailers = None;
    while !body.is_end_stream() {
        let frame = match watch.limit(pin!(body.frame())).await {
            Some(Some(Ok(frame))) => frame,
            Some(Some(Err(_))) if progress.stage() == Upload::TooLarge => {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Some(Some(Err(_))) => return Err(StatusCode::BAD_REQUEST),
            Some(None) => break,
            None => return Err(StatusCode::REQUEST_TIMEOUT),
        };
        let mut over = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                continue;
            }
        };
        if held.push(&mut over).is_err() {
            worker.counters.requests_unbuffered.add();
            let rest = Some(body).filter(|body| !body.is_end_stream());
            return Ok(Read::Begun(Begun { held, over, rest, progress }).into());
        }
    }
    if held.is_empty() && trailers.is_none() {
        return Ok(RequestBody::Empty);
    }
    Ok(Rc::new(Kept::of(held, trailers, progress)).into())
}

impl From<Read> for RequestBody {
    fn from(read: Read) -> Self {
        Self::Read(Box::new(read))
    }
}

impl From<Rc<Kept>> for RequestBody {
    /// From its beginning.
    fn from(kept: Rc<Kept>) -> Self {
        Read::Whole(kept, 0).into()
    }
}

impl Read {
    /// What was sent of a body, and the rest of it; `None`: there is nothing of it.
    pub(in crate::serve) fn again(
        sent: Held,
        trailers: Option<HeaderMap>,
        rest: RequestBody,
    ) -> Option<Self> {
        let progress = rest.progress()?;
        if trailers.is_some() || rest.is_end_stream() {
            return Some(Self::Whole(Rc::new(Kept::of(sent, trailers, progress)), 0));
        }
        let (over, rest) = (Bytes::new(), Some(rest));
        Some(Self::Begun(Begun { held: sent, over, rest, progress }))
    }

    /// What can be sent once more.
    pub(in crate::serve) fn kept(&self) -> Option<&Rc<Kept>> {
        match self {
            Self::Whole(kept, _) => Some(kept),
            Self::Begun(_) => None,
        }
    }

    pub(in crate::serve) fn progress(&self) -> &Rc<Progress> {
        match self {
            Self::Whole(kept, _) => &kept.progress,
            Self::Begun(begun) => &begun.progress,
        }
    }
}

impl Body for Read {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut *self {
            Self::Whole(kept, next) => kept.frame(next),
            Self::Begun(begun) => match (begun.piece(), &mut begun.rest) {
                (Some(piece), _) => Some(Frame::data(piece)),
                (None, Some(rest)) => return Pin::new(rest).poll_frame(cx),
                (None, None) => None,
            },
        };
        if frame.is_some() {
            let is_last = self.is_end_stream();
            self.progress().reach(if is_last { Upload::Done } else { Upload::Sending });
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(kept, next) => *next >= kept.frames(),
            Self::Begun(begun) => {
                let is_sent = begun.held.is_empty() && begun.over.is_empty();
                is_sent && begun.rest.as_ref().is_none_or(Body::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // Only chunks have trailers.
            Self::Whole(kept, _) if kept.trailers.is_some() => SizeHint::default(),
            Self::Whole(kept, next) => {
                let left = kept.blocks.iter().skip(*next).map(|(block, _)| block.len() as u64);
                SizeHint::with_exact(left.sum())
            }
            Self::Begun(Begun { held, over, rest, .. }) => {
                let rest = rest.as_ref().map_or_else(|| Some(0), |rest| rest.size_hint().exact());
                let here = (held.bytes + over.len()) as u64;
                rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(here + rest))
            }
        }
    }
}

impl Kept {
    pub(in crate::serve) fn of(
        held: Held,
        trailers: Option<HeaderMap>,
        progress: Rc<Progress>,
    ) -> Self {
        Self { blocks: held.into_blocks().collect(), trailers, progress }
    }

    fn frames(&self) -> usize {
        self.blocks.len() + usize::from(self.trailers.is_some())
    }

    fn frame(&self, next: &mut usize) -> Option<Frame<Bytes>> {
        let at = std::mem::replace(next, self.frames().min(*next + 1));
        match self.blocks.get(at) {
            Some((block, _)) => Some(Frame::data(block.clone())),
            None if at < self.frames() => self.trailers.clone().map(Frame::trailers),
            None => None,
        }
    }
}

impl Begun {
    fn piece(&mut self) -> Option<Bytes> {
        let piece = self.held.pop().unwrap_or_else(|| std::mem::take(&mut self.over));
        (!piece.is_empty()).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::{HeaderName, HeaderValue, Method};

    use super::*;
    use crate::{
        routes::Patience,
        serve::{buffer::Budget, replay::Replay},
    };

    const ROOM: usize = 1 << 20;

    fn progress() -> Rc<Progress> {
        Rc::new(Progress::new(1, &Patience { connect_ms: 1, send_ms: 1, read_ms: 1 }))
    }

    fn held(budget: &Budget, bytes: usize) -> Held {
        let mut held = Held::new(budget, ROOM);
        held.push(&mut vec![b'x'; bytes].into()).unwrap();
        held
    }

    fn whole(budget: &Budget, bytes: usize, sum: Option<&'static str>) -> RequestBody {
        let name = HeaderName::from_static("x-sum");
        let trailers = sum.map(|sum| HeaderMap::from_iter([(name, HeaderValue::from_static(sum))]));
        let blocks = held(budget, bytes).into_blocks().collect();
        Read::Whole(Rc::new(Kept { blocks, trailers, progress: progress() }), 0).into()
    }

    /// How much came, and the trailers behind it.
    fn taken(body: &mut RequestBody) -> (usize, Option<HeaderMap>) {
        let (mut bytes, mut trailers) = (0, None);
        while !body.is_end_stream() {
            let mut cx = Context::from_waker(Waker::noop());
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) else {
                panic!("more is there");
            };
            match frame.into_data() {
                Ok(data) => bytes += data.len(),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(body).poll_frame(&mut cx), Poll::Ready(None)));
        (bytes, trailers)
    }

    #[test]
    fn a_body_that_was_read_whole_is_sent_as_often_as_need_be() {
        let budget = Budget::new(ROOM);
        for (bytes, sum) in [(1, None), (100_000, None), (100_000, Some("1")), (0, Some("1"))] {
            let body = whole(&budget, bytes, sum);
            let exact = sum.is_none().then_some(bytes as u64);
            assert_eq!(body.size_hint().exact(), exact, "{bytes}: only chunks have trailers");
            let mut replay = Replay::default();
            let mut sent = Request::new(body);
            for _ in 0..3 {
                assert!(replay.keep(&sent, false));
                let progress = sent.body().progress().unwrap();
                let (taken, trailers) = taken(sent.body_mut());
                assert_eq!(taken, bytes);
                let said = trailers.map(|trailers| trailers["x-sum"].clone());
                assert_eq!(said, sum.map(HeaderValue::from_static));
                assert_eq!(progress.stage(), Upload::Done);
                sent = *replay.again().unwrap();
            }
            drop(sent);
            assert_eq!(budget.lease(ROOM).map(|all| all.bytes), Some(ROOM), "all is given back");
        }
    }

    #[test]
    fn what_may_have_been_acted_on_or_is_no_request_any_more_holds_nothing() {
        let budget = Budget::new(ROOM);
        let mut replay = Replay::default();
        for (method, any_method, is_kept) in
            [(Method::PUT, false, true), (Method::POST, false, false), (Method::POST, true, true)]
        {
            let mut sent = Request::new(whole(&budget, 10, None));
            *sent.method_mut() = method;
            assert_eq!(replay.keep(&sent, any_method), is_kept);
            drop(sent);
            assert_eq!(budget.lease(ROOM).is_none(), is_kept);
            replay.rest();
            assert!(budget.lease(ROOM).is_some() && replay.again().is_none());
        }
    }

    #[test]
    fn what_found_no_room_comes_behind_what_did() {
        let budget = Budget::new(ROOM);
        let (held, over) = (held(&budget, 20_000), Bytes::from_static(b"over"));
        let begun = Begun { held, over, rest: None, progress: progress() };
        let body = RequestBody::from(Read::Begun(begun));
        assert_eq!(body.size_hint().exact(), Some(20_004));
        let mut sent = Request::new(body);
        assert!(!Replay::default().keep(&sent, true), "it is not held when it was sent");
        assert_eq!(taken(sent.body_mut()), (20_004, None));
        assert!(budget.lease(ROOM).is_some(), "what was sent is room for others");
    }

    #[test]
    fn a_conversation_is_known_by_its_type() {
        for (kind, expected) in [
            (Some("application/grpc"), true),
            (Some("application/grpc+proto"), true),
            (Some("Application/gRPC"), true),
            (Some("application/json"), false),
            (Some("application/grp"), false),
            (Some(""), false),
            (None, false),
        ] {
            let kind = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
            assert_eq!(is_conversation(&kind.into_iter().collect()), expected);
        }
    }
}
