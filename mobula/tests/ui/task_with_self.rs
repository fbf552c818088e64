struct Primes;

impl Primes {
    #[mobula::task]
    fn count(&self, upto: u64) -> u64 {
        upto
    }
}

fn main() {}
