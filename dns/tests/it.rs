//! The DNS role over real sockets, with a zone built through the store.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub, reason = "a test program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise, in its helpers too"
)]

#[path = "it/alias.rs"]
mod alias;
#[path = "it/autopath.rs"]
mod autopath;
#[path = "it/bufsize.rs"]
mod bufsize;
#[path = "it/cached.rs"]
mod cached;
#[path = "it/cluster_set.rs"]
mod cluster_set;
#[path = "it/contract.rs"]
mod contract;
#[path = "it/corefile.rs"]
mod corefile;
#[path = "it/cve.rs"]
mod cve;
#[path = "it/external.rs"]
mod external;
#[path = "it/forward.rs"]
mod forward;
#[path = "it/forward_options.rs"]
mod forward_options;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/listening.rs"]
mod listening;
#[path = "it/metrics.rs"]
mod metrics;
#[path = "it/overload.rs"]
mod overload;
#[path = "it/plugins.rs"]
mod plugins;
#[path = "it/preferred.rs"]
mod preferred;
#[path = "it/relist.rs"]
mod relist;
#[path = "it/replies.rs"]
mod replies;
#[path = "it/silent.rs"]
mod silent;
#[path = "it/sockets.rs"]
mod sockets;
#[path = "it/takeover.rs"]
mod takeover;
#[path = "it/tls.rs"]
mod tls;
#[path = "it/verified_pods.rs"]
mod verified_pods;
#[path = "it/waiting.rs"]
mod waiting;
#[path = "it/weighted.rs"]
mod weighted;
#[path = "it/world.rs"]
mod world;
#[path = "it/zonal.rs"]
mod zonal;
