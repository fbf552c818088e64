struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    fn finish(self) -> i64 {
        1
    }

    fn id(&self) -> u64 {
        1
    }
}

fn main() {}
