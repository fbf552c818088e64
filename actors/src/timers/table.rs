//! What is due when. No clock: `now` comes in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rows in the order of their times; those of one time in the order in which they were set.
#[derive(Debug)]
pub(crate) struct Table<T> {
    rows: BTreeMap<RowId, T>,
    next: u64,
}

/// A row, as long as it is not moved.
pub(crate) type RowId = (Instant, u64);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: BTreeMap::new(), next: 0 }
    }
}

impl<T> Table<T> {
    pub(crate) fn insert(&mut self, at: Instant, row: T) -> RowId {
        let id = (at, self.next);
        self.next += 1;
        self.rows.insert(id, row);
        id
    }

    /// The first row that is due at `now`, taken out.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        let entry = self.rows.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), row) = entry.remove_entry();
        Some((at, row))
    }

    /// When to look again.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.rows.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn remove(&mut self, id: RowId) -> Option<T> {
        self.rows.remove(&id)
    }

    /// Takes out the rows that are `unwanted`.
    pub(crate) fn take_all(&mut self, unwanted: impl Fn(&T) -> bool) -> Vec<T> {
        let ids: Vec<_> = self.rows.iter().filter(|(_, row)| unwanted(row)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.rows.remove(&id)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Instant, &T)> {
        self.rows.iter().map(|((at, _), row)| (*at, row))
    }
}

/// When a row that was due at `due` is due again: the next time of its beat after `now`. Beats that were missed are
/// left out.
pub(crate) fn next_beat(due: Instant, every: Duration, now: Instant) -> Option<Instant> {
    let late = now.saturating_duration_since(due).as_nanos();
    let beats = late / every.as_nanos().max(1) + 1;
    let ahead = every.checked_mul(u32::try_from(beats).ok()?)?;
    due.checked_add(ahead)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a start to count from")]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_their_times_and_of_their_making() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut table = Table::default();
        for (ms, row) in [(5, "c"), (1, "a"), (5, "d"), (2, "b"), (9, "e")] {
            table.insert(at(ms), row);
        }
        assert_eq!(table.next_at(), Some(at(1)));
        assert!(table.take_due(start).is_none());
        let due: Vec<_> = std::iter::from_fn(|| table.take_due(at(5))).map(|(_, row)| row).collect();
        assert_eq!(due, ["a", "b", "c", "d"]);
        assert_eq!(table.next_at(), Some(at(9)));
        assert_eq!(table.take_all(|row| *row == "e"), ["e"]);
        assert_eq!((table.next_at(), table.iter().count()), (None, 0));
        let id = table.insert(at(1), "f");
        assert_eq!((table.remove(id), table.remove(id)), (Some("f"), None));
    }

    #[test]
    fn missed_beats_are_left_out_and_the_beat_is_kept() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let every = Duration::from_millis(10);
        assert_eq!(next_beat(at(10), every, at(10)), Some(at(20)));
        assert_eq!(next_beat(at(10), every, at(19)), Some(at(20)));
        assert_eq!(next_beat(at(10), every, at(47)), Some(at(50)));
        assert_eq!(next_beat(at(10), Duration::MAX, at(10)), None, "never comes");
    }
}
