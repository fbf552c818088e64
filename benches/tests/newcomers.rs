//! Who comes to a node's port while strangers flood it.

use std::process::Command;

#[test]
fn an_honest_newcomer_comes_in_through_a_flood_of_strangers() {
    // The whole flood and its goals: `src/bin/flood`. Other tests run beside this one, so time has room here.
    let mut flood = Command::new(env!("CARGO_BIN_EXE_flood"));
    flood.args("--seconds 3 --half-open 1500 --slow 200 --handshakes 100 --join-millis 20000".split(' '));
    let ended = flood.output().expect("it can be started");
    let (said, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    println!("{said}");
    assert!(ended.status.success(), "{said}\n{errors}");
}
