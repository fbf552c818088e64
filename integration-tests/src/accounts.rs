//! Keyed actors to be called: accounts that are there when somebody asks for them.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use actix::prelude::*;
use mobula::{CallError, KeyedRef, RemoteMessage, Snapshot, SnapshotPolicy, current_node};
use serde::{Deserialize, Serialize};

use crate::gates;

/// An account, by its number. A number that contains a `/` is a file into which it writes with each message.
#[derive(Debug)]
pub struct Account {
    number: String,
    entries: Vec<u64>,
}

impl Account {
    fn new(number: String) -> Self {
        assert!(number != "forbidden", "no such account");
        Account { number, entries: Vec::new() }
    }
}

impl Actor for Account {
    type Context = Context<Self>;
}

mobula::remote_actor!(Account, args: String, create: Account::new, messages: [Enter, Statement, Close]);
mobula::keyed_actor!(Account, |key| key.to_owned());

/// Enters an amount. Answers the number of entries.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Enter(pub u64);

impl Handler<Enter> for Account {
    type Result = u64;

    fn handle(&mut self, Enter(amount): Enter, _: &mut Context<Self>) -> u64 {
        if self.number.contains('/') {
            let token = mobula::fence().map_or(0, |fence| fence.0);
            let mut file = OpenOptions::new().create(true).append(true).open(&self.number).expect("a file to write");
            file.write_all(format!("{token}\n").as_bytes()).expect("room for a line");
        }
        self.entries.push(amount);
        self.entries.len() as u64
    }
}

/// What an account says of itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Stated {
    /// Its number.
    pub number: String,
    /// All that was entered, in order.
    pub entries: Vec<u64>,
    /// Where it lives.
    pub node: mobula::NodeId,
    /// Under which token.
    pub token: u64,
}

/// Asks for everything.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Stated")]
pub struct Statement;

impl Handler<Statement> for Account {
    type Result = MessageResult<Statement>;

    fn handle(&mut self, _: Statement, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Stated {
            number: self.number.clone(),
            entries: self.entries.clone(),
            node: current_node().expect("a handler runs on a node").id().clone(),
            token: mobula::fence().map_or(0, |fence| fence.0),
        })
    }
}

/// Makes the account stop itself.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Close;

impl Handler<Close> for Account {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// A keyed actor that is stopped soon when nobody calls it.
#[derive(Debug)]
pub struct Drowsy;

impl Actor for Drowsy {
    type Context = Context<Self>;
}

mobula::remote_actor!(Drowsy, args: (), create: |()| Drowsy, messages: [Wake, WaitAt]);
mobula::keyed_actor!(Drowsy, |_key| (), idle: Duration::from_millis(20));

/// Answers the token of this activation.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Wake;

impl Handler<Wake> for Drowsy {
    type Result = u64;

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) -> u64 {
        mobula::fence().map_or(0, |fence| fence.0)
    }
}

/// Answers when a gate is open, the mailbox being empty meanwhile.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct WaitAt {
    /// The gate.
    pub gate: String,
}

impl Handler<WaitAt> for Drowsy {
    type Result = AtomicResponse<Self, u64>;

    fn handle(&mut self, WaitAt { gate }: WaitAt, _: &mut Context<Self>) -> Self::Result {
        let token = mobula::fence().map_or(0, |fence| fence.0);
        AtomicResponse::new(Box::pin(
            async move {
                gates::pass(&gate).await;
                token
            }
            .into_actor(self),
        ))
    }
}

/// A keyed actor that is stopped soon, and whose state is saved.
#[derive(Debug)]
pub struct Purse(u64);

impl Actor for Purse {
    type Context = Context<Self>;
}

impl Snapshot for Purse {
    type State = u64;

    fn snapshot(&self) -> u64 {
        self.0
    }

    fn restore(&mut self, state: u64) {
        self.0 = state;
    }
}

mobula::remote_actor!(Purse, args: (), create: |()| Purse(0), messages: [PutIn]);
mobula::register_snapshot!(Purse);
mobula::keyed_actor!(Purse, |_key| (), idle: Duration::from_millis(50), snapshots: SnapshotPolicy::on_demand());

/// Answers how much is in the purse then.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct PutIn(pub u64);

impl Handler<PutIn> for Purse {
    type Result = u64;

    fn handle(&mut self, PutIn(amount): PutIn, _: &mut Context<Self>) -> u64 {
        self.0 += amount;
        self.0
    }
}

/// Passes amounts on to accounts, from the node where it lives.
#[derive(Debug)]
pub struct Teller;

impl Actor for Teller {
    type Context = Context<Self>;
}

mobula::remote_actor!(Teller, args: (), create: |()| Teller, messages: [PassToAccount]);

/// Enters an amount into an account.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, CallError>")]
pub struct PassToAccount {
    /// The account.
    pub to: KeyedRef<Account>,
    /// The amount.
    pub amount: u64,
}

impl Handler<PassToAccount> for Teller {
    type Result = ResponseFuture<Result<u64, CallError>>;

    fn handle(&mut self, PassToAccount { to, amount }: PassToAccount, _: &mut Context<Self>) -> Self::Result {
        Box::pin(to.ask(Enter(amount)))
    }
}
