use std::{
    mem::MaybeUninit,
    pin::pin,
    task::{Context, ready},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::{
        coop::{has_budget_remaining, poll_proceed},
        yield_now,
    },
    time::{interval, sleep, timeout},
};

use super::{way::COPIED_BYTES_MAX, *};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const IDLE_MS: u64 = 60_000;
const MIB: usize = 1 << 20;

/// What is between clients and endpoints.
struct Between {
    clock: Clock,
    pipes: Pipes,
    counters: ThreadCounters,
}

impl Between {
    fn new(pipes: Pipes) -> Self {
        Self { clock: Clock::new(IDLE_MS), pipes, counters: ThreadCounters::new() }
    }

    fn means(&self) -> Means<'_> {
        let Self { clock, pipes, counters } = self;
        Means { clock, pipes, counters }
    }

    /// Joins a client and an endpoint, who do that meanwhile; it is over when both have ended.
    async fn joins(&self, talk: impl AsyncFnOnce(TcpStream, TcpStream)) {
        let ((client, near), (far, endpoint)) = (pair().await, pair().await);
        let joined = join(self.means(), near, far, IDLE_MS);
        let both = async { tokio::join!(joined, talk(client, endpoint)) };
        timeout(PATIENCE, both).await.unwrap();
        assert_eq!(self.pipes.lent(), 0);
    }

    fn spliced(&self) -> usize {
        self.counters.spliced_bytes.get().try_into().unwrap()
    }

    async fn until_no_pipe_is_held(&self) {
        while self.pipes.lent() > 0 {
            yield_now().await;
        }
    }

    /// Until bytes are in a pipe, and nobody takes them.
    async fn until_stuck(&self) {
        let mut before = 0;
        while before == 0 || before < self.spliced() || self.pipes.lent() == 0 {
            before = self.spliced();
            for _ in 0..100 {
                yield_now().await;
            }
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// Whatever is lost, doubled or displaced of it is seen, and what is of another one.
fn body(bytes: usize, begin: u64) -> Vec<u8> {
    let words = (begin..begin + (1 << 13)).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut block: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    // As long as no buffer.
    block.truncate(block.len() - 3);
    let mut body = block.repeat(bytes / block.len() + 1);
    body.truncate(bytes);
    body
}

async fn heard(from: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut heard = vec![0; bytes];
    from.read_exact(&mut heard).await.unwrap();
    heard
}

/// Says all of it, and the other side hears all of it.
async fn passes(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    let sent = body(bytes, 0);
    let (said, heard) = tokio::join!(from.write_all(&sent), heard(to, bytes));
    said.unwrap();
    assert!(heard == sent, "{bytes} bytes");
}

/// Says all of it and ends, and hears the other side to its end.
async fn talks(stream: &mut TcpStream, says: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = stream.split();
    let mut heard = Vec::new();
    let says = async {
        to.write_all(says).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let ((), outcome) = tokio::join!(says, from.read_to_end(&mut heard));
    outcome.unwrap();
    heard
}

/// Closes with a reset.
fn resets(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[tokio::test]
async fn who_has_said_all_still_hears_the_other_side() {
    let between = Between::new(Pipes::default());
    let sizes = [1, COPIED_BYTES_MAX, 2 * COPIED_BYTES_MAX, 3 * COPIED_BYTES_MAX + 1, 9 * MIB + 3];
    for bytes in sizes {
        for is_client_first in [true, false] {
            let talk = async |client: TcpStream, endpoint: TcpStream| {
                let (mut first, mut last) =
                    if is_client_first { (client, endpoint) } else { (endpoint, client) };
                let question = body(bytes, 0);
                let says = async {
                    first.write_all(&question).await.unwrap();
                    first.shutdown().await.unwrap();
                };
                let mut heard = Vec::new();
                let ((), outcome) = tokio::join!(says, last.read_to_end(&mut heard));
                outcome.unwrap();
                assert!(heard == question, "{bytes}, {is_client_first}");
                // However long it thinks about it.
                yield_now().await;
                let answer = body(bytes, 1 << 40);
                let mut heard = Vec::new();
                let says = async {
                    last.write_all(&answer).await.unwrap();
                    drop(last);
                };
                let ((), outcome) = tokio::join!(says, first.read_to_end(&mut heard));
                outcome.unwrap();
                assert!(heard == answer, "{bytes}, {is_client_first}");
            };
            between.joins(talk).await;
        }
    }
}

#[tokio::test]
async fn much_both_ways_at_once_arrives_as_it_was_sent_and_mostly_within_the_kernel() {
    for (there, back) in [(32 * MIB, 32 * MIB + 5), (1, 32 * MIB), (16 * MIB - 1, 0)] {
        let between = Between::new(Pipes::default());
        let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
            let (question, answer) = (body(there, 0), body(back, 1 << 40));
            let (heard, asked) =
                tokio::join!(talks(&mut client, &question), talks(&mut endpoint, &answer));
            assert!(asked == question && heard == answer, "{there}, {back}");
        };
        between.joins(talk).await;
        let (spliced, all) = (between.spliced(), there + back);
        assert!(spliced > all / 2 && spliced < all, "{spliced} of {all} bytes");
    }
}

#[tokio::test]
async fn pieces_are_copied_and_take_no_pipe() {
    let between = Between::new(Pipes::default());
    let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
        for bytes in [1, 100, COPIED_BYTES_MAX - 1] {
            for _ in 0..50 {
                passes(&mut client, &mut endpoint, bytes).await;
                passes(&mut endpoint, &mut client, bytes).await;
            }
        }
    };
    between.joins(talk).await;
    assert_eq!((between.spliced(), between.pipes.kept()), (0, 0));
}

#[tokio::test]
async fn who_is_silent_after_much_holds_no_pipe_and_goes_on_in_pieces() {
    let between = Between::new(Pipes::default());
    let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
        for round in 0..3 {
            passes(&mut client, &mut endpoint, 4 * MIB).await;
            passes(&mut endpoint, &mut client, 4 * MIB).await;
            between.until_no_pipe_is_held().await;
            assert_eq!(between.pipes.kept(), 1, "one after the other");
            // The first tells that it is over.
            passes(&mut client, &mut endpoint, 100).await;
            passes(&mut endpoint, &mut client, 100).await;
            let before = between.spliced();
            for _ in 0..20 {
                passes(&mut client, &mut endpoint, 100).await;
                passes(&mut endpoint, &mut client, 100).await;
            }
            assert_eq!((between.spliced(), between.pipes.lent()), (before, 0), "{round}");
        }
    };
    between.joins(talk).await;
}

#[tokio::test]
async fn who_takes_nothing_is_waited_for_and_then_gets_all_of_it() {
    let between = Between::new(Pipes::default());
    let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
        let sent = body(32 * MIB, 0);
        let says = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let hears = async {
            between.until_stuck().await;
            let mut heard = Vec::new();
            endpoint.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let ((), heard) = tokio::join!(says, hears);
        assert!(heard == sent);
    };
    between.joins(talk).await;
}

/// What does not fit is kept, and nothing more is taken until it is out.
#[tokio::test]
async fn who_takes_little_at_a_time_gets_all_of_what_is_copied_too() {
    let between = Between::new(Pipes::none());
    let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
        let sent = body(16 * MIB, 0);
        let says = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let hears = async {
            let (mut heard, mut piece) = (Vec::new(), vec![0; 70_001]);
            while let n @ 1.. = endpoint.read(&mut piece).await.unwrap() {
                heard.extend_from_slice(&piece[..n]);
                yield_now().await;
            }
            heard
        };
        let ((), heard) = tokio::join!(says, hears);
        assert!(heard == sent);
    };
    between.joins(talk).await;
}

