//! A store in one file, for one head.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::history::History;
use super::table::{Change, Clock, Lease, Row, Table, Turn};
use super::{LeaseToken, MetadataStore, Snapshot, StoreError, Transaction, Watch};

/// Key, then the revision that has written it, the lease or 0, and the value.
const ROWS: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("rows");
/// Lease, then its milliseconds.
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
/// Format, revision, term, and the next lease.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The format of the file that this program writes.
const FORMAT: u64 = 1;

/// A store in one file. Every commit is on disk when it is answered; many writes in one transaction cost as much as one. What it has is in memory as well.
/// Blocking calls run on tokio's blocking threads; a runtime has to be there.
#[derive(Clone, Debug)]
pub struct RedbStore {
    inner: Arc<Inner>,
    term_min: u64,
}

struct Inner {
    path: PathBuf,
    clock: Clock,
    database: Database,
    /// Locked by one writer at a time, on a blocking thread, until it is on disk.
    state: Mutex<State>,
    history: Arc<History>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    table: Table,
    failed: bool,
}

impl RedbStore {
    /// Opens a file, or begins one. Blocks. Leases have their whole time again.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; [`StoreError::Newer`] and [`StoreError::Corrupt`], which leave the file as it is; [`StoreError::Io`].
    pub fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        match std::fs::metadata(path) {
            // redb would begin a new database in it.
            Ok(file) if file.len() == 0 => {
                return Err(StoreError::Corrupt { path: path.to_owned(), reason: "it is empty".to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => begin(path)?,
            Err(error) => return Err(io(error)),
        }
        // Opening for writing changes the file: so it is looked at first.
        match ReadOnlyDatabase::open(path) {
            Ok(database) => drop(read(&database, path, Duration::ZERO)?),
            // Its process was killed: it is repaired below, which is no change of what it says.
            Err(DatabaseError::RepairAborted) => {}
            Err(error) => return Err(not_opened(path, error)),
        }
        let database = Database::open(path).map_err(|error| not_opened(path, error))?;
        Self::of(database, path, clock)
    }

    fn of(database: Database, path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let table = read(&database, path, clock.now())?;
        let history = History::new(table.revision);
        let state = Mutex::new(State { table, failed: false });
        let inner = Arc::new(Inner { path: path.to_owned(), clock, database, state, history });
        Ok(RedbStore { inner, term_min: 0 })
    }

    /// Leads in terms from `term` on, and later ones. A file that is an older copy does not know in which terms it was led after it was copied, and nodes take
    /// what was said in an earlier term than they have heard of for old: with a number that only grows, as seconds since 1970, no term comes twice.
    #[must_use]
    pub fn with_terms_from(self, term: u64) -> Self {
        RedbStore { term_min: term, ..self }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Table, Duration) -> Result<(T, Change), StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || inner.change(change));
        async move { done.await.unwrap_or_else(|error| Err(io(error))) }.boxed()
    }
}

impl Inner {
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Table, Duration) -> Result<(T, Change), StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        if state.failed {
            return Err(StoreError::Io { reason: "it has failed before and was not opened anew".to_owned() });
        }
        let now = self.clock.now();
        let State { table, failed } = &mut *state;
        let Turn { answer, changes, wrote } = table.turn(now, change);
        if !wrote {
            return answer;
        }
        if let Err(error) = write(&self.database, table, &changes) {
            // Memory and disk may differ now: nothing of it is told any more.
            *failed = true;
            self.history.fail();
            return Err(io(error));
        }
        let revision = table.revision;
        drop(state);
        self.history.push(revision, changes.into_iter().flat_map(|change| change.events).collect());
        answer
    }
}

fn io(error: impl std::fmt::Display) -> StoreError {
    StoreError::Io { reason: error.to_string() }
}

fn not_opened(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => {
            io(error)
        }
        error => StoreError::Corrupt { path, reason: error.to_string() },
    }
}

