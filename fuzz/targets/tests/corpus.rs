//! Every target over its corpus, over changed copies of it, and what that allocates. A program of its own, for its allocator counts.

use std::alloc::System;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use mobula_fuzz_targets::{TARGETS, Target, target};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test at a time, for they count together.
static ALONE: Mutex<()> = Mutex::new(());

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("it was listed").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("it was listed")))
        .collect();
    files.sort();
    files
}

#[test]
fn every_corpus_belongs_to_a_target_and_has_something_in_it() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for entry in fs::read_dir(directory).expect("it is there") {
        let name = entry.expect("it was listed").file_name().into_string().expect("a plain name");
        assert!(target(&name).is_some(), "{name} is no target");
    }
    for (name, _) in TARGETS {
        assert!(corpus(name).len() >= 3, "{name}");
    }
}

/// All that is allocated while one input is looked at, not only what is held at once.
#[test]
fn no_input_allocates_more_than_four_times_itself_and_64_kib() {
    let _alone = ALONE.lock().expect("no other test has failed");
    for (name, target) in TARGETS {
        // Two sessions, their pipes, and the messages that the steps ask for.
        let times = if name == "session" { 4 * 1024 } else { 4 };
        for (file, bytes) in corpus(name).into_iter().chain(announcements()) {
            let region = Region::new(ALLOCATOR);
            target(&bytes);
            let allocated = region.change().bytes_allocated;
            let most = times * bytes.len() + 64 * 1024;
            assert!(allocated <= most, "{name}: {file}: {allocated} bytes for {}", bytes.len());
        }
    }
}

/// Short bytes that announce much.
fn announcements() -> Vec<(String, Vec<u8>)> {
    let lengths: [&[u8]; 8] = [
        b"\xff\xff\xff\xff\x12\0",
        b"\x01\0\0\0\x12\0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x7f\xff\xff\xff\xa1a",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x81\xa4Join\x84\xa5token\x01\xa4role\xa6worker\xa3csr\xc6\xff\xff\xff\xff",
        b"\x00\x00\x00\x0b\x03\0\x81\xa4node\xdd\xff\xff\xff",
    ];
    lengths.iter().map(|bytes| (format!("{bytes:?}"), bytes.to_vec())).collect()
}

/// What a fuzzer does, without one: bytes changed, left out, doubled and put together. The same each time.
#[test]
fn changed_copies_of_the_corpus_break_nothing() {
    let _alone = ALONE.lock().expect("no other test has failed");
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        for (_, bytes) in &corpus {
            for _ in 0..100 {
                run(name, target, &changed(bytes, &corpus, &mut chance));
            }
        }
    }
}

fn run(name: &str, target: Target, bytes: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        eprintln!("{name}: put this into its corpus: {bytes:02x?}");
        std::panic::resume_unwind(panic);
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }
}

fn changed(bytes: &[u8], corpus: &[(String, Vec<u8>)], chance: &mut Chance) -> Vec<u8> {
    const TELLING: [u8; 10] = [0, 1, 0x7f, 0x80, 0x81, 0xc1, 0xc6, 0xdd, 0xdf, 0xff];
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            1 if !bytes.is_empty() => bytes[at] = TELLING[chance.below(TELLING.len())],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, TELLING[chance.below(TELLING.len())]),
            4 => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece[..piece.len().min(1_000)]);
            }
            _ => {
                let other = &corpus[chance.below(corpus.len())].1;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[chance.below(other.len())..]);
            }
        }
    }
    bytes
}
