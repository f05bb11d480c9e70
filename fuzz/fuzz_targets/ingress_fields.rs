//! A byte of circumstances, then fields.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::fields(bytes));
