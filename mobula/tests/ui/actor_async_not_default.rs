struct Counter {
    count: i64,
}

#[mobula::actor]
impl Counter {
    fn new(count: i64) -> Self {
        Counter { count }
    }

    async fn increment(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }
}

fn main() {}
