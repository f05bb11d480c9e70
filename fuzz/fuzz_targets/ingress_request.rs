//! An HTTP/1 connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::request(bytes));
