//! Whether requests are traced (enable-opentelemetry).

use std::sync::Arc;

use super::{
    template::Template,
    value::{Read, Unread, flag},
};
use crate::traces::Sampling;

/// What an Ingress says of traces. The defaults are ingress-nginx's.
#[derive(Clone, Debug)]
pub(crate) struct Tracing {
    is_on: bool,
    trusts: bool,
    name: Option<Template>,
    /// `None`: there is no collector.
    sampling: Option<Sampling>,
}

/// How a route's requests are traced.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// What requests say of a trace is believed.
    pub(crate) trusts: bool,
    /// Of spans; `None`: method and path of the rule.
    pub(crate) name: Option<Template>,
    pub(crate) sampling: Sampling,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { is_on: false, trusts: true, name: None, sampling: None }
    }
}

impl Tracing {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "enable-opentelemetry" => flag(value).map(|flag| self.is_on = flag),
            "opentelemetry-trust-incoming-span" => flag(value).map(|flag| self.trusts = flag),
            "opentelemetry-operation-name" if value.is_empty() => {
                self.name = None;
                Ok(())
            }
            "opentelemetry-operation-name" => Template::parse(value)
                .map(|template| self.name = Some(template))
                .map_err(|reason| Unread::Bad(reason.into())),
            _ => return None,
        })
    }

    /// There is a collector.
    pub(super) fn sample(&mut self, sampling: Sampling) {
        self.sampling = Some(sampling);
    }

    /// It is on, and nobody listens.
    pub(super) fn is_unheard(&self) -> bool {
        self.is_on && self.sampling.is_none()
    }

    pub(super) fn traced(&self) -> Option<Arc<Traced>> {
        let sampling = self.sampling.filter(|_| self.is_on)?;
        Some(Arc::new(Traced { trusts: self.trusts, name: self.name.clone(), sampling }))
    }
}
