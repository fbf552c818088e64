//! Misuse of the macros fails with a message that says what to do instead.
//!
//! Beside each case in `tests/ui` lies what the compiler prints. After a deliberate change of the texts:
//! `TRYBUILD=overwrite cargo test -p mobula --test ui`, and read the difference.

#[test]
fn misuse_says_what_to_do() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/actor_*.rs");
    cases.compile_fail("tests/ui/main_*.rs");
    cases.compile_fail("tests/ui/message_*.rs");
    cases.compile_fail("tests/ui/task_*.rs");
}
