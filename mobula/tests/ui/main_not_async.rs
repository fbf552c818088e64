#[mobula::main]
fn main() {}
