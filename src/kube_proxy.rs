//! What somebody who ran kube-proxy finds again: its configuration file, its answers, its metrics,
//! its sysctls; and how to take away what it left.

pub(crate) mod changes;
pub(crate) mod config;
pub(crate) mod configz;
pub(crate) mod duration;
mod histogram;
pub(crate) mod leftovers;
pub(crate) mod progress;
pub(crate) mod sysctls;
