//! Attacks by frames.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use super::{
    client::{asked, block, frame, setting, window},
    rules::outcome,
    *,
};
use crate::codec::h2::{
    frame::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
        WINDOW_UPDATE,
    },
    guard::CRUMB_BYTES,
};

/// Sends the same again and again, `each` a write; whether it is told to calm down.
async fn is_stopped<V: Serve>(
    service: V,
    begin: Vec<Vec<u8>>,
    each: impl Fn(u32) -> Vec<Vec<u8>>,
) -> bool {
    let world = Rc::<World>::default();
    let stopped = against(service, &world, SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&begin).await;
        for i in 0..1_000 {
            if !client.send_some(&each(i)).await {
                break;
            }
        }
        loop {
            match client.next().await {
                Some((head, payload)) if head.kind == GOAWAY => {
                    return payload[4..] == Reason::EnhanceYourCalm.code().to_be_bytes();
                }
                Some(_) => {}
                None => return false,
            }
        }
    })
    .await;
    assert_eq!(world.dropped.borrow().contains(&Dropped::Flood), stopped);
    stopped
}

#[tokio::test]
async fn attack_frames_that_ask_for_nothing_end_the_connection() {
    let many = |frame: Vec<u8>| move |_: u32| vec![frame.clone(); 100];
    let half = || frame(HEADERS, 0, 1, &block(&asked("GET", "/")));
    for (name, begin, each) in [
        ("PING (CVE-2019-9512)", vec![], frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS (CVE-2019-9515)", vec![], setting(4, 0xffff)),
        ("PRIORITY (CVE-2019-9513)", vec![], frame(PRIORITY, 0, 9, &[0; 5])),
        ("WINDOW_UPDATE", vec![get(1, "/wait")], frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("empty DATA (CVE-2019-9518)", vec![post(1, "/wait")], frame(DATA, 0, 1, &[])),
        ("empty CONTINUATION", vec![half()], frame(CONTINUATION, 0, 1, &[])),
        ("CONTINUATION (CVE-2024-27316)", vec![half()], frame(CONTINUATION, 0, 1, &[0; 1_000])),
        ("frames nobody knows", vec![], frame(0xee, 0, 0, &[])),
        ("RST_STREAM again", vec![get(1, "/wait")], frame(RST_STREAM, 0, 1, &[0; 4])),
        // It was reset for its window.
        ("ends of nothing", vec![post(1, "/"), window(1, 0)], frame(DATA, END_STREAM, 1, &[])),
    ] {
        assert!(is_stopped(echo, begin, many(each)).await, "{name}");
    }
}

/// Opens a stream's window again and again, each time that it was used; whether it is told to calm
/// down.
async fn is_stopped_by_windows_of(bytes_each: i64) -> bool {
    let more = u32::try_from(bytes_each).unwrap();
    against(bytes, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[setting(4, 0), window(0, 1 << 30), get(1, "/1000000")]).await;
        for _ in 0..3_000 {
            client.send(&[window(1, more)]).await;
            loop {
                match client.next().await.expect("an end without a word") {
                    (head, data) if head.kind == DATA => {
                        assert_eq!(data.len(), usize::try_from(more).unwrap());
                        break;
                    }
                    (head, payload) if head.kind == GOAWAY => {
                        return payload[4..] == Reason::EnhanceYourCalm.code().to_be_bytes();
                    }
                    _ => {}
                }
            }
        }
        false
    })
    .await
}

/// CVE-2019-9511: a frame of ours for each of its bytes, and each of theirs was explained by it.
#[tokio::test]
async fn attack_an_answer_taken_by_the_byte_ends_the_connection_and_in_pieces_does_not() {
    for (bytes_each, expected) in [(1, true), (CRUMB_BYTES - 1, true), (CRUMB_BYTES, false)] {
        assert_eq!(is_stopped_by_windows_of(bytes_each).await, expected, "{bytes_each}");
    }
}

/// CVE-2023-44487: what is given up in the same breath never begins.
#[tokio::test]
async fn attack_rapid_reset_begins_nothing_and_ends_the_connection() {
    let begun = Rc::new(RefCell::new(0));
    let counted = begun.clone();
    let service = move |request| {
        let counted = counted.clone();
        async move {
            *counted.borrow_mut() += 1;
            echo(request).await
        }
    };
    against(service, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        let attack = (0..10_000).map(|i| 2 * i + 1).flat_map(|id| {
            [get(id, "/wait"), frame(RST_STREAM, 0, id, &Reason::Cancel.code().to_be_bytes())]
        });
        client.send_some(&attack.collect::<Vec<_>>()).await;
        assert_eq!(outcome(&mut client).await, (GOAWAY, Some(Reason::EnhanceYourCalm)));
    })
    .await;
    assert!(*begun.borrow() < 10, "{} begun", begun.borrow());
}

