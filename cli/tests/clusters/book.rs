//! The commands in the pages for operators, typed as they stand there: `head`, `node-2`, `node-3` and `laptop` are homes on this host, `ssh` runs a command in
//! another of them, and a node listens on loopback, at a port that the system chooses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Ended, Program, Root, job_program, mobula};

const OPERATING: &str = include_str!("../../../docs/book/operating.md");
const FROM_RAY: &str = include_str!("../../../docs/book/from-ray-commands.md");
/// The address of the head in the pages.
const HEAD: &str = "10.0.0.1:6379";
const HOSTS: [&str; 5] = ["head", "head-2", "node-2", "node-3", "laptop"];

/// In front of the real command: what a test has to say besides.
const MOBULA: &str = r#"#!/bin/bash
arguments=("$@")
if [ "$1" = start ]; then
    for pair in --port=0 --listen=127.0.0.1 --advertise=127.0.0.1 --num-cpus=1 --name="$(basename "$MOBULA_HOME")"; do
        case " $* " in *" ${pair%%=*} "*) ;; *) arguments+=("$pair") ;; esac
    done
fi
exec "$REAL_MOBULA" "${arguments[@]}"
"#;

const SSH: &str = r#"#!/bin/bash
host=$1
shift
MOBULA_HOME="$(dirname "$MOBULA_HOME")/$host" exec bash -c "$*"
"#;

struct Hosts(Root);

impl Hosts {
    fn new() -> Hosts {
        let root = Root::new();
        for directory in ["bin", "work/target/release"] {
            fs::create_dir_all(root.path().join(directory)).expect("room");
        }
        for (name, text) in [("mobula", MOBULA), ("ssh", SSH)] {
            let path = root.path().join("bin").join(name);
            fs::write(&path, text).expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        symlink(job_program(), root.path().join("work/target/release/my-program")).expect("room");
        Hosts(root)
    }

    fn home(&self, host: &str) -> PathBuf {
        self.0.path().join(host)
    }

    /// Types commands on the head, and stops at the first that fails.
    fn type_in(&self, commands: &str) -> Ended {
        let mut commands = commands.to_owned();
        if commands.contains(HEAD) {
            // The head may be started by the very commands.
            let find = r#"head=$(mobula status --json | grep -o '"address":"[^"]*"' | head -n 1 | cut -d '"' -f 4)"#;
            let first = commands.lines().position(|line| line.contains(HEAD)).expect("it is there");
            let mut lines: Vec<&str> = commands.lines().collect();
            lines.insert(first, find);
            commands = lines.join("\n").replace(HEAD, "$head");
        }
        let path = format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH").expect("a path"));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &commands]).current_dir(self.0.path().join("work"));
        for name in ["MOBULA_ADDRESS", "MOBULA_DRIVER", "MOBULA_NODE", "MOBULA_LOG"] {
            bash.env_remove(name);
        }
        bash.env("PATH", path).env("REAL_MOBULA", env!("CARGO_BIN_EXE_mobula")).env("MOBULA_HOME", self.home("head"));
        Program::start(&mut bash).end()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in HOSTS {
            if std::thread::panicking() {
                eprintln!("--- {host}:\n{}", fs::read_to_string(self.home(host).join("node.log")).unwrap_or_default());
            }
            Program::start(mobula(&self.home(host)).arg("stop")).end();
        }
    }
}

/// The blocks of commands of a page, for a cluster with one head (`sh,head`) or with several (`sh,etcd`).
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    // What stands in a file is not typed.
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).filter(|block| !block.starts_with("toml\n")).collect();
    let is_typed = |block: &&str| block.starts_with("sh,head\n") || block.starts_with("sh,etcd\n");
    assert!(blocks.iter().all(is_typed), "a block that nobody types: {blocks:?}");
    blocks
        .into_iter()
        .filter_map(|block| block.split_once('\n'))
        .filter(|(of, _)| *of == kind)
        .map(|(_, text)| text)
        .collect()
}

/// The commands in the second column of a page's table.
fn cells(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.replace("\\|", "\u{1}")).filter_map(|row| {
        let cell = row.split('|').nth(2)?.trim().strip_prefix("`mobula ")?.strip_suffix('`')?;
        Some(format!("mobula {cell}").replace('\u{1}', "|"))
    });
    cells.collect()
}

#[test]
fn the_commands_of_the_chapter_for_operators_do_what_it_says() {
    let hosts = Hosts::new();
    let blocks = blocks(OPERATING, "sh,head");
    assert!(blocks.len() >= 11, "{blocks:?}");
    let mut said = String::new();
    for block in &blocks {
        said += hosts.type_in(block).ok();
    }
    for word in [
        "2 of 2 nodes up",
        "sum: 338350",
        "sum: 333833500",
        "zone",
        "node-3",
        "is revoked",
        "job-3 is being stopped",
        "logged in to cluster lab as client",
        "logged out of cluster lab",
        "node-2 is draining",
        "node-3 is cut off",
        "the node has ended",
    ] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    let first: Vec<&str> = blocks[0].lines().collect();
    assert_eq!(first.len(), 5, "five commands are promised");
}

/// Named so that it runs with the others of several heads.
#[cfg(feature = "etcd")]
mod several_heads {
    use super::{Hosts, OPERATING, blocks};
    use crate::etcd::Etcd;

    /// The addresses of the heads in the page.
    const HEADS: &str = "10.0.0.1:6379,10.0.0.2:6379";
    /// The first two nodes are the heads.
    const FIND: &str =
        r#""$(mobula status --json | grep -o '"address":"[^"]*"' | cut -d '"' -f 4 | head -n 2 | paste -sd,)""#;

    #[test]
    fn the_commands_of_the_chapter_on_several_heads_do_what_it_says() {
        let Some(etcd) = Etcd::start() else { return };
        let hosts = Hosts::new();
        let blocks = blocks(OPERATING, "sh,etcd");
        assert_eq!(blocks.len(), 2, "{blocks:?}");
        let mut said = String::new();
        for block in blocks {
            let block = block.replace("etcd://10.0.0.9:2379", &etcd.url()).replace(HEADS, FIND);
            said += hosts.type_in(&block).ok();
        }
        for word in ["3 of 3 nodes up", "the node has ended", "head-2", "node head of cluster"] {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    }
}

#[test]
fn the_commands_for_those_who_come_from_ray_work_in_their_order() {
    let hosts = Hosts::new();
    let cells = cells(FROM_RAY);
    assert!(cells.len() >= 18, "{cells:?}");
    for cell in cells {
        hosts.type_in(&cell).ok();
    }
}

/// Commands that stand within the text: the words after `mobula` are commands.
#[test]
fn every_command_that_is_named_in_the_pages_exists() {
    let place = tempfile::tempdir().expect("a directory");
    for page in [OPERATING, FROM_RAY] {
        for span in
            page.split('`').skip(1).step_by(2).filter(|span| span.starts_with("mobula ") && !span.contains('\n'))
        {
            let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            let words: Vec<&str> = span.split_whitespace().skip(1).take_while(is_word).take(2).collect();
            let words = words.iter().copied().filter(|word| !word.starts_with('-') && !word.contains("node-"));
            let command: Vec<&str> = words.chain(["--help"]).collect();
            if !span.contains("COMMAND") {
                Program::start(mobula(place.path()).args(command)).end().ok();
            }
        }
    }
}
