//! What commands tell: each report is data with a stable shape (`-o json`) and a text for people.

pub(crate) mod endpoints;
pub(crate) mod names;
pub(crate) mod part;
pub(crate) mod routes;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod traffic;
