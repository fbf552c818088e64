//! Every target over its corpus, over changed copies of it, and what that allocates. A program of its own, for its allocator counts.

use std::alloc::System;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use mobula_core::limits;
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

/// So many times its bytes an input may allocate. Packed bodies count as what they may stand for.
fn times(target: &str) -> usize {
    match target {
        "packed" => 4 * limits::PACKED_RATIO_MAX,
        _ => 4,
    }
}

/// All that is allocated while one input is looked at, not only what is held at once.
#[test]
fn no_input_allocates_more_than_four_times_itself_and_64_kib() {
    let _alone = ALONE.lock().expect("no other test has failed");
    for (name, target) in TARGETS {
        // Two sessions, their pipes, and the messages that the steps ask for.
        let times = if name == "session" { 4 * 1024 } else { times(name) };
        for (file, bytes) in corpus(name).into_iter().chain(announcements()) {
            let region = Region::new(ALLOCATOR);
            target(&bytes);
            let allocated = region.change().bytes_allocated;
            let most = times * bytes.len() + 64 * 1024;
            assert!(allocated <= most, "{name}: {file}: {allocated} bytes for {}", bytes.len());
        }
    }
}

/// Looks for inputs that allocate much for their size, among changed copies of the corpus and streams made for it, and prints the worst of each
/// target: `cargo test -p mobula-fuzz-targets --test corpus worst -- --nocapture`.
#[test]
fn the_worst_that_is_found_allocates_no_more_than_four_times_itself_and_64_kib() {
    let _alone = ALONE.lock().expect("no other test has failed");
    for (name, target) in TARGETS {
        // Its steps ask for messages: what it allocates is not for what it receives. A session that receives is in `hello`.
        if name == "session" {
            continue;
        }
        let mut inputs = corpus(name);
        if name == "hello" {
            inputs.extend(session_streams());
        }
        let mut chance = Chance(0x2545_f491_4f6c_dd1d);
        let (mut worst, mut look) = ((0.0, String::new(), 0, 0), 0);
        while look < inputs.len() {
            let (file, bytes) = inputs[look].clone();
            look += 1;
            let region = Region::new(ALLOCATOR);
            target(&bytes);
            let (allocated, length) = (region.change().bytes_allocated, bytes.len());
            let most = times(name) * length + 64 * 1024;
            assert!(allocated <= most, "{name}: {file}: {allocated} bytes for {length}");
            let share = allocated as f64 / most as f64;
            // What is worse than all before is where to look further.
            let tries = if share > worst.0 && look < 300 { 10 } else { usize::from(look < 60) };
            if share > worst.0 {
                worst = (share, file.clone(), allocated, length);
            }
            for _ in 0..tries {
                let mut bytes = changed(&bytes, &inputs, &mut chance);
                bytes.truncate(64 * 1024);
                inputs.push((format!("{file}, changed"), bytes));
            }
        }
        let (share, file, allocated, length) = worst;
        println!(
            "{name}: {allocated} bytes allocated for {length}, {:.0}% of what is allowed, of {look} inputs: {}",
            100.0 * share,
            file.rsplit('/').next().unwrap_or(&file)
        );
    }
}

/// For the target `hello`: a good hello and then thousands of frames of one kind, each as small as it can be.
fn session_streams() -> Vec<(String, Vec<u8>)> {
    let good = corpus("hello").into_iter().find(|(file, _)| file.ends_with("/good")).expect("it is there").1;
    // Its first byte says how long the hello is; frames follow.
    let hello = &good[..usize::from(good[0]).min(good.len())];
    let frame = |kind: u8, rest: &[u8]| [&(2 + rest.len() as u32).to_be_bytes()[..], &[kind, 0], rest].concat();
    let number = |n: u32| n.to_be_bytes();
    let long = |n: u32| u64::from(n).to_be_bytes();
    let define = |n: u32| frame(0x10, &[&number(n)[..], b"\x82\xa4name\xa1a\xa6schema\x00"].concat());
    let ask = |n: u32, kind: u8| {
        let (request, target) = (long(n), long(n));
        frame(kind, &[&request[..], &target[..], &number(0)[..], &number(u32::MAX)[..], b"\xc0"].concat())
    };
    type Make<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let packed = |n: u32| {
        let body = [&number(80)[..], &number(3), b"\x1f\xc0\x01\x00\x40"].concat();
        frame(0x11, &[&long(n)[..], &long(n), &number(0), &number(u32::MAX), &body].concat())
    };
    let flagged = |mut frame: Vec<u8>| {
        frame[5] = 1;
        frame
    };
    let kinds: [(&str, Make<'_>); 14] = [
        ("packed asks", Box::new(move |n| if n == 0 { define(0) } else { flagged(packed(n)) })),
        ("pings", Box::new(|n| frame(0x01, &long(n)))),
        ("defines", Box::new(define)),
        ("asks", Box::new(move |n| if n == 0 { define(0) } else { ask(n, 0x11) })),
        ("posts", Box::new(move |n| if n == 0 { define(0) } else { ask(n, 0x17) })),
        ("cancels", Box::new(|n| frame(0x15, &long(n)))),
        ("credits", Box::new(move |n| frame(0x16, &[&long(n)[..], &number(1)].concat()))),
        ("replies", Box::new(|n| frame(0x13, &[&long(n)[..], b"\xc0"].concat()))),
        ("items", Box::new(|n| frame(0x18, &[&long(n)[..], b"\xc0"].concat()))),
        ("mores", Box::new(move |n| frame(0x19, &[&long(n)[..], &number(1)].concat()))),
        ("fragments", Box::new(move |n| frame(0x20, &[&number(n % 16)[..], b"\x12"].concat()))),
        ("empty fragments", Box::new(move |n| frame(0x20, &number(n % 16)))),
        ("fragments that end", Box::new(move |n| frame(0x20 + (n % 2) as u8, &[&number(n / 2)[..], b"\x15"].concat()))),
        ("fragments that are dropped", Box::new(move |n| frame(0x20 + 2 * (n % 2) as u8, &number(n / 2)))),
    ];
    kinds
        .iter()
        .map(|(kind, make)| {
            let frames: Vec<u8> = (0..1_000).flat_map(make).collect();
            ((*kind).to_owned(), [hello, &frames].concat())
        })
        .collect()
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
