//! What integration tests share.

pub(crate) mod agent;
pub(crate) mod apiserver;
pub(crate) mod browser;
pub(crate) mod certificate;
pub(crate) mod cluster;
pub(crate) mod manifests;
pub(crate) mod mounted;
pub(crate) mod page;
pub(crate) mod world;
