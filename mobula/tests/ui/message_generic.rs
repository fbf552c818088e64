#[derive(mobula::RemoteMessage)]
#[rtype(result = "i64")]
struct Increment<N> {
    by: N,
}

fn main() {}
