//! A byte of how it comes, then a client's HTTP/2 connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::h2_frames(bytes));
