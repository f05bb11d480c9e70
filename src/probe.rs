//! `fairlead probe`: questions asked from inside a container that has no other program; exit
//! status 0 is yes.
//!
//! On a node's own network a port only tells that *some* process answers: the agent before, the
//! next one, kube-proxy. A Unix socket in the container's own file system is nobody else's.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    admin::Admin,
    load::target::{Scheme, Target},
};

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries of a question that may wait for its answer.
const TRY_INTERVAL: Duration = Duration::from_millis(250);
/// More of an answer than that is not looked at.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The questions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Probe {
    /// Does the agent of this container answer?
    Live {
        #[command(flatten)]
        admin: Admin,
        #[command(flatten)]
        patience: Patience,
    },
    /// Do all its roles do their work?
    Ready {
        #[command(flatten)]
        admin: Admin,
        #[command(flatten)]
        patience: Patience,
    },
    /// Does this name exist?
    Name {
        /// As a program would give it to getaddrinfo
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Does a TCP connection get established?
    Connect {
        /// HOST:PORT
        target: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Does this http:// URL answer with this status?
    Http {
        /// The URL
        url: Target,
        /// The only good status
        #[arg(long, default_value_t = 200)]
        status: u16,
        #[command(flatten)]
        patience: Patience,
    },
}

/// How long to go on asking.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Patience {
    /// Ask again until the answer is yes, for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    within: u64,
}

/// Asks one question.
pub(crate) fn run(probe: &Probe) -> anyhow::Result<ExitCode> {
    let found = match probe {
        Probe::Live { admin, patience } => {
            patience.ask(|| ask_agent(&admin.admin_socket, "/livez"))
        }
        Probe::Ready { admin, patience } => {
            patience.ask(|| ask_agent(&admin.admin_socket, "/readyz"))
        }
        Probe::Name { name, patience } => patience.ask(|| look_up(name)),
        Probe::Connect { target, patience } => patience.ask(|| connect(target)),
        Probe::Http { url, status, patience } => patience.ask(|| fetch(url, *status)),
    };
    crate::exit::print(&format!("{}\n", found?))
}

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "there is no runtime to block")]
    fn ask<T>(self, question: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let end = Instant::now() + Duration::from_secs(self.within);
        loop {
            match question() {
                Err(_) if Instant::now() < end => std::thread::sleep(TRY_INTERVAL),
                answer => return answer,
            }
        }
    }
}

/// The page in one line: it ends up in an event of the pod.
fn ask_agent(socket: &Path, page: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no agent answers at {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let (status, body) = get(&mut stream, "fairlead", page, ANSWER_BYTES_MAX)?;
    let body = body.trim_end().replace('\n', "; ");
    if status != 200 {
        bail!("{body}");
    }
    Ok(body)
}

fn look_up(name: &str) -> anyhow::Result<String> {
    let found = (name, 0).to_socket_addrs().with_context(|| format!("looking up {name}"))?;
    let mut addresses: Vec<String> = found.map(|found| found.ip().to_string()).collect();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("{name} has no address");
    }
    Ok(format!("{name} is {}", addresses.join(", ")))
}

fn connect(target: &str) -> anyhow::Result<String> {
    let addresses = target.to_socket_addrs().with_context(|| format!("looking up {target}"))?;
    let stream = connect_first(addresses, target)?;
    Ok(format!("{target} answers as {}", stream.peer_addr()?))
}

fn fetch(url: &Target, expected: u16) -> anyhow::Result<String> {
    let Target { scheme: Scheme::Http, host, port, path, authority } = url else {
        bail!("only http:// URLs can be probed");
    };
    let addresses = (host.as_str(), *port);
    let addresses = addresses.to_socket_addrs().with_context(|| format!("looking up {host}"))?;
    let mut stream = connect_first(addresses, authority)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let (status, _) = get(&mut stream, authority, path, ANSWER_BYTES_MAX)?;
    if status != expected {
        bail!("http://{authority}{path} answers {status}, not {expected}");
    }
    Ok(format!("http://{authority}{path} answers {status}"))
}

fn connect_first(
    addresses: impl Iterator<Item = SocketAddr>,
    target: &str,
) -> anyhow::Result<TcpStream> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    let error = last.with_context(|| format!("{target} has no address"))?;
    Err(error).with_context(|| format!("connecting to {target}"))
}

/// Status and body of a GET; the server is told to close.
pub(crate) fn get(
    stream: &mut (impl Read + Write),
    authority: &str,
    path: &str,
    bytes_max: u64,
) -> anyhow::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("sending a request")?;
    let mut answer = Vec::new();
    stream.take(bytes_max).read_to_end(&mut answer).context("waiting for the answer")?;
    parse(&String::from_utf8_lossy(&answer)).context("this is no HTTP answer")
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener, thread};

    use super::*;

    fn answer_once(mut stream: impl Read + Write, answer: &str) {
        let mut asked = [0; 512];
        assert!(stream.read(&mut asked).unwrap() > 0);
        stream.write_all(answer.as_bytes()).unwrap();
    }

    #[test]
    fn the_agents_own_words_reach_whoever_asked_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nproxy: ready\n", Ok("proxy: ready")),
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\nproxy: failed: no rights\ndns: ready\n",
                Err("proxy: failed: no rights; dns: ready"),
            ),
            ("nonsense", Err("this is no HTTP answer")),
        ];
        let server = thread::spawn(move || {
            for (answer, _) in answers {
                answer_once(listener.accept().unwrap().0, answer);
            }
        });
        for (_, expected) in answers {
            let found = ask_agent(&path, "/readyz").map_err(|error| error.to_string());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
        }
        server.join().unwrap();
    }

    #[test]
    fn a_missing_agent_is_named_by_its_socket() {
        let error = ask_agent(Path::new("/nonexistent/admin.sock"), "/livez").unwrap_err();
        assert_eq!(error.to_string(), "no agent answers at /nonexistent/admin.sock");
    }

    #[test]
    fn another_status_is_no() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Target = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let server = thread::spawn(move || {
            for _ in 0..2 {
                answer_once(listener.accept().unwrap().0, "HTTP/1.1 404 Not Found\r\n\r\n");
            }
        });
        assert!(fetch(&url, 404).is_ok());
        assert!(fetch(&url, 200).unwrap_err().to_string().ends_with("answers 404, not 200"));
        server.join().unwrap();
    }

    #[test]
    fn a_question_with_patience_is_asked_again() {
        let tries = std::cell::Cell::new(0);
        let ask = || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { bail!("not yet") } else { Ok(()) }
        };
        assert!(Patience { within: 0 }.ask(ask).is_err());
        assert!(Patience { within: 60 }.ask(ask).is_ok());
    }
}
