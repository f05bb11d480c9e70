//! A byte of what was asked, then an endpoint's HTTP/1 connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::answer(bytes));
