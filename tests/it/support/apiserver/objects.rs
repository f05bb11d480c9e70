//! Single objects: read, created, replaced, patched.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::State;

/// A request about one object, or one that makes an object.
pub(super) struct Call {
    method: Method,
    resource: String,
    namespace: String,
    /// Empty where the object is in the body.
    name: String,
    body: Value,
}

impl Call {
    /// `None`: it is about many.
    pub(super) fn of(method: Method, path: &str, body: &[u8]) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let parts = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
        let (namespace, resource, name) = match *parts {
            ["namespaces", namespace, resource, name]
            | ["namespaces", namespace, resource, name, "status"] => (namespace, resource, name),
            ["namespaces", namespace, resource] if method == Method::POST => {
                (namespace, resource, "")
            }
            [resource, name] => ("", resource, name),
            _ => return None,
        };
        let [namespace, resource, name] = [namespace, resource, name].map(str::to_owned);
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
        Some(Self { method, resource, namespace, name, body })
    }

    pub(super) fn resource(&self) -> &str {
        &self.resource
    }

    /// Status, reason and object.
    pub(super) fn answer(mut self, state: &mut State) -> Result<Value, (u16, &'static str)> {
        if self.method == Method::POST {
            self.name = self.body["metadata"]["name"].as_str().unwrap().to_owned();
        }
        let stored = state.storage.get(&self.resource, &self.namespace, &self.name);
        let absent = (StatusCode::NOT_FOUND.as_u16(), "NotFound");
        let mut object = match (self.method, stored) {
            (Method::GET, stored) => return stored.ok_or(absent),
            (Method::POST, Some(_)) => return Err((409, "AlreadyExists")),
            (Method::POST, None) => self.body,
            (_, None) => return Err(absent),
            (Method::PUT, Some(stored)) => {
                let seen = &self.body["metadata"]["resourceVersion"];
                if *seen != stored["metadata"]["resourceVersion"] {
                    return Err((409, "Conflict"));
                }
                self.body
            }
            (Method::PATCH, Some(mut stored)) => {
                let seen = &self.body["metadata"]["resourceVersion"];
                if !seen.is_null() && *seen != stored["metadata"]["resourceVersion"] {
                    return Err((409, "Conflict"));
                }
                merge(&mut stored, &self.body);
                stored
            }
            (method, Some(_)) => panic!("{method} is not served here"),
        };
        object["metadata"]["namespace"] = json!(self.namespace);
        state.storage.put(object.clone());
        Ok(state.storage.get(&self.resource, &self.namespace, &self.name).unwrap_or(object))
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in patch {
        match value {
            Value::Null => _ = target.as_object_mut().unwrap().remove(field),
            value => merge(&mut target[field], value),
        }
    }
}
