struct Counter;

#[mobula::actor]
impl Counter {
    fn get(&self) -> i64 {
        1
    }
}

fn main() {}
