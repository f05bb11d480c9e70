//! `KIND DOCUMENT`, as the API server sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_state::fuzzing::objects(bytes));
