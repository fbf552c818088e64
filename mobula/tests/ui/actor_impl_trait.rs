struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    fn add(&mut self, by: impl Into<i64>) -> i64 {
        by.into()
    }

    fn history(&self) -> impl Iterator<Item = i64> {
        [1].into_iter()
    }
}

fn main() {}
