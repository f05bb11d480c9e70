//! What is written to the API server: Events, the addresses of Ingresses, and the Lease that says who
//! of several writes them. Everything else is only read.

mod addresses;
mod event;
mod lease;
mod peers;

use std::{fmt, future::Future, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, core::Status};
use tokio::time::timeout;

pub use addresses::{Address, Corrected, Placing, of_service};
pub use event::{CLUSTER_NAMESPACE, Event, Weight};
pub use lease::{Leadership, LeaseOptions};
pub use peers::Peers;

use crate::{model::Key, source::kubernetes::api::ApiError};

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Who manages the fields that are written.
const FIELD_MANAGER: &str = "fairlead";
/// The cause that NamespaceLifecycle gives (k8s.io/api/core/v1: NamespaceTerminatingCause).
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// Writes with the credentials that the source reads with.
#[derive(Clone)]
pub struct Writer {
    client: Client,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// RBAC does not allow it, whatever the object.
    #[error("{what}: the API server says: {message}; grant this account {right} (RBAC)")]
    Forbidden {
        /// What was tried.
        what: &'static str,
        /// The missing right, as `VERB on RESOURCE`.
        right: &'static str,
        /// The server's words.
        message: String,
    },
    /// The object is not there (any more), or its namespace ends.
    #[error("{what}: there is no such object, or its namespace ends")]
    Gone {
        /// What was tried.
        what: &'static str,
    },
    /// The own pod is not there, so nobody knows who else serves.
    #[error("the own pod {pod} is not there: --pod names the pod that this agent runs in")]
    NoPod {
        /// As `--pod` says it.
        pod: Key,
    },
    /// Somebody else has changed the object meanwhile.
    #[error("{what}: somebody else has changed it")]
    Conflict {
        /// What was tried.
        what: &'static str,
    },
    /// The API server says no to this one: an admission webhook or policy refuses it, or fails at it.
    #[error("{what}: {reason}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// In one line.
        reason: String,
    },
    /// There is no answer, or one that all else would get, too.
    #[error("{what}: {reason}")]
    Unavailable {
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
        let error = match timeout(ANSWER_TIMEOUT, request).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(kube::Error::Api(status))) => return Err(self.refused(status)),
            Ok(Err(error)) => ApiError::from(error),
            Err(_) => ApiError::Silent(ANSWER_TIMEOUT),
        };
        Err(WriteError::Unavailable { what: self.what, reason: error.to_string() })
    }

    fn refused(self, status: Box<Status>) -> WriteError {
        let Self { what, right } = self;
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        let is_ending = causes.any(|cause| cause.reason == NAMESPACE_TERMINATING);
        match status.code {
            403 if is_ending => return WriteError::Gone { what },
            403 if is_of_rights(&status.message) => {
                return WriteError::Forbidden { what, right, message: status.message };
            }
            404 => return WriteError::Gone { what },
            409 => return WriteError::Conflict { what },
            _ => {}
        }
        // Credentials, priority and fairness, a balancer without a server behind it.
        let is_of_all = matches!(status.code, 401 | 429 | 502..=504);
        let reason = ApiError::from(kube::Error::Api(status)).to_string();
        match is_of_all {
            true => WriteError::Unavailable { what, reason },
            false => WriteError::Refused { what, reason },
        }
    }
}

/// Whether a 403 is of the authorizer (apiserver's responsewriters.ForbiddenStatusError): those of
/// admission are about the one object and no matter of rights.
fn is_of_rights(message: &str) -> bool {
    message.contains("User \"") && message.contains("\" cannot ")
}

impl WriteError {
    /// Trying again does not help before somebody has changed RBAC.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, WriteError::Forbidden { .. })
    }

    /// Whatever else is written fares no better for the moment.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, WriteError::Unavailable { .. })
    }

    /// It is about no object in particular: another one of the same kind fares no better.
    pub fn is_of_all(&self) -> bool {
        self.is_forbidden() || self.is_unavailable()
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

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::model::{Kind, ObjectRef};

    /// Of a server that lists the object, by its name alone, and answers with this when an Event is made.
    fn writer(answer: Value) -> Writer {
        let answer = std::sync::Arc::new(answer);
        let serve = move |request: Request<Body>| {
            let answer = answer.clone();
            async move {
                let listed = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
                    "items": [{"metadata": {"name": "web", "namespace": "shop", "uid": "1"}}],
                });
                let uri = "/api/v1/namespaces/shop/configmaps?&fieldSelector=metadata.name%3Dweb";
                let (code, body) = match request.method().as_str() {
                    "GET" => {
                        assert_eq!(request.uri(), uri, "a right to get is not there");
                        (200, &listed)
                    }
                    _ => (answer["code"].as_u64().unwrap_or(201), &*answer),
                };
                let code = u16::try_from(code).expect("a status code");
                let response = Response::builder().status(code);
                response.body(Body::from(body.to_string().into_bytes())).map_err(BoxError::from)
            }
        };
        Writer::new(Client::new(service_fn(serve), "default"))
    }

    fn failure(code: u16, message: &str, cause: &str) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": "Forbidden", "message": message,
            "details": {"causes": [{"reason": cause, "message": "namespace shop is being terminated"}]},
        })
    }

    #[tokio::test]
    async fn bug_a_namespace_that_ends_and_a_webhook_that_refuses_were_taken_for_missing_rights() {
        let object = ObjectRef { kind: Kind::ConfigMap, key: Key::new("shop", "web") };
        let event = Event {
            object: &object,
            weight: Weight::Warning,
            reason: "Refused",
            action: "Route",
            note: "",
            controller: "fairlead.io/ingress",
            instance: "node1",
        };
        let ending = "events.events.k8s.io \"web.1\" is forbidden: unable to create new content in \
                      namespace shop because it is being terminated";
        let no_right = "events.events.k8s.io is forbidden: User \"a\" cannot create resource \
                        \"events\" in API group \"events.k8s.io\" in the namespace \"shop\"";
        let denied = "admission webhook \"policy.example\" denied the request: no";
        for (answer, expected) in [
            (json!({"metadata": {"name": "web.1"}}), "written"),
            (failure(403, ending, NAMESPACE_TERMINATING), "gone"),
            (failure(403, no_right, ""), "forbidden"),
            (failure(403, denied, ""), "refused"),
            (failure(400, denied, ""), "refused"),
            (failure(500, "failed calling webhook", ""), "refused"),
            (failure(404, "namespaces \"shop\" not found", ""), "gone"),
            (failure(409, "there already", ""), "written"),
            (failure(401, "Unauthorized", ""), "unavailable"),
            (failure(429, "too many requests", ""), "unavailable"),
            (failure(503, "shutting down", ""), "unavailable"),
        ] {
            let said = answer.to_string();
            let found = match writer(answer).event(&event).await {
                Ok(_) => "written",
                Err(WriteError::Gone { .. }) => "gone",
                Err(WriteError::Forbidden { .. }) => "forbidden",
                Err(WriteError::Refused { .. }) => "refused",
                Err(WriteError::Unavailable { .. }) => "unavailable",
                Err(WriteError::Conflict { .. }) => "conflict",
                Err(WriteError::NoPod { .. }) => "no pod",
            };
            assert_eq!(found, expected, "{said}");
        }
    }
}
