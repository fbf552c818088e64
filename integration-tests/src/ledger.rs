//! An actor whose state is saved.

use actix::prelude::*;
use mobula::{RemoteMessage, Snapshot, SnapshotError, save_snapshot};
use serde::{Deserialize, Serialize};

/// Keeps entries.
#[derive(Debug)]
pub struct Ledger {
    opened_with: u64,
    entries: Vec<u64>,
}

impl Actor for Ledger {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Ledger,
    args: u64,
    create: |opened_with| Ledger { opened_with, entries: Vec::new() },
    messages: [Enter, Entries, Save, TearUp]
);

impl Snapshot for Ledger {
    type State = Vec<u64>;

    fn snapshot(&self) -> Vec<u64> {
        assert!(!self.entries.contains(&u64::MAX), "an entry that cannot be saved");
        self.entries.clone()
    }

    fn restore(&mut self, entries: Vec<u64>) {
        self.entries = entries;
    }
}

mobula::register_snapshot!(Ledger);

/// Enters a number. Answers the number of entries.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Enter(pub u64);

impl Handler<Enter> for Ledger {
    type Result = u64;

    fn handle(&mut self, Enter(number): Enter, _: &mut Context<Self>) -> u64 {
        self.entries.push(number);
        self.entries.len() as u64
    }
}

/// What it was opened with, and the entries.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "(u64, Vec<u64>)")]
pub struct Entries;

impl Handler<Entries> for Ledger {
    type Result = MessageResult<Entries>;

    fn handle(&mut self, _: Entries, _: &mut Context<Self>) -> Self::Result {
        MessageResult((self.opened_with, self.entries.clone()))
    }
}

/// Saves the entries, and answers when they are safe.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<(), SnapshotError>")]
pub struct Save;

impl Handler<Save> for Ledger {
    type Result = ResponseFuture<Result<(), SnapshotError>>;

    fn handle(&mut self, _: Save, _: &mut Context<Self>) -> Self::Result {
        Box::pin(save_snapshot())
    }
}

/// Panics.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct TearUp;

impl Handler<TearUp> for Ledger {
    type Result = ();

    fn handle(&mut self, _: TearUp, _: &mut Context<Self>) {
        panic!("torn up")
    }
}

/// Like [`Ledger`], and nobody has said how it is saved.
#[derive(Debug)]
pub struct Unregistered;

impl Actor for Unregistered {
    type Context = Context<Self>;
}

mobula::remote_actor!(Unregistered, args: (), create: |()| Unregistered, messages: []);

impl Snapshot for Unregistered {
    type State = ();

    fn snapshot(&self) {}

    fn restore(&mut self, (): ()) {}
}
