use mobula::ReplyItems;

struct Counter;

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    async fn count_to(&self, end: u64) -> ReplyItems<u64> {
        ReplyItems::produce(move |mut sender| async move {
            let _ = sender.send(end).await;
        })
    }
}

fn main() {}
