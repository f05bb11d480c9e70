//! Blocks of HPACK, each behind a byte of its length.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::h2_fields(bytes));
