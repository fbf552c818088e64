struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    async fn increment(&mut self, by: i64) -> i64 {
        by
    }
}

fn main() {}
