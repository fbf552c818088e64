#[mobula::task]
fn largest<T: Ord>(parts: Vec<T>) -> Option<T> {
    parts.into_iter().max()
}

fn main() {}