/// CVE-2025-8671: the client lets us reset.
#[tokio::test]
async fn attack_made_you_reset_ends_the_connection() {
    for mistake in [frame(WINDOW_UPDATE, 0, 0, &[0; 4]), frame(PRIORITY, 0, 0, &[0; 4])] {
        let each = |i: u32| {
            let id = 2 * i + 1;
            let mut mistake = mistake.clone();
            mistake[5..9].copy_from_slice(&id.to_be_bytes());
            vec![get(id, "/wait"), mistake]
        };
        assert!(is_stopped(echo, vec![], each).await);
    }
}

/// Each byte of a block may stand for the largest field a table holds.
#[tokio::test]
async fn attack_hpack_bomb_is_not_read_to_its_end() {
    let mut bomb = block(&asked("GET", "/"));
    // A field of 4,000 bytes that goes into the table, and then its number.
    bomb.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    bomb.extend(vec![b'v'; 127 + 0x21 + (0x1e << 7)]);
    bomb.extend(vec![0xbe; 10_000]);
    let each = |i: u32| vec![frame(HEADERS, END_HEADERS, 2 * i + 1, &bomb)];
    assert!(is_stopped(echo, vec![], each).await);
}

#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Until a deadline it waits for its last words to be read, and for nothing else.
#[tokio::test]
async fn attack_an_end_that_is_not_read_keeps_nobody_busy() {
    let body = Rc::new(RefCell::new(None));
    let held = body.clone();
    let service = move |request: Request<Received>| {
        *held.borrow_mut() = Some(request.into_body());
        std::future::pending::<Answer<Full<Bytes>>>()
    };
    let (near, mut far) = duplex(1 << 10);
    let (narrow, _unread) = duplex(1);
    let io = join(near, narrow);
    let mut connection = Connection::new(io, service, Rc::<World>::default(), SETTINGS);
    let settings = frame(frame::SETTINGS, 0, 0, &[]);
    let mistake = frame(PING, 0, 0, &[7; 7]);
    let attack = [frame::PREFACE, &settings, &post(1, "/"), &mistake].concat();
    far.write_all(&attack).await.unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let cx = &mut Context::from_waker(&waker);
    assert!(connection.poll(cx).is_pending());
    assert_eq!(connection.stage, Stage::Failed);
    // Whoever had it leaves only now, and the stream is told.
    drop(body.borrow_mut().take());
    let before = wakes.0.load(SeqCst);
    assert!(connection.poll(cx).is_pending());
    assert_eq!(wakes.0.load(SeqCst), before, "it wants to be polled at once");
}

/// Pages that are left, calls that have heard enough.
#[tokio::test]
async fn giving_up_what_is_being_answered_is_no_flood() {
    against(bytes, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        // No window: all that comes is heads.
        client.send(&[setting(4, 0)]).await;
        for id in (1..).step_by(2).take(1_000) {
            client.send(&[get(id, "/10")]).await;
            assert_eq!(client.until(HEADERS).await.0.stream, id);
            client.send(&[frame(RST_STREAM, 0, id, &Reason::Cancel.code().to_be_bytes())]).await;
        }
        client.send(&[frame(PING, 0, 0, &[7; 8])]).await;
        client.until(PING).await;
    })
    .await;
}

#[tokio::test]
async fn attack_requests_after_the_end_are_not_read_without_end() {
    // One after the other, or the same that was skipped before.
    for step in [2, 0] {
        against(echo, &Rc::default(), SETTINGS, async |io, connection| {
            let mut client = Client::new(io).await;
            client.send(&[post(5, "/")]).await;
            client.answer().await;
            connection.borrow_mut().leave();
            let first = if step == 0 { 3 } else { 7 };
            let attack: Vec<_> = (0..5_000).map(|i| get(first + step * i, "/")).collect();
            client.send_some(&attack).await;
            assert_eq!(outcome(&mut client).await, (GOAWAY, Some(Reason::NoError)));
            assert_eq!(outcome(&mut client).await, (GOAWAY, Some(Reason::EnhanceYourCalm)));
        })
        .await;
    }
}

/// What others do all day.
#[tokio::test]
async fn a_busy_client_is_no_flood() {
    against(echo, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        for id in (1..).step_by(2).take(2_000) {
            client
                .send(&[
                    post(id, "/"),
                    frame(DATA, 0, id, b"a"),
                    frame(DATA, 1, id, b"b"),
                    frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 2]),
                    frame(PING, 0, 0, &[7; 8]),
                ])
                .await;
            let (head, _) = client.until(HEADERS).await;
            assert_eq!(head.stream, id);
        }
        client.send(&[get(5_001, "/")]).await;
        assert_eq!(client.until(HEADERS).await.0.stream, 5_001);
    })
    .await;
}
