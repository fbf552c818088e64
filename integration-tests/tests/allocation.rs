//! A length is a claim: an announced frame allocates nothing before its bytes arrive. In a file of its own, since it
//! counts the allocations of its whole process.

use std::alloc::System;

use mobula::NodeUid;
use mobula_core::limits;
use mobula_integration_tests::door::{self, Insider};
use mobula_integration_tests::stage::{run_plain, start_node};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::within;
use mobula_transport::preface::Secret;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// All that may be allocated from the announcement to the end of the connection, goodbye, logs and heartbeats of others
/// included.
const BYTES_MAX: usize = 64 * 1024;

#[test]
fn an_announced_length_allocates_nothing() {
    run_plain(async {
        let secret = Secret::from_bytes([7; 32]);
        let node = start_node("node");
        let address = door::open(&node, &secret);
        let longest = limits::FRAME_BYTES_MAX as u32;
        // Too long, and refused; or as long as may be, and never sent.
        for (number, length) in [u32::MAX, longest + 1, longest, longest / 2].into_iter().enumerate() {
            let uid = NodeUid(100 + number as u64);
            let mut insider = within(LONG, "a peer", Insider::connect(uid, node.id().uid, address, &secret)).await;
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend_from_slice(&[0x12, 0, 0, 0]);
            let region = Region::new(ALLOCATOR);
            insider.send(&bytes).await;
            if length <= longest {
                insider.send_end().await;
            }
            let last_words = within(LONG, "the end", insider.read_to_the_end()).await;
            let allocated = region.change().bytes_allocated;
            let text = String::from_utf8_lossy(&last_words);
            assert!(text.contains(if length > longest { "FrameTooLarge" } else { "Truncated" }), "{text}");
            println!("a frame of {length} bytes announced: {allocated} bytes allocated until the connection's end");
            assert!(allocated < BYTES_MAX, "{allocated} bytes allocated for an announced {length}");
        }
        node.shut_down("over");
    });
}
