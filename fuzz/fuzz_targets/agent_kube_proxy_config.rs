//! A KubeProxyConfiguration.
//!
//! A binary has no library to call: its files are taken in here.
#![no_main]
#![allow(dead_code, reason = "only the reading is called")]

#[path = "../../src/kube_proxy/config/fuzzing.rs"]
mod fuzzing;
#[path = "../../src/kube_proxy"]
mod kube_proxy {
    pub(crate) mod config;
    pub(crate) mod duration;
}

/// What the agent's own says of a file.
mod exit {
    #[derive(Debug)]
    pub(crate) struct BadConfiguration(pub(crate) String);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::config(bytes));
