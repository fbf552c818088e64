//! An actor that acts under a name, and leaves a trace of it that outlives its process.

use std::fs::OpenOptions;
use std::io::Write;

use actix::prelude::*;
use mobula::RemoteMessage;
use serde::{Deserialize, Serialize};

/// Writes its fencing token into a file with each message that it handles.
#[derive(Debug)]
pub struct Holder {
    file: String,
}

impl Actor for Holder {
    type Context = Context<Self>;
}

mobula::remote_actor!(Holder, args: String, create: |file| Holder { file }, messages: [Act]);

/// Acts once. Answers the fencing token, 0 if there is none.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Act;

impl Handler<Act> for Holder {
    type Result = u64;

    fn handle(&mut self, _: Act, _: &mut Context<Self>) -> u64 {
        let token = mobula::fence().map_or(0, |fence| fence.0);
        if !self.file.is_empty() {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.file).expect("a file to write");
            file.write_all(format!("{token}\n").as_bytes()).expect("room for a line");
        }
        token
    }
}

/// The tokens in a holder's file, in the order in which they acted.
///
/// # Panics
/// If the file is not one of a holder.
pub fn acts(file: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a token")).collect()
}
