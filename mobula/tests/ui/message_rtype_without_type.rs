#[derive(mobula::RemoteMessage)]
#[rtype]
struct Increment {
    by: i64,
}

#[derive(mobula::RemoteMessage)]
#[rtype(result)]
struct Decrement {
    by: i64,
}

fn main() {}
