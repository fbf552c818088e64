//! What the tests' node processes run: a program that knows all their actors and tasks. By itself it does nothing.

use mobula_integration_tests as _;

#[mobula::main]
async fn main() {
    eprintln!("the tests start this program as a node");
}
