#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mobula_fuzz_targets::target("packed").expect("a target")(data));
