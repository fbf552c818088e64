//! What the example programs in `src/bin/` share; each of them is described in `README.md`.
//!
//! Start at [`primes`], the map-reduce example: its kernels, how a range is cut up, and how workers pull the pieces.
//! [`cli`] holds what every program needs towards its terminal. None of this needs a cluster to be tested.
pub mod cli;
pub mod primes;
