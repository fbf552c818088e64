//! Who comes to a node's port while strangers flood it.

use mobula_integration_tests::process::Program;
use mobula_integration_tests::wait::LONG;

#[test]
fn an_honest_newcomer_comes_in_through_a_flood_of_strangers() {
    // The whole flood and its goals: `src/bin/flood`. Other tests run beside this one, so time has room here.
    let flood = "--seconds 3 --half-open 1500 --slow 200 --handshakes 100 --join-millis 8000".split(' ');
    let ended = Program::start(env!("CARGO_BIN_EXE_flood"), flood).end(6 * LONG);
    println!("{}", ended.stdout);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
}
