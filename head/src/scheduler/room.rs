//! What is free on a node, GPUs one by one.

use mobula_core::cluster::{Amount, GpuShare, Resources};

/// What is free on a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Room {
    /// All together.
    pub(crate) free: Resources,
    /// Of each GPU.
    gpus: Vec<Amount>,
}

impl Room {
    /// All of it is free.
    pub(crate) fn of(total: &Resources) -> Self {
        Room { free: total.clone(), gpus: vec![Amount::ONE; total.gpus.whole() as usize] }
    }

    /// True if `asked` is free. A share of a GPU is of one; whole GPUs have to be free altogether.
    pub(crate) fn fits(&self, asked: &Resources) -> bool {
        self.free.fits(asked) && (asked.gpus.is_zero() || self.choose(asked.gpus).is_some())
    }

    /// Takes `asked`, and says of which GPUs.
    pub(crate) fn take(&mut self, asked: &Resources) -> Option<Vec<GpuShare>> {
        if !self.free.fits(asked) {
            return None;
        }
        let shares = self.choose(asked.gpus)?;
        self.take_shares(asked, &shares).then_some(shares)
    }

    /// Takes `asked` of these GPUs: what was taken once, as a record says.
    #[must_use]
    pub(crate) fn take_shares(&mut self, asked: &Resources, shares: &[GpuShare]) -> bool {
        let sum = shares.iter().fold(Amount::ZERO, |sum, share| sum.plus(share.amount));
        let mut gpus = self.gpus.clone();
        let is_free = shares.iter().all(|share| {
            let Some(free) = gpus.get_mut(share.index as usize) else { return false };
            let left = free.minus(share.amount);
            *free = left.unwrap_or_default();
            left.is_some()
        });
        if sum != asked.gpus || !is_free || !self.free.take(asked) {
            return false;
        }
        self.gpus = gpus;
        true
    }

    /// Puts back what was taken.
    pub(crate) fn put(&mut self, back: &Resources, shares: &[GpuShare]) {
        self.free.put(back);
        for share in shares {
            if let Some(free) = self.gpus.get_mut(share.index as usize) {
                *free = free.plus(share.amount);
            }
        }
    }

    fn choose(&self, gpus: Amount) -> Option<Vec<GpuShare>> {
        if gpus.is_zero() {
            return Some(Vec::new());
        }
        let by_index = self.gpus.iter().enumerate().map(|(index, free)| (index as u32, *free));
        if gpus < Amount::ONE {
            // The fullest that has enough, so that whole ones stay whole.
            let fitting = by_index.filter(|(_, free)| *free >= gpus);
            let (index, _) = fitting.min_by_key(|(index, free)| (*free, *index))?;
            return Some(vec![GpuShare { index, amount: gpus }]);
        }
        let whole = by_index.filter(|(_, free)| *free == Amount::ONE);
        let shares: Vec<GpuShare> =
            whole.map(|(index, amount)| GpuShare { index, amount }).take(gpus.whole() as usize).collect();
        (shares.len() as u64 == gpus.whole()).then_some(shares)
    }
}

/// What is free of something that was set aside, with the GPUs that belong to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ShareRoom {
    free: Resources,
    gpus: Vec<GpuShare>,
}

impl ShareRoom {
    /// All of it is free.
    pub(crate) fn of(total: &Resources, gpus: &[GpuShare]) -> Self {
        ShareRoom { free: total.clone(), gpus: gpus.to_vec() }
    }

    /// Takes `asked`, and says of which GPUs.
    pub(crate) fn take(&mut self, asked: &Resources) -> Option<Vec<GpuShare>> {
        if !self.free.fits(asked) {
            return None;
        }
        let shares: Vec<GpuShare> = if asked.gpus.is_zero() {
            Vec::new()
        } else if asked.gpus < Amount::ONE {
            let fitting = self.gpus.iter().filter(|share| share.amount >= asked.gpus);
            let share = fitting.min_by_key(|share| (share.amount, share.index))?;
            vec![GpuShare { index: share.index, amount: asked.gpus }]
        } else {
            let whole = self.gpus.iter().filter(|share| share.amount == Amount::ONE).copied();
            whole.take(asked.gpus.whole() as usize).collect()
        };
        self.take_shares(asked, &shares).then_some(shares)
    }

