//! Who belongs to a cluster: its authority, tokens to join with, certificates that live a day, roles, and those cut off.
//!
//! Start at [`Head`], which keeps the authority and decides, and [`join()`], which is the other side. Decisions ([`Ledger`], [`Role`],
//! [`Revocations`], [`Lines`], [`Token`]) are plain code: the time comes in, nothing is read or written. `docs/security.md` says what all of it is for.
//!
//! This crate does not know actors, nor how nodes find each other.
mod audit;
mod authority;
mod error;
mod head;
mod join;
mod kept;
mod leading;
mod ledger;
mod lines;
mod members;
mod message;
mod next_key;
mod people;
mod private_file;
mod process;
mod renewal;
mod revocations;
mod role;
mod time;
mod token;

pub use audit::Audit;
pub use authority::{Authority, ClusterId, Issued};
pub use error::{IdentityError, Refusal};
pub use head::{Asked, Head};
pub use join::{JoinError, Joined, come_back, join, renew};
pub use kept::{Kept, KeptLock};
pub use leading::first_that_leads;
pub use ledger::{Ledger, TokenInfo};
pub use lines::{Lines, line_of};
pub use members::Members;
pub use message::Request;
pub use mobula_core::cluster::UnixTime;
pub use next_key::NextKey;
pub use people::CredentialInfo;
pub use private_file::{FileFault, hide_from_dumps, read_private, replace_private};
pub use process::{Certified, KeyRequest, is_job_name, job_name};
pub use renewal::keep_renewed;
pub use revocations::Revocations;
pub use role::{Capability, Role};
pub use time::renew_after;
pub use token::{Token, TokenError, TokenId};
