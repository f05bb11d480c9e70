//! What is written to the API server: Events, the addresses of Ingresses, and the Lease that says who
//! of several writes them. Everything else is only read.

mod addresses;
mod event;
mod lease;
mod peers;

use std::{fmt, future::Future, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use tokio::time::timeout;

pub use addresses::{Address, of_service};
pub use event::{CLUSTER_NAMESPACE, Event, Weight};
pub use lease::{Leadership, LeaseOptions};
pub use peers::Peers;

use crate::source::kubernetes::api::ApiError;

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Who manages the fields that are written.
const FIELD_MANAGER: &str = "fairlead";

/// Writes with the credentials that the source reads with.
#[derive(Clone)]
pub struct Writer {
    client: Client,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// RBAC does not allow it.
    #[error("{what}: the API server says: {message}; grant this account {right} (RBAC)")]
    Forbidden {
        /// What was tried.
        what: &'static str,
        /// The missing right, as `VERB on RESOURCE`.
        right: &'static str,
        /// The server's words.
        message: String,
    },
    /// The object is not there (any more).
    #[error("{what}: there is no such object")]
    Gone {
        /// What was tried.
        what: &'static str,
    },
    /// Somebody else has changed the object meanwhile.
    #[error("{what}: somebody else has changed it")]
    Conflict {
        /// What was tried.
        what: &'static str,
    },
    /// No answer, or another one.
    #[error("{what}: {reason}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// In one line.
        reason: String,
    },
}

/// What is tried, and the right it takes.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    what: &'static str,
    right: &'static str,
}

impl Writer {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl Attempt {
    async fn at<T>(
        self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let Self { what, right } = self;
        let answer = timeout(ANSWER_TIMEOUT, request).await;
        let error = match answer.map_err(|_| ApiError::Silent(ANSWER_TIMEOUT)) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => ApiError::from(error),
            Err(error) => error,
        };
        Err(match error {
            ApiError::Status { code: 403, message } => {
                WriteError::Forbidden { what, right, message }
            }
            ApiError::Status { code: 404, .. } => WriteError::Gone { what },
            ApiError::Status { code: 409, .. } => WriteError::Conflict { what },
            error => WriteError::Failed { what, reason: error.to_string() },
        })
    }
}

impl WriteError {
    /// Trying again does not help before somebody has changed RBAC.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, WriteError::Forbidden { .. })
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// A name as kube-rs wants it.
fn owned(name: &str) -> Option<String> {
    Some(name.to_owned())
}
