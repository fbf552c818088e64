struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    async fn look_up(&self, by: i64) -> i64 {
        by
    }
}

fn main() {}