/// A new file. It has its name when it is whole: a process that is killed before leaves none.
fn begin(path: &Path) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    Database::create(&new).map_err(redb::Error::from).and_then(|database| format(&database)).map_err(io)?;
    std::fs::rename(&new, path).map_err(io)
}

fn format(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ROWS)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(NUMBERS)?.insert("format", FORMAT)?;
    Ok(transaction.commit()?)
}

fn write(database: &Database, table: &Table, changes: &[Change; 2]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        // Of what was written several times the last stays.
        let keys = changes.iter().flat_map(|change| &change.events).map(|event| event.key.as_str());
        for key in keys {
            match table.rows.get(key) {
                Some(row) => {
                    let lease = row.lease.map_or(0, |lease| lease.0);
                    rows.insert(key, (row.revision, lease, row.value.as_slice()))?;
                }
                None => drop(rows.remove(key)?),
            }
        }
        let mut leases = transaction.open_table(LEASES)?;
        for token in changes.iter().flat_map(|change| &change.leases) {
            match table.leases.get(token) {
                Some(lease) => drop(leases.insert(token.0, lease.ttl.as_millis() as u64)?),
                None => drop(leases.remove(token.0)?),
            }
        }
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert("revision", table.revision)?;
        numbers.insert("term", table.term)?;
        numbers.insert("lease", table.next_lease)?;
    }
    Ok(transaction.commit()?)
}

fn read(database: &impl ReadableDatabase, path: &Path, now: Duration) -> Result<Table, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { path: path.to_owned(), reason };
    let wrong = |error: redb::Error| corrupt(error.to_string());
    let missing = |error: TableError| corrupt(format!("it is no store of a head: {error}"));
    let transaction = database.begin_read().map_err(|error| wrong(error.into()))?;
    let numbers = transaction.open_table(NUMBERS).map_err(missing)?;
    let number = |name: &str| -> Result<u64, StoreError> {
        Ok(numbers.get(name).map_err(|error| wrong(error.into()))?.map_or(0, |number| number.value()))
    };
    let found = number("format")?;
    if found != FORMAT {
        let newer = StoreError::Newer { path: path.to_owned(), found, known: FORMAT };
        return Err(if found > FORMAT { newer } else { corrupt(format!("no format is {found}")) });
    }
    let (revision, term, next_lease) = (number("revision")?, number("term")?, number("lease")?);
    let mut table = Table { revision, term, next_lease, ..Table::default() };
    let leases = transaction.open_table(LEASES).map_err(missing)?;
    for entry in leases.iter().map_err(|error| wrong(error.into()))? {
        let (token, ttl) = entry.map_err(|error| wrong(error.into()))?;
        let ttl = Duration::from_millis(ttl.value());
        let lease = Lease { ttl, until: now.saturating_add(ttl), keys: Default::default() };
        table.leases.insert(LeaseToken(token.value()), lease);
    }
    let rows = transaction.open_table(ROWS).map_err(missing)?;
    let mut read = BTreeMap::new();
    for entry in rows.iter().map_err(|error| wrong(error.into()))? {
        let (key, row) = entry.map_err(|error| wrong(error.into()))?;
        let (key, (revision, lease, value)) = (key.value().to_owned(), row.value());
        let lease = (lease != 0).then_some(LeaseToken(lease));
        if revision > table.revision {
            return Err(corrupt(format!("record {key} has a revision that was not made yet")));
        }
        if let Some(token) = lease {
            let lease = table.leases.get_mut(&token);
            lease.ok_or_else(|| corrupt(format!("the lease of record {key} is not there")))?.keys.insert(key.clone());
        }
        read.insert(key, Row { value: value.to_vec(), revision, lease });
    }
    table.rows = read;
    Ok(table)
}

impl MetadataStore for RedbStore {
    fn lead(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let term_min = self.term_min;
        self.change(move |table, _| {
            table.term = (table.term + 1).max(term_min);
            Ok((table.term, Change::default()))
        })
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        let prefix = prefix.to_owned();
        self.change(move |table, _| Ok((table.snapshot(&prefix), Change::default())))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.change(move |table, _| {
            table.check(&transaction)?;
            let change = table.apply(&transaction);
            Ok((table.revision, change))
        })
    }

