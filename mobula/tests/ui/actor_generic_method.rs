struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    fn increment<N: Into<i64>>(&mut self, by: N) -> i64 {
        by.into()
    }
}

fn main() {}
