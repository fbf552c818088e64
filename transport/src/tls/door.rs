//! How many may prove themselves at the same time: in all, and from one address. So one who opens connections and says
//! nothing keeps others of its own address out, and nobody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use mobula_core::limits;
use parking_lot::Mutex;

/// Counts those who are at the door.
#[derive(Clone, Debug, Default)]
pub struct Door(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place at the door, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    door: Door,
    address: IpAddr,
}

impl Door {
    /// Takes a place for a handshake with `address`; none if [`limits::HANDSHAKES_MAX`] are taken, or
    /// [`limits::HANDSHAKES_PER_ADDRESS_MAX`] by this address. A network of IPv6, 64 bits, counts as one address: its owner has
    /// all of them.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = one_owner(address);
        let mut counts = self.0.lock();
        let here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= limits::HANDSHAKES_MAX || here >= limits::HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, here + 1);
        drop(counts);
        Some(Place { door: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.door.0.lock();
        counts.all -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

fn one_owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let door = Door::default();
        let greedy: Vec<_> =
            (0..limits::HANDSHAKES_PER_ADDRESS_MAX).filter_map(|_| door.enter(address("10.0.0.1"))).collect();
        assert_eq!(greedy.len(), limits::HANDSHAKES_PER_ADDRESS_MAX);
        assert!(door.enter(address("10.0.0.1")).is_none());
        assert!(door.enter(address("::ffff:10.0.0.1")).is_none(), "the same, written otherwise");
        assert!(door.enter(address("10.0.0.2")).is_some());
        drop(greedy);
        assert!(door.enter(address("10.0.0.1")).is_some());
        assert_eq!(door.0.lock().by_address.len(), 0, "nothing is left behind");
        assert_eq!(door.0.lock().all, 0);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let door = Door::default();
        let places: Vec<_> = (0..100_u128)
            .filter_map(|n| door.enter(IpAddr::V6(Ipv6Addr::from_bits(address_bits("2001:db8::") | n))))
            .collect();
        assert_eq!(places.len(), limits::HANDSHAKES_PER_ADDRESS_MAX);
        assert!(door.enter(address("2001:db8:0:1::")).is_some());
    }

    fn address_bits(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().expect("an address").to_bits()
    }

    #[test]
    fn all_places_together_are_bounded() {
        let door = Door::default();
        let places: Vec<_> =
            (0..2 * limits::HANDSHAKES_MAX as u32).filter_map(|n| door.enter(IpAddr::from(n.to_be_bytes()))).collect();
        assert_eq!(places.len(), limits::HANDSHAKES_MAX);
    }
}
