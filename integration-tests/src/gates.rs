//! Gates that hold a handler or a task where a test wants it. One process shares them, by name.
//!
//! Whoever [`pass`]es a gate is counted and then waits until somebody [`open`]s it. In another process, a
//! [`GateKeeper`](crate::actors::GateKeeper) does that for the test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    entered: u32,
    open: bool,
}

static GATES: Mutex<Option<HashMap<String, watch::Sender<Gate>>>> = Mutex::new(None);

fn gate(name: &str) -> watch::Sender<Gate> {
    GATES.lock().get_or_insert_default().entry(name.to_owned()).or_default().clone()
}

/// A name that no other test of this process uses.
pub fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("gate-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Enters the gate and waits until it is open.
pub async fn pass(name: &str) {
    let gate = gate(name);
    gate.send_modify(|gate| gate.entered += 1);
    // The sender is held here, so waiting cannot fail.
    let _ = gate.subscribe().wait_for(|gate| gate.open).await;
}

/// As [`pass`], holding up the whole thread.
pub fn pass_blocking(name: &str) {
    futures::executor::block_on(pass(name));
}

/// Waits until `count` have entered the gate.
pub async fn entered(name: &str, count: u32) {
    let gate = gate(name);
    let _ = gate.subscribe().wait_for(|gate| gate.entered >= count).await;
}

/// Lets everybody through, now and later.
pub fn open(name: &str) {
    gate(name).send_modify(|gate| gate.open = true);
}
