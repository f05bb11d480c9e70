//! The Ingress role: routes from snapshots, listeners, TLS, admission of requests, upstream pools.
//!
//! One way through: a snapshot goes through the [`routes::Planner`] to immutable [`routes::Routes`]
//! and certificates; data threads read the newest of both for each request and handshake. Endpoints
//! are swapped beside the routes, so a pod's change rebuilds nothing.
#![forbid(unsafe_code)]

mod access_log;
pub mod admission;
mod authority;
mod codec;
mod config;
mod cookies;
mod counters;
mod digest;
mod error;
pub mod explain;
mod expression;
mod fair;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod host;
mod kinds;
mod limiter;
mod matcher;
mod names;
mod networks;
mod passwords;
pub mod path;
pub mod proxy_protocol;
mod record;
pub mod routes;
mod running;
mod series;
mod serve;
pub mod sni;
mod streams;
mod timer;
mod tls;
mod traces;

pub use access_log::{AccessLog, LogFormat, LogTarget};
pub use config::{
    Blocked, Compression, ForwardedHeaders, HolderOf, Hsts, IngressConfig, Limits, Matching,
    ProxyProtocol, Timeouts, TlsSettings,
};
pub use counters::{Counters, Refused, Uncopied};
pub use error::IngressError;
pub use kinds::KINDS;
pub use matcher::{TextMatch, TextMatches};
pub use networks::Networks;
pub use routes::{
    ANNOTATIONS, Annotation, ConfigOption, Finding, OPTIONS, RouteRow, Severity, Support,
};
pub use running::{Running, Status, start};
pub use series::{
    DURATION_BOUNDS_US, Histogram, LENGTH_BOUNDS, RequestKind, RouteCounters, SERIES_ROUTES_MAX,
    SIZE_BOUNDS, SeriesLabels,
};
pub use tls::{Certificates, Expiry, Fallback, TlsWish, UpstreamTls};
pub use traces::Traces;
