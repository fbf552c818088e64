#[mobula::actor]
struct Counter;

fn main() {
    let _ = Counter;
}
