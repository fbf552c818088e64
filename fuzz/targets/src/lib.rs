//! A function for each parser of bytes that a peer sends: it takes any bytes, and panics if a promise is broken.
//!
//! libFuzzer runs them (`fuzz/run`), and so do the tests of this crate: over the corpus in `fuzz/corpus/<target>`, over
//! changed copies of it, and with a count of what is allocated.
//!
//! A finding: put its bytes into the corpus under a name that says what it was, see the test fail, mend the code.

mod bodies;
mod control;
mod frames;
mod joining;
mod packing;
mod session;

/// A target: takes any bytes.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("frame", frames::frame),
    ("frame_stream", frames::frame_stream),
    ("prescan", bodies::prescanned),
    ("bodies", bodies::bodies),
    ("hello", session::hello),
    ("preface", joining::preface),
    ("join_request", joining::join_request),
    ("token", joining::token),
    ("session", session::two_peers),
    ("control", control::requests),
    ("packed", packing::packed),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
