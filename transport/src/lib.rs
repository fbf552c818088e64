//! Carries frames between two nodes and matches replies to requests.
//!
//! Start at [`Session`], which decides and touches neither clock nor socket. [`Link`] moves bytes for it: callers
//! write through it from any thread, and its [`Driver`] reads where the connection lives. [`preface`] proves who
//! connects before any frame is read; [`tcp`], [`tls`], [`unix`] and [`memory`] are the wires, and [`mod@stream`] makes one of any byte stream.
//!
//! Bytes: `docs/protocol.md`. Promises: `docs/semantics.md`. This crate does not know actors.
mod credit;
mod handshake;
mod item_window;
mod link;
pub mod memory;
pub mod preface;
pub mod resume;
mod session;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod unix;
mod wire;

pub use credit::{CreditViolation, ReceiveCredit, SendCredit};
pub use handshake::Agreed;
pub use item_window::ItemWindow;
pub use link::{Driver, Gathering, Inbound, Link, LinkClosed, Request, Waiter, gather, now, settle};
pub use resume::{Found, Resume, ResumeError, Returned, Seek, WayBack};
pub use session::{
    Accepted, Call, Event, Hello, IntoBody, Lane, Payload, Received, Session, SessionConfig, SessionError,
};
pub use wire::{Wire, WireWrite};
