//! The state of an embedded store, and what a transaction does to it: decided here, for memory and file alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mobula_core::limits;

use super::{Entry, Event, LeaseToken, Snapshot, StoreError, Transaction};
use crate::Write;

/// Where an embedded store has its time from: since any moment, never backwards.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// A clock.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    pub(super) fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// All that a store has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Table {
    pub(super) revision: u64,
    pub(super) term: u64,
    pub(super) next_lease: u64,
    pub(super) rows: BTreeMap<String, Row>,
    pub(super) leases: BTreeMap<LeaseToken, Lease>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) value: Vec<u8>,
    pub(super) revision: u64,
    pub(super) lease: Option<LeaseToken>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Lease {
    pub(super) ttl: Duration,
    pub(super) until: Duration,
    pub(super) keys: BTreeSet<String>,
}

/// What has to be brought to disk, and told to those who watch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Change {
    pub(super) events: Vec<Event>,
    /// Leases that have come, or gone.
    pub(super) leases: BTreeSet<LeaseToken>,
}

/// What a turn of the table gives.
pub(super) struct Turn<T> {
    pub(super) answer: Result<T, StoreError>,
    /// What has expired before, and what was done.
    pub(super) changes: [Change; 2],
    /// There is something to bring to disk.
    pub(super) wrote: bool,
}

impl Table {
    /// Lets leases expire, then does what is asked. What is refused has changed nothing.
    pub(super) fn turn<T>(
        &mut self,
        now: Duration,
        change: impl FnOnce(&mut Table, Duration) -> Result<(T, Change), StoreError>,
    ) -> Turn<T> {
        let before = (self.revision, self.term, self.next_lease);
        let expired = self.expire(now);
        let (answer, changed) = match change(self, now) {
            Ok((answer, change)) => (Ok(answer), change),
            Err(error) => (Err(error), Change::default()),
        };
        let changes = [expired, changed];
        let is_silent = changes.iter().all(|change| *change == Change::default());
        Turn { answer, changes, wrote: !is_silent || before != (self.revision, self.term, self.next_lease) }
    }

    pub(super) fn snapshot(&self, prefix: &str) -> Snapshot {
        let from = self.rows.range(prefix.to_owned()..);
        let under = from.take_while(|(key, _)| key.starts_with(prefix));
        let entry =
            |(key, row): (&String, &Row)| Entry { key: key.clone(), value: row.value.clone(), revision: row.revision };
        Snapshot { revision: self.revision, entries: under.map(entry).collect() }
    }

    /// Whether the transaction may be done.
    pub(super) fn check(&self, transaction: &Transaction) -> Result<(), StoreError> {
        if let Some(term) = transaction.term.filter(|term| *term != self.term) {
            return Err(StoreError::Fenced { term, current: self.term });
        }
        for (key, expected) in &transaction.unchanged {
            let found = self.rows.get(key).map_or(0, |row| row.revision);
            if found != *expected {
                return Err(StoreError::Conflict { key: key.clone(), expected: *expected, found });
            }
        }
        for write in &transaction.writes {
            let limit = limits::STORE_VALUE_BYTES_MAX;
            if let Write::Put { key, value } = write
                && value.len() > limit
            {
                return Err(StoreError::TooLarge { key: key.clone(), bytes: value.len(), limit });
            }
        }
        match transaction.lease {
            Some(lease) if !self.leases.contains_key(&lease) => Err(StoreError::NoSuchLease { lease }),
            _ => Ok(()),
        }
    }

    /// Does it.
    pub(super) fn apply(&mut self, transaction: &Transaction) -> Change {
        let mut change = Change::default();
        if transaction.writes.is_empty() {
            return change;
        }
        self.revision += 1;
        for write in &transaction.writes {
            match write {
                Write::Put { key, value } => self.put(key, value.clone(), transaction.lease, &mut change),
                Write::Delete { key } => self.delete(key, &mut change),
            }
        }
        change
    }

    /// What those leave behind whose leases are over.
    pub(super) fn expire(&mut self, now: Duration) -> Change {
        let over: Vec<LeaseToken> =
            self.leases.iter().filter(|(_, lease)| now >= lease.until).map(|(token, _)| *token).collect();
        let mut change = Change::default();
        over.into_iter().for_each(|lease| self.end_lease(lease, &mut change));
        change
    }

    pub(super) fn end_lease(&mut self, token: LeaseToken, change: &mut Change) {
        let Some(lease) = self.leases.remove(&token) else { return };
        change.leases.insert(token);
        self.revision += u64::from(!lease.keys.is_empty());
        for key in lease.keys {
            self.delete(&key, change);
        }
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Duration) -> (LeaseToken, Change) {
        self.next_lease += 1;
        let token = LeaseToken(self.next_lease);
        self.leases.insert(token, Lease { ttl, until: now.saturating_add(ttl), keys: BTreeSet::new() });
        (token, Change { leases: BTreeSet::from([token]), ..Change::default() })
    }

    pub(super) fn keep_alive(&mut self, token: LeaseToken, now: Duration) -> Result<(), StoreError> {
        let lease = self.leases.get_mut(&token).ok_or(StoreError::NoSuchLease { lease: token })?;
        lease.until = now.saturating_add(lease.ttl);
        Ok(())
    }

    fn put(&mut self, key: &str, value: Vec<u8>, lease: Option<LeaseToken>, change: &mut Change) {
        change.events.push(Event { revision: self.revision, key: key.to_owned(), value: Some(value.clone()) });
        let before = self.rows.insert(key.to_owned(), Row { value, revision: self.revision, lease });
        self.detach(key, before.and_then(|row| row.lease));
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(key.to_owned());
        }
    }

    fn delete(&mut self, key: &str, change: &mut Change) {
        let Some(row) = self.rows.remove(key) else { return };
        self.detach(key, row.lease);
        change.events.push(Event { revision: self.revision, key: key.to_owned(), value: None });
    }

    fn detach(&mut self, key: &str, lease: Option<LeaseToken>) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
    }
}
