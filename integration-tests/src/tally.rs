//! An actor that is sent numbers, and keeps account of those that are missing, doubled or out of order.

use actix::prelude::*;
use mobula::RemoteMessage;
use serde::{Deserialize, Serialize};

/// What has come so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Numbers that came, doubled ones among them.
    pub came: u64,
    /// Numbers that were left out when a larger one came.
    pub lost: u64,
    /// Numbers that came although a number as large had come.
    pub doubled_or_late: u64,
    /// One more than the largest number.
    pub next: u64,
}

/// Keeps the account.
#[derive(Debug, Default)]
pub struct Tally(Account);

impl Actor for Tally {
    type Context = Context<Self>;
}

mobula::remote_actor!(Tally, args: (), create: |()| Tally::default(), messages: [Count, Accounted]);

/// One number. Answers it.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Count(pub u64);

impl Handler<Count> for Tally {
    type Result = u64;

    fn handle(&mut self, Count(number): Count, _: &mut Context<Self>) -> u64 {
        let account = &mut self.0;
        account.came += 1;
        if number < account.next {
            account.doubled_or_late += 1;
        } else {
            account.lost += number - account.next;
            account.next = number + 1;
        }
        number
    }
}

/// The account.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Account")]
pub struct Accounted;

impl Handler<Accounted> for Tally {
    type Result = MessageResult<Accounted>;

    fn handle(&mut self, _: Accounted, _: &mut Context<Self>) -> MessageResult<Accounted> {
        MessageResult(self.0)
    }
}
