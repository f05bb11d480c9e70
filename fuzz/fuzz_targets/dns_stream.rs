//! A TCP connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_dns::fuzzing::stream(bytes));
