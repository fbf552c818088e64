struct Counter;

#[mobula::actor]
impl Counter {
    fn new(_name: &str) -> Self {
        Counter
    }

    fn rename(&mut self, _name: &str) {}

    fn sum(&self, parts: &[i64]) -> i64 {
        parts.iter().sum()
    }

    fn merge(&mut self, _other: Option<&Counter>) {}

    // Left alone.
    #[local]
    fn inspect(&self, _name: &str) {}
}

fn main() {}
