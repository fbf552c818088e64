//! How many may prove themselves at the same time: in all, and from one address. So one who opens connections and says
//! nothing keeps others of its own address out for a moment, and nobody else.
//!
//! A full door is not a closed one: who comes from an address that has less there than another takes the place of the one from
//! that other which is there longest. An honest handshake takes milliseconds; who needs much longer than that is in no position to complain.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use mobula_core::limits;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Counts those who are at the door.
#[derive(Clone, Debug)]
pub struct Door(Arc<Mutex<Guests>>);

#[derive(Debug)]
struct Guests {
    per_address_max: usize,
    all: usize,
    entered: u64,
    /// The longest there first. No address without a guest.
    by_address: HashMap<IpAddr, VecDeque<Guest>>,
}

#[derive(Debug)]
struct Guest {
    number: u64,
    since: Instant,
    settled: bool,
    leave: oneshot::Sender<()>,
}

/// A place at the door, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    door: Door,
    address: IpAddr,
    number: u64,
    leave: oneshot::Receiver<()>,
    displaced: bool,
}

impl Default for Door {
    fn default() -> Self {
        Door::of(limits::HANDSHAKES_PER_ADDRESS_MAX)
    }
}

impl Door {
    /// One for guests of this host alone, whose addresses mean nothing: each may have all places.
    pub fn on_loopback() -> Self {
        Door::of(limits::HANDSHAKES_MAX)
    }

    fn of(per_address_max: usize) -> Self {
        Door(Arc::new(Mutex::new(Guests { per_address_max, all: 0, entered: 0, by_address: HashMap::new() })))
    }

    /// Takes a place for a handshake with `address`; `now` is the time. There are [`limits::HANDSHAKES_MAX`], and
    /// [`limits::HANDSHAKES_PER_ADDRESS_MAX`] for one address. Where these are taken, the newcomer has the place of another: of the one who is
    /// there longest from an address with more places, or who is there for [`limits::HANDSHAKE_PATIENCE`] already. None if
    /// there is no such guest. A network of IPv6, 64 bits, counts as one address: its owner has all of them.
    pub fn enter(&self, address: IpAddr, now: Instant) -> Option<Place> {
        let address = one_owner(address);
        let (told, leave) = oneshot::channel();
        let (number, displaced) = self.0.lock().enter(address, now, told)?;
        // Not under the lock: it wakes its handshake.
        if let Some(guest) = displaced {
            let _ = guest.leave.send(());
        }
        Some(Place { door: self.clone(), address, number, leave, displaced: false })
    }
}

impl Guests {
    /// The number of the newcomer, and whose place it has.
    fn enter(&mut self, address: IpAddr, now: Instant, leave: oneshot::Sender<()>) -> Option<(u64, Option<Guest>)> {
        let here = self.by_address.get(&address).map_or(0, VecDeque::len);
        let displaced = if here >= self.per_address_max {
            let (number, _) =
                longest(self.by_address.get(&address)?).filter(|(_, since)| out_of_patience(*since, now))?;
            Some(self.remove(address, number)?)
        } else if self.all >= limits::HANDSHAKES_MAX {
            Some(self.make_room(here, now)?)
        } else {
            None
        };
        let number = self.entered;
        self.entered += 1;
        self.all += 1;
        self.by_address.entry(address).or_default().push_back(Guest { number, since: now, settled: false, leave });
        Some((number, displaced))
    }

    /// Takes the place of another for one whose address has `here`.
    fn make_room(&mut self, here: usize, now: Instant) -> Option<Guest> {
        let longest_of_each = self.by_address.iter().filter_map(|(address, guests)| {
            let (number, since) = longest(guests)?;
            Some((guests.len(), number, since, *address))
        });
        // Most places, and of those who have as many the one that came first.
        let (most, number, _, address) =
            longest_of_each.clone().max_by_key(|(count, number, ..)| (*count, std::cmp::Reverse(*number)))?;
        if here < most {
            return self.remove(address, number);
        }
        let (_, number, since, address) = longest_of_each.min_by_key(|(_, number, ..)| *number)?;
        if out_of_patience(since, now) { self.remove(address, number) } else { None }
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Guest> {
        let guests = self.by_address.get_mut(&address)?;
        let at = guests.iter().position(|guest| guest.number == number)?;
        let guest = guests.remove(at);
        if guests.is_empty() {
            self.by_address.remove(&address);
        }
        self.all -= 1;
        guest
    }
}

/// Who is there longest of those that may be asked to leave.
fn longest(guests: &VecDeque<Guest>) -> Option<(u64, Instant)> {
    guests.iter().find(|guest| !guest.settled).map(|guest| (guest.number, guest.since))
}

fn out_of_patience(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= limits::HANDSHAKE_PATIENCE
}

impl Place {
    /// Does `handshake`, unless the place is given to another first: then it is dropped, and this is `None`, then and ever after.
    pub async fn hold<T>(&mut self, handshake: impl Future<Output = T>) -> Option<T> {
        if self.displaced {
            return None;
        }
        tokio::select! {
            biased;
            done = handshake => Some(done),
            _ = &mut self.leave => {
                self.displaced = true;
                None
            }
        }
    }

