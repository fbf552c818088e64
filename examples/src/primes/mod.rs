//! The sum of the primes up to n, as a map-reduce over worker actors.
//!
//! [`args`] says what may be asked, [`plan`] cuts the range into chunks, [`kernel`] computes one of them, and [`pull`]
//! hands them to workers until all are done. The program that joins these to a cluster is `src/bin/primes.rs`.
pub mod args;
pub mod kernel;
pub mod plan;
pub mod pull;
pub mod sieve;