#[tokio::test]
async fn attack_what_is_in_a_pipe_when_a_connection_is_cut_is_no_other_connections() {
    let between = Between::new(Pipes::default());
    let ((mut client, near), (far, endpoint)) = (pair().await, pair().await);
    let secret = body(32 * MIB, 0);
    let cut = async {
        tokio::select! {
            () = join(between.means(), near, far, IDLE_MS) => panic!("neither side ended"),
            said = client.write_all(&secret) => panic!("nobody took all: {said:?}"),
            () = between.until_stuck() => {}
        }
    };
    timeout(PATIENCE, cut).await.unwrap();
    assert_eq!((between.pipes.lent(), between.pipes.kept()), (0, 0), "it is closed");
    drop(endpoint);
}

#[tokio::test]
async fn who_breaks_off_ends_it_for_the_other_side_whatever_is_on_its_way() {
    for (case, is_client, is_stuck) in [
        ("a client, silent", true, false),
        ("an endpoint, silent", false, false),
        ("a client amid its words", true, true),
        ("an endpoint that takes no more", false, true),
    ] {
        let between = Between::new(Pipes::default());
        let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
            passes(&mut client, &mut endpoint, 100).await;
            if is_stuck {
                let sent = body(32 * MIB, 0);
                tokio::select! {
                    said = client.write_all(&sent) => panic!("nobody took all: {said:?}"),
                    () = between.until_stuck() => {}
                }
            }
            let (gone, mut stays) = if is_client { (client, endpoint) } else { (endpoint, client) };
            resets(gone);
            // An end or a reset.
            _ = stays.read_to_end(&mut Vec::new()).await;
        };
        between.joins(talk).await;
        assert!(!is_stuck || is_client || between.pipes.kept() == 0, "{case}");
    }
}

