//! ingress-nginx's ConfigMap, `NAME=VALUE`, NUL between them; two NUL between its contents in turn.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fairlead_ingress::fuzzing::options(bytes));
