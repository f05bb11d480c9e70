//! Entries left in the maps.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_proxy::fuzzing::maps(bytes));