    fn watch(&self, prefix: &str, from: u64) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let watch = Watch::of(&self.inner.history, prefix, from);
        async move { Ok(watch) }.boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseToken, StoreError>> {
        self.change(move |table, now| Ok(table.grant(ttl, now)))
    }

    fn keep_alive(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>> {
        self.change(move |table, now| Ok((table.keep_alive(lease, now)?, Change::default())))
    }

    fn revoke(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>> {
        self.change(move |table, _| {
            let mut change = Change::default();
            table.end_lease(lease, &mut change);
            Ok(((), change))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Write;

    /// A file that remembers every write to it, in order.
    #[derive(Clone, Debug, Default)]
    struct Film(Arc<Mutex<Frames>>);

    #[derive(Debug, Default)]
    struct Frames {
        bytes: Vec<u8>,
        frames: Vec<Vec<u8>>,
    }

    type Done = std::io::Result<()>;

    impl redb::StorageBackend for Film {
        fn len(&self) -> std::io::Result<u64> {
            Ok(self.0.lock().bytes.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Done {
            let at = offset as usize;
            let film = self.0.lock();
            let Some(bytes) = film.bytes.get(at..at + out.len()) else {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            };
            out.copy_from_slice(bytes);
            Ok(())
        }

        fn set_len(&self, len: u64) -> Done {
            let mut film = self.0.lock();
            film.bytes.resize(len as usize, 0);
            let frame = film.bytes.clone();
            film.frames.push(frame);
            Ok(())
        }

        fn sync_data(&self) -> Done {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Done {
            let mut film = self.0.lock();
            let at = offset as usize;
            film.bytes[at..at + data.len()].copy_from_slice(data);
            let frame = film.bytes.clone();
            film.frames.push(frame);
            Ok(())
        }
    }

    fn opened(film: &Film) -> RedbStore {
        let database = Database::builder().create_with_backend(film.clone()).expect("it opens");
        RedbStore::of(database, Path::new("film"), Clock::new(|| Duration::ZERO)).expect("a store of ours")
    }

    /// The process is killed after each of its writes to the file: the next one finds all of a transaction, or nothing.
    #[test]
    fn a_process_may_be_killed_at_any_write_to_the_file() {
        let film = Film::default();
        let database = Database::builder().create_with_backend(film.clone()).expect("new");
        format(&database).expect("written");
        let store = RedbStore::of(database, Path::new("film"), Clock::new(|| Duration::ZERO)).expect("ours");
        film.0.lock().frames.clear();
        let mut states = vec![store.inner.state.lock().table.clone()];
        // How many writes to the file there were when each transaction was answered.
        let mut answered = vec![0];
        for round in 0..4_u8 {
            let mut writes: Vec<Write> =
                (0..3).map(|at| Write::Put { key: format!("{at}"), value: vec![round; 100] }).collect();
            writes.push(Write::Delete { key: format!("{}", round % 3) });
            let transaction = Transaction { writes, ..Transaction::default() };
            let done = store.inner.change(|table, _| {
                let change = table.apply(&transaction);
                Ok((table.revision, change))
            });
            done.expect("written");
            states.push(store.inner.state.lock().table.clone());
            answered.push(film.0.lock().frames.len());
        }
        drop(store);
        let frames = std::mem::take(&mut film.0.lock().frames);
        for (at, bytes) in frames.iter().enumerate() {
            let film = Film(Arc::new(Mutex::new(Frames { bytes: bytes.clone(), frames: Vec::new() })));
            let found = opened(&film).inner.state.lock().table.clone();
            let acknowledged = answered.iter().filter(|answer| **answer <= at + 1).count() - 1;
            let may_be = &states[acknowledged..(acknowledged + 2).min(states.len())];
            assert!(may_be.contains(&found), "after write {at}: revision {}, {acknowledged} answered", found.revision);
        }
        assert!(frames.len() >= 8, "{}", frames.len());
    }
}
