//! A client's message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_dns::fuzzing::question(bytes));
