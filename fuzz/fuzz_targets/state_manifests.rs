//! A file of manifests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_state::fuzzing::manifests(bytes));
