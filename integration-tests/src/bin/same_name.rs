//! Registers two actor types under one name, which no node may accept.

use mobula::Cluster;

struct First;

#[mobula::actor(name = "same_name::Counter")]
impl First {
    fn new() -> Self {
        First
    }
}

struct Second;

#[mobula::actor(name = "same_name::Counter")]
impl Second {
    fn new() -> Self {
        Second
    }
}

#[mobula::main]
async fn main() -> mobula::Result<()> {
    let _ = (First::actor(), Second::actor());
    Cluster::connect().await?;
    println!("started all the same");
    Ok(())
}
