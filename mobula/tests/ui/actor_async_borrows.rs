#[derive(Clone)]
struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    async fn name(&self, prefix: &str) -> &str {
        "counter"
    }

    async fn consume(self) {}

    async fn generic<T>(&self, value: T) {}
}

fn main() {}
