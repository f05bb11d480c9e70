//! Asks a running agent over its admin socket.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::probe;

/// Where an agent listens and commands ask, unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/fairlead/admin.sock";

/// Longest wait for an answer: planning a large cluster takes a part of that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A cluster of 100,000 Services is below it.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

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
        let mut path = format!("/v1/{page}");
        if !query.is_empty() {
            let mut form = form_urlencoded::Serializer::new(String::new());
            let query = form.extend_pairs(query).finish();
            path = format!("{path}?{query}");
        }
        let mut stream = UnixStream::connect(&self.admin_socket)
            .map_err(|error| nobody(&self.admin_socket, &error))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let (status, body) = probe::get(&mut stream, "fairlead", &path, ANSWER_BYTES_MAX)
            .with_context(|| format!("the agent at {}", self.admin_socket.display()))?;
        match status {
            200 => serde_json::from_str(&body).context(
                "the agent's answer is not understood: use the command of the agent's own version",
            ),
            404 if body.starts_with("no such page") => {
                bail!("the agent is of a version that does not answer this: upgrade it")
            }
            _ => Err(anyhow!("{}", body.trim_end())),
        }
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
