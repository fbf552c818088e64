struct Counter;

#[mobula::actor]
impl Counter {
    fn new(start: i64) -> Result<Self, String> {
        if start < 0 { Err("negative".to_owned()) } else { Ok(Counter) }
    }
}

fn main() {}
