//! Asks a running agent over its admin socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    ops::ControlFlow,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::de::DeserializeOwned;

use crate::probe;

/// Where an agent listens and commands ask, unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/fairlead/admin.sock";

/// Longest wait for an answer: planning a large cluster takes a part of that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A cluster of 100,000 Services is below it.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

pub(crate) const NOT_UNDERSTOOD: &str =
    "the agent's answer is not understood: use the command of the agent's own version";

/// When nobody wants to hear more: then, or when standard output has no reader any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    /// Also when standard input ends.
    pub(crate) input_ends: bool,
}

/// Which agent.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Admin {
    /// The agent's --admin-socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = DEFAULT_SOCKET,
        env = "FAIRLEAD_ADMIN_SOCKET"
    )]
    pub(crate) admin_socket: PathBuf,
}

impl Admin {
    /// What the agent answers to a question.
    ///
    /// # Errors
    /// Nobody listens, or the agent cannot answer; in one line with the cure.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        page: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let mut stream = self.connect()?;
        let (status, body) =
            probe::get(&mut stream, "fairlead", &path(page, query), ANSWER_BYTES_MAX)
                .with_context(|| format!("the agent at {}", self.admin_socket.display()))?;
        match status {
            200 => serde_json::from_str(&body).context(NOT_UNDERSTOOD),
            status => Err(refusal(status, &body)),
        }
    }

    /// Hands each line of an answer without end to `take`, until that breaks off or `until`.
    ///
    /// # Errors
    /// As for [`Admin::ask`], those of `take`, and the agent's end.
    pub(crate) fn follow(
        &self,
        page: &str,
        query: &[(&str, &str)],
        until: Until,
        mut take: impl FnMut(&str) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let agent = || format!("the agent at {}", self.admin_socket.display());
        let mut stream = self.connect()?;
        // By HTTP/1.0 the body is not cut into chunks: it ends with the connection.
        let request = format!("GET {} HTTP/1.0\r\nHost: fairlead\r\n\r\n", path(page, query));
        stream.write_all(request.as_bytes()).context("sending a request")?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        read_line(&mut reader, &mut line).with_context(agent)?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status: u16 = status.context("this is no HTTP answer")?;
        while !line.is_empty() {
            read_line(&mut reader, &mut line).with_context(agent)?;
        }
        if status != 200 {
            read_line(&mut reader, &mut line).with_context(agent)?;
            return Err(refusal(status, &line));
        }
        while reader.buffer().contains(&b'\n') || until.is_heard(reader.get_ref())? {
            if !read_line(&mut reader, &mut line).with_context(agent)? {
                bail!(
                    "the agent has ended, or has ended this because nothing was read for a minute"
                )
            }
            if take(&line)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn connect(&self) -> anyhow::Result<UnixStream> {
        let stream = UnixStream::connect(&self.admin_socket)
            .map_err(|error| nobody(&self.admin_socket, &error))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(stream)
    }
}

impl Until {
    /// Waits until the agent says something; `false`: nobody wants to hear it any more.
    fn is_heard(&self, agent: &UnixStream) -> anyhow::Result<bool> {
        let (input, output) = (io::stdin(), io::stdout());
        loop {
            let left = self.at.saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left.min(ANSWER_TIMEOUT))?;
            // Of standard output nothing is asked: then only errors are told.
            let mut all = [
                PollFd::new(agent.as_fd(), PollFlags::POLLIN),
                PollFd::new(output.as_fd(), PollFlags::empty()),
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
            ];
            let (watched, _) = all.split_at_mut(if self.input_ends { 3 } else { 2 });
            match poll(watched, wait) {
                Err(Errno::EINTR) => continue,
                result => result.context("waiting for the agent")?,
            };
            let [said, unread, typed] = all.map(|fd| fd.any().unwrap_or_default());
            if left.is_zero() || unread || (typed && is_at_end(&input)?) {
                return Ok(false);
            }
            if said {
                return Ok(true);
            }
            if !typed && left > ANSWER_TIMEOUT {
                bail!("the agent says nothing any more: `fairlead status` asks how it fares");
            }
        }
    }
}

/// What is typed has no meaning.
fn is_at_end(mut input: &io::Stdin) -> io::Result<bool> {
    Ok(input.read(&mut [0; 512])? == 0)
}

/// The next line without its end; `false`: there is none.
fn read_line(reader: &mut BufReader<UnixStream>, line: &mut String) -> io::Result<bool> {
    line.clear();
    let is_there = reader.read_line(line)? > 0;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(is_there)
}

fn path(page: &str, query: &[(&str, &str)]) -> String {
    if query.is_empty() {
        return format!("/v1/{page}");
    }
    let mut form = form_urlencoded::Serializer::new(String::new());
    format!("/v1/{page}?{}", form.extend_pairs(query).finish())
}

fn refusal(status: u16, body: &str) -> anyhow::Error {
    match status {
        404 if body.starts_with("no such page") => {
            anyhow!("the agent is of a version that does not answer this: upgrade it")
        }
        _ => anyhow!("{}", body.trim_end()),
    }
}

fn nobody(socket: &Path, error: &std::io::Error) -> anyhow::Error {
    let shown = socket.display();
    let cure = "start `fairlead agent`, name its socket with --admin-socket, or in a cluster run \
                this inside an agent's pod (kubectl -n NAMESPACE exec POD -- fairlead ...)";
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => anyhow!(
            "no rights to {shown}: become root or a member of the group that owns the socket"
        ),
        std::io::ErrorKind::ConnectionRefused => {
            anyhow!("no agent listens on {shown}, which one left behind: {cure}")
        }
        _ => anyhow!("no agent listens on {shown} ({error}): {cure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_agent_is_one_line_with_socket_and_cure() {
        let admin = Admin { admin_socket: "/nonexistent/admin.sock".into() };
        let error = admin.ask::<serde_json::Value>("status", &[]).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        for part in ["/nonexistent/admin.sock", "fairlead agent", "--admin-socket", "kubectl"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
