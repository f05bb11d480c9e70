//! Annotations, `NAME=VALUE`, and `secret:` and `map:` entries of what they name, NUL between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::annotations(bytes));