    /// The place is given to nobody else from now on, for what cannot be broken off. False if it was given away already.
    pub fn settle(&mut self) -> bool {
        let mut guests = self.door.0.lock();
        let guest = guests.by_address.get_mut(&self.address);
        match guest.and_then(|guests| guests.iter_mut().find(|guest| guest.number == self.number)) {
            Some(guest) => guest.settled = true,
            None => self.displaced = true,
        }
        !self.displaced
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.door.0.lock().remove(self.address, self.number);
        drop(left);
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
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn numbered(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn is_displaced(place: &mut Place) -> bool {
        place.hold(std::future::pending::<()>()).now_or_never().is_some()
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let (door, now) = (Door::default(), crate::now());
        let greedy: Vec<_> =
            (0..limits::HANDSHAKES_PER_ADDRESS_MAX).filter_map(|_| door.enter(address("10.0.0.1"), now)).collect();
        assert_eq!(greedy.len(), limits::HANDSHAKES_PER_ADDRESS_MAX);
        assert!(door.enter(address("10.0.0.1"), now).is_none());
        assert!(door.enter(address("::ffff:10.0.0.1"), now).is_none(), "the same, written otherwise");
        assert_eq!(door.0.lock().all, greedy.len(), "who is refused displaces nobody");
        assert!(door.enter(address("10.0.0.2"), now).is_some());
        drop(greedy);
        assert!(door.enter(address("10.0.0.1"), now).is_some());
        assert_eq!(door.0.lock().by_address.len(), 0, "nothing is left behind");
        assert_eq!(door.0.lock().all, 0);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (door, now) = (Door::default(), crate::now());
        let bits = |text: &str| text.parse::<Ipv6Addr>().expect("an address").to_bits();
        let places: Vec<_> = (0..100_u128)
            .filter_map(|n| door.enter(IpAddr::V6(Ipv6Addr::from_bits(bits("2001:db8::") | n)), now))
            .collect();
        assert_eq!(places.len(), limits::HANDSHAKES_PER_ADDRESS_MAX);
        assert!(door.enter(address("2001:db8:0:1::"), now).is_some());
    }

    #[test]
    fn all_places_together_are_bounded() {
        let (door, now) = (Door::default(), crate::now());
        let mut places: Vec<_> =
            (0..2 * limits::HANDSHAKES_MAX as u32).filter_map(|n| door.enter(numbered(n), now)).collect();
        assert_eq!(door.0.lock().all, limits::HANDSHAKES_MAX);
        assert_eq!(places.iter_mut().map(is_displaced).filter(|displaced| !displaced).count(), limits::HANDSHAKES_MAX);
        drop(places);
        assert_eq!(door.0.lock().all, 0, "a place that was given away is not given back twice");
    }

    #[test]
    fn a_newcomer_displaces_the_first_of_the_address_that_has_most() {
        let (door, now) = (Door::default(), crate::now());
        let flood: Vec<_> = (0..limits::HANDSHAKES_MAX as u32).map(|n| door.enter(numbered(n % 100), now)).collect();
        let mut flood: Vec<_> = flood.into_iter().map(|place| place.expect("there is room")).collect();
        let mut honest = door.enter(address("192.168.0.1"), now).expect("the place of another");
        // 512 from 100 addresses: those of the numbers below 12 have six, and number 0 came first.
        let displaced: Vec<_> =
            flood.iter_mut().enumerate().filter_map(|(n, place)| is_displaced(place).then_some(n)).collect();
        assert_eq!(displaced, [0]);
        // The flood goes on, and displaces itself.
        for n in 0..10_000_u32 {
            if let Some(place) = door.enter(numbered(n % 100), now) {
                flood.push(place);
            }
        }
        assert!(!is_displaced(&mut honest));
        assert_eq!(door.0.lock().all, limits::HANDSHAKES_MAX);
    }

    #[test]
    fn who_takes_long_makes_room_for_its_own_address() {
        let (door, now) = (Door::default(), crate::now());
        let home = address("10.0.0.1");
        let enter = |now| door.enter(home, now);
        let mut first = enter(now).expect("there is room");
        let mut second = enter(now).expect("there is room");
        assert!(second.settle());
        let others: Vec<_> =
            (2..limits::HANDSHAKES_PER_ADDRESS_MAX).map(|_| enter(now + Duration::from_millis(1))).collect();
        let late = now + limits::HANDSHAKE_PATIENCE;
        assert!(enter(late - Duration::from_millis(1)).is_none());
        let newcomer = enter(late);
        assert!(newcomer.is_some() && is_displaced(&mut first) && !first.settle());
        assert!(enter(late).is_none(), "the second has settled, and the others came later");
        assert_eq!(others.len() + 2, limits::HANDSHAKES_PER_ADDRESS_MAX);
        assert!(!is_displaced(&mut second));
    }
}