#[tokio::test]
async fn where_there_is_no_pipe_or_it_cannot_be_spliced_all_is_copied() {
    for (case, pipes) in [("none", Pipes::none()), ("not possible", Pipes::unfit())] {
        let between = Between::new(pipes);
        let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
            let (question, answer) = (body(8 * MIB, 0), body(8 * MIB + 1, 1 << 40));
            let (heard, asked) =
                tokio::join!(talks(&mut client, &question), talks(&mut endpoint, &answer));
            assert!(asked == question && heard == answer, "{case}");
        };
        between.joins(talk).await;
        assert_eq!(between.spliced(), 0, "{case}");
    }
}

#[tokio::test]
async fn what_was_copied_while_others_had_all_pipes_is_spliced_once_there_are_some() {
    let between = Between::new(Pipes::default());
    between.pipes.others_have_all(true);
    let talk = async |mut client: TcpStream, mut endpoint: TcpStream| {
        passes(&mut client, &mut endpoint, 8 * MIB).await;
        assert_eq!(between.spliced(), 0);
        between.pipes.others_have_all(false);
        passes(&mut client, &mut endpoint, 16 * MIB).await;
        assert!(between.spliced() > MIB, "{}", between.spliced());
    };
    between.joins(talk).await;
}

#[tokio::test]
async fn bytes_of_either_kind_keep_both_connections_and_silence_ends_them() {
    let idle = Duration::from_millis(800);
    let idle_ms = idle.as_millis().try_into().unwrap();
    // More than `idle` in all.
    let (pause, pieces) = (idle / 4, 6);
    for (bytes, is_spliced) in [(100, false), (MIB, true)] {
        let between = Between { clock: Clock::new(idle_ms), ..Between::new(Pipes::default()) };
        let ((mut client, near), (far, mut endpoint)) = (pair().await, pair().await);
        let ticking = async {
            let mut ticks = interval(between.clock.tick_interval());
            loop {
                ticks.tick().await;
                between.clock.tick();
            }
        };
        let talk = async {
            let mut last = Instant::now();
            for _ in 0..pieces {
                sleep(pause).await;
                last = Instant::now();
                passes(&mut client, &mut endpoint, bytes).await;
            }
            last
        };
        let joined = async {
            let joined = async {
                join(between.means(), near, far, idle_ms).await;
                Instant::now()
            };
            let (last, ended) = tokio::join!(talk, joined);
            assert!(ended - last >= idle, "{:?} of silence", ended - last);
        };
        tokio::select! {
            () = ticking => {}
            outcome = timeout(PATIENCE, joined) => outcome.unwrap(),
        }
        assert_eq!(between.spliced() > 0, is_spliced);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(endpoint.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn attack_an_urgent_byte_amid_bulk_neither_ends_nor_stops_what_follows() {
    let between = Between::new(Pipes::default());
    between
        .joins(async |mut client, mut endpoint| {
            passes(&mut client, &mut endpoint, MIB).await;
            SockRef::from(&client).send_out_of_band(b"!").unwrap();
            let says = body(MIB, 1);
            let (_, heard) = tokio::join!(talks(&mut client, &says), talks(&mut endpoint, b""));
            assert!(heard == says, "{} of {MIB} bytes", heard.len());
        })
        .await;
}

/// As many steps of this turn's budget.
fn spend(steps: usize, cx: &mut Context<'_>) -> Poll<()> {
    for _ in 0..steps {
        ready!(poll_proceed(cx)).made_progress();
    }
    Poll::Ready(())
}

/// How many steps there are in one.
async fn budget() -> usize {
    yield_now().await;
    let mut steps = 0;
    poll_fn(|cx| {
        while has_budget_remaining() && spend(1, cx).is_ready() {
            steps += 1;
        }
        Poll::Ready(())
    })
    .await;
    yield_now().await;
    steps
}

/// Whoever sends all the time would use up all that a turn has, each time.
#[tokio::test]
async fn bug_who_sends_without_a_pause_does_not_silence_the_other_side() {
    // To read a piece, and to write it.
    let steps = budget().await - 2;
    for is_client_busy in [true, false] {
        let between = Between::new(Pipes::none());
        let ((mut client, near), (far, mut endpoint)) = (pair().await, pair().await);
        let (busy, quiet) =
            if is_client_busy { (&client, &mut endpoint) } else { (&endpoint, &mut client) };
        busy.writable().await.unwrap();
        while busy.try_write(&[0; COPIED_BYTES_MAX]).is_ok() {}
        quiet.write_all(b"!").await.unwrap();
        tokio::try_join!(near.readable(), far.readable()).unwrap();
        let mut joined = pin!(join(between.means(), near, far, IDLE_MS));
        let mut turns = 0;
        poll_fn(|cx| {
            ready!(spend(steps, cx));
            assert!(joined.as_mut().poll(cx).is_pending());
            turns += 1;
            let is_heard = SockRef::from(busy).peek(&mut [MaybeUninit::uninit()]).is_ok();
            assert!(is_heard || turns < 8, "the client is busy: {is_client_busy}");
            cx.waker().wake_by_ref();
            if is_heard { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
