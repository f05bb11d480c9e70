//! What a balancer sends first.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::proxy_protocol(bytes));
