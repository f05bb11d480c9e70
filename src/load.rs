//! Steady traffic and what became of it: one request a connection at a fixed rate, or long-lived
//! connections.
//!
//! One thread. Prints one JSON [`report::Report`] a line: at the start, every second, and a
//! last one with `done`. SIGTERM ends it like the end of its time does.

mod histogram;
mod paced;
mod question;
pub(crate) mod report;
mod request;
mod streams;
pub(crate) mod target;
mod tls;

use std::{cell::RefCell, path::PathBuf, process::ExitCode, rc::Rc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use self::{report::Recorder, request::Caller, target::Target};

/// One line of report each.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Flags of `fairlead world load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// <http://…>, <https://…>, udp://HOST:PORT or dns://SERVER/NAME; a host's name is looked up
    /// once, at the start
    #[arg(long)]
    url: Target,
    /// Connect there instead of to the host of the URL
    #[arg(long, value_name = "ADDR")]
    to: Option<std::net::SocketAddr>,
    /// Have the system's resolver look the host up for every connection
    #[arg(long, conflicts_with = "to")]
    look_up_each: bool,
    /// What a datagram to udp:// says
    #[arg(long, value_name = "TEXT", default_value = "who is there?")]
    send: String,
    /// Trust only certificates signed by this one (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// New connections (or datagrams) a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Instead: so many connections that stay open, each with ten requests a second
    #[arg(long, conflicts_with = "rate")]
    streams: Option<u32>,
    /// End after so many requests
    #[arg(long)]
    count: Option<u64>,
    /// End after so many seconds (default: when standard input closes)
    #[arg(long)]
    seconds: Option<f64>,
    /// The only good status
    #[arg(long, default_value_t = 200)]
    expect: u16,
    /// Begin when a request has succeeded, and give up if none has for so long
    #[arg(long, value_name = "MILLISECONDS")]
    wait_ms: Option<u64>,
}

/// Runs to its end; exit status 0 says only that the reports are complete.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, drive(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn drive(args: Args) -> anyhow::Result<()> {
    let address = match args.to {
        Some(address) => Some(address),
        None if args.look_up_each => None,
        None => Some(args.url.resolve()?),
    };
    let tls = args.url.is_tls().then(|| tls::connector(args.ca.as_deref())).transpose()?;
    let caller = Rc::new(Caller {
        target: args.url.clone(),
        address,
        tls,
        expect: args.expect,
        send: args.send.clone(),
    });
    if let Some(wait_ms) = args.wait_ms {
        request::until_good(&caller, Duration::from_millis(wait_ms)).await?;
    }

    let recorder = Rc::new(RefCell::new(Recorder::default()));
    // Whoever waits for traffic to flow reads this line.
    print_line(&recorder.borrow().report(false))?;
    let stop = stop_token(&args)?;
    let reporter = tokio::task::spawn_local(report_each_second(recorder.clone(), stop.clone()));
    match args.streams {
        Some(streams) => streams::run(&caller, streams, &recorder, &stop).await,
        None => paced::run(&caller, args.rate, args.count, &recorder, &stop).await,
    }
    stop.cancel();
    reporter.await??;
    let last = recorder.borrow().report(true);
    print_line(&last)
}

/// Cancelled by SIGTERM, by time, or by the end of standard input when neither time nor count was
/// given.
fn stop_token(args: &Args) -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (token, terminated) = (stop.clone(), stop.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::task::spawn_local(async move {
        terminate.recv().await;
        terminated.cancel();
    });
    if let Some(seconds) = args.seconds {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            token.cancel();
        });
    } else if args.count.is_none() {
        tokio::task::spawn_local(async move {
            let mut rest = Vec::new();
            // Whether it ended or broke, nobody is there to say more.
            drop(tokio::io::stdin().read_to_end(&mut rest).await);
            token.cancel();
        });
    }
    Ok(stop)
}

async fn report_each_second(
    recorder: Rc<RefCell<Recorder>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(REPORT_INTERVAL);
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let report = recorder.borrow().report(false);
        print_line(&report)?;
    }
}

fn print_line(report: &report::Report) -> anyhow::Result<()> {
    crate::exit::print(&format!("{}\n", serde_json::to_string(report)?))?;
    Ok(())
}