    /// Takes `asked` of these GPUs.
    #[must_use]
    pub(crate) fn take_shares(&mut self, asked: &Resources, shares: &[GpuShare]) -> bool {
        let sum = shares.iter().fold(Amount::ZERO, |sum, share| sum.plus(share.amount));
        let mut gpus = self.gpus.clone();
        let is_free = shares.iter().all(|share| {
            let Some(free) = gpus.iter_mut().find(|free| free.index == share.index) else { return false };
            let left = free.amount.minus(share.amount);
            free.amount = left.unwrap_or_default();
            left.is_some()
        });
        if sum != asked.gpus || !is_free || !self.free.take(asked) {
            return false;
        }
        self.gpus = gpus;
        true
    }

    /// Puts back what was taken.
    pub(crate) fn put(&mut self, back: &Resources, shares: &[GpuShare]) {
        self.free.put(back);
        for share in shares {
            for free in self.gpus.iter_mut().filter(|free| free.index == share.index) {
                free.amount = free.amount.plus(share.amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(text: &str) -> Resources {
        Resources::new().with_gpus(Amount::parse("--num-gpus", text).expect("a number"))
    }

    fn indices(shares: Option<Vec<GpuShare>>) -> Option<Vec<u32>> {
        shares.map(|shares| shares.iter().map(|share| share.index).collect())
    }

    #[test]
    fn shares_fill_one_gpu_and_whole_ones_stay_whole() {
        let mut room = Room::of(&gpus("3"));
        assert_eq!(indices(room.take(&gpus("0.5"))), Some(vec![0]));
        assert_eq!(indices(room.take(&gpus("0.5"))), Some(vec![0]));
        assert_eq!(indices(room.take(&gpus("0.4"))), Some(vec![1]));
        assert_eq!(indices(room.take(&gpus("1"))), Some(vec![2]));
        assert!(!room.fits(&gpus("1")), "0.6 of one is left");
        assert_eq!(room.take(&gpus("0.7")), None);
        assert_eq!(indices(room.take(&gpus("0.6"))), Some(vec![1]));
        assert_eq!(room.free.gpus, Amount::ZERO);
    }

    #[test]
    fn two_halves_of_different_gpus_are_no_whole_one() {
        let mut room = Room::of(&gpus("2"));
        let first = room.take(&gpus("0.6")).expect("room");
        let second = room.take(&gpus("0.6")).expect("room");
        assert_ne!(first, second);
        assert!(!room.fits(&gpus("0.8")) && !room.fits(&gpus("1")));
        room.put(&gpus("0.6"), &first);
        assert_eq!(indices(room.take(&gpus("1"))), Some(vec![0]));
        room.put(&gpus("1"), &[GpuShare { index: 0, amount: Amount::ONE }]);
        room.put(&gpus("0.6"), &second);
        assert_eq!(room, Room::of(&gpus("2")));
    }

    #[test]
    fn a_record_that_has_one_gpu_twice_is_not_believed() {
        let share = GpuShare { index: 0, amount: Amount::parse("--num-gpus", "0.6").expect("a number") };
        let asked = Resources::new().with_gpus(share.amount.plus(share.amount));
        let mut room = Room::of(&gpus("2"));
        assert!(!room.take_shares(&asked, &[share, share]));
        assert_eq!(room, Room::of(&gpus("2")));
        let mut share_room = ShareRoom::of(&gpus("2"), &room.take(&gpus("2")).expect("room"));
        assert!(!share_room.take_shares(&asked, &[share, share]));
    }

    #[test]
    fn what_was_set_aside_keeps_its_gpus() {
        let mut room = Room::of(&gpus("4"));
        room.take(&gpus("1")).expect("room");
        let set_aside = room.take(&gpus("2")).expect("room");
        let mut share = ShareRoom::of(&gpus("2"), &set_aside);
        assert_eq!(indices(share.take(&gpus("0.5"))), Some(vec![1]));
        assert_eq!(indices(share.take(&gpus("1"))), Some(vec![2]));
        assert_eq!(share.take(&gpus("1")), None);
        share.put(&gpus("1"), &[GpuShare { index: 2, amount: Amount::ONE }]);
        assert_eq!(indices(share.take(&gpus("1"))), Some(vec![2]));
    }
}
