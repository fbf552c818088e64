//! The commands in the pages for operators, typed as they stand there: `head`, `node-2`, `laptop` and others are homes on this host, `ssh` runs a command in
//! another of them, and a node listens on loopback, at a port that the system chooses. Each has a `/usr/local/bin` of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Ended, Process, Program, Root, Signal, job_program, mobula, outside};
use crate::failures::wait_for_round;

const OPERATING: &str = include_str!("../../../docs/book/operating.md");
const FROM_RAY: &str = include_str!("../../../docs/book/from-ray-commands.md");
/// The addresses of heads in the pages, and on which host each is.
const HEADS: [(&str, &str); 2] = [("10.0.0.1:6379", "head"), ("10.0.0.5:6379", "spare")];
const HOSTS: [&str; 6] = ["head", "head-2", "spare", "node-2", "node-3", "laptop"];

/// In front of the real command: what a test has to say besides. A node that starts again has the port that it had.
const MOBULA: &str = r#"#!/bin/bash
[ "$1" = start ] || exec "$REAL_MOBULA" "$@"
echo old >> "$MOBULA_HOME.started"
port=$(cat "$MOBULA_HOME.port" 2> /dev/null || echo 0)
arguments=("$@")
for pair in --port="$port" --listen=127.0.0.1 --advertise=127.0.0.1 --num-cpus=1 --name="$(basename "$MOBULA_HOME")"; do
    case " $* " in *" ${pair%%=*} "*) ;; *) arguments+=("$pair") ;; esac
done
said=$("$REAL_MOBULA" "${arguments[@]}") || exit
echo "$said"
[[ $said =~ :([0-9]+)$ ]] && echo "${BASH_REMATCH[1]}" > "$MOBULA_HOME.port"
"#;

const SSH: &str = r#"#!/bin/bash
host=$1
shift
export MOBULA_HOME="$(dirname "$MOBULA_HOME")/$host"
export MOBULA_BIN="$MOBULA_HOME.bin"
PATH="$MOBULA_BIN:$TEST_PATH" exec bash -c "$*"
"#;

struct Hosts(Root);

impl Hosts {
    fn new() -> Hosts {
        let root = Root::new();
        for directory in ["bin", "work/target/release", "work/new"] {
            fs::create_dir_all(root.path().join(directory)).expect("room");
        }
        let new = MOBULA.replace("echo old", "echo new");
        for (name, text) in [("bin/mobula", MOBULA), ("bin/ssh", SSH), ("work/new/mobula", &new)] {
            let path = root.path().join(name);
            fs::write(&path, text).expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        for host in HOSTS {
            fs::create_dir(root.path().join(format!("{host}.bin"))).expect("room");
        }
        symlink(job_program(), root.path().join("work/target/release/my-program")).expect("room");
        Hosts(root)
    }

    fn home(&self, host: &str) -> PathBuf {
        self.0.path().join(host)
    }

    /// Types commands on the head, and stops at the first that fails.
    fn type_in(&self, commands: &str) -> Ended {
        let mut commands = commands.replace("/usr/local/bin", "$MOBULA_BIN");
        for (address, host) in HEADS {
            let Some(first) = commands.lines().position(|line| line.contains(address)) else { continue };
            // The head may be started by the very commands.
            let find = format!(r#"export {host}=127.0.0.1:$(cat "$(dirname "$MOBULA_HOME")/{host}.port")"#);
            let mut lines: Vec<&str> = commands.lines().collect();
            lines.insert(first, &find);
            commands = lines.join("\n").replace(address, &format!("${host}"));
        }
        let own = self.0.path().join("head.bin");
        let path = format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH").expect("a path"));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &commands]).current_dir(self.0.path().join("work"));
        for name in ["MOBULA_ADDRESS", "MOBULA_DRIVER", "MOBULA_NODE", "MOBULA_LOG"] {
            bash.env_remove(name);
        }
        bash.env("PATH", format!("{}:{path}", own.display())).env("TEST_PATH", path).env("MOBULA_BIN", own);
        bash.env("REAL_MOBULA", env!("CARGO_BIN_EXE_mobula")).env("MOBULA_HOME", self.home("head"));
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

/// Blocks of commands are for a cluster with one head, with several, for one that gets a new program, or whose head's host is lost.
const KINDS: [&str; 4] = ["sh,head", "sh,etcd", "sh,upgrade", "sh,recovery"];

/// The blocks of commands of one kind on a page.
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    // What stands in a file is not typed.
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).filter(|block| !block.starts_with("toml\n")).collect();
    let is_typed = |block: &&str| block.split_once('\n').is_some_and(|(kind, _)| KINDS.contains(&kind));
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

#[test]
fn the_file_of_flags_in_the_chapter_makes_a_node_as_it_says() {
    let hosts = Hosts::new();
    hosts.type_in("mobula start --head && mobula token create > token && chmod 0600 token").ok();
    let (work, port) = (hosts.0.path().join("work"), hosts.0.path().join("head.port"));
    let head = format!("127.0.0.1:{}", fs::read_to_string(port).expect("it has started").trim());
    let text = OPERATING.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let token = work.join("token").display().to_string();
    let text = text.replace(HEADS[0].0, &head).replace("/run/credentials/mobula/token", &token);
    assert!(text.contains(&head) && text.contains(&token), "{text}");
    fs::write(work.join("node.toml"), text).expect("room");
    // What the test says besides would count instead.
    let start =
        r#"MOBULA_HOME="$(dirname "$MOBULA_HOME")/node-2" "$REAL_MOBULA" start --config node.toml --name node-2"#;
    hosts.type_in(&format!("{start} --port 0 --listen 127.0.0.1 --advertise 127.0.0.1")).ok();
    let row: serde_json::Value = hosts.type_in("mobula get node-2").json();
    assert_eq!((&row["labels"]["zone"], &row["labels"]["disk"]), (&"b".into(), &"ssd".into()), "{row}");
    assert_eq!((&row["total"]["cpus"], &row["total"]["custom"]["license"]), (&8.into(), &2.into()), "{row}");
}

/// Two nodes besides the head.
const JOIN_TWO: &str = "mobula start --head
for node in node-2 node-3; do mobula token create | ssh $node mobula start --address 10.0.0.1:6379 --token-file -; done";

#[test]
fn a_cluster_is_upgraded_as_the_chapter_says_and_a_job_goes_on() {
    let hosts = Hosts::new();
    hosts.type_in(JOIN_TWO).ok();
    let over = hosts.0.path().join("over");
    let mut driver = Program::start(outside(&hosts.home("head")).arg("rounds").arg(&over));
    let all = ["head", "node-2", "node-3"];
    let before = wait_for_round(&driver, &all);
    for block in blocks(OPERATING, "sh,upgrade") {
        hosts.type_in(block).ok();
    }
    let after = wait_for_round(&driver, &all);
    assert!(before.iter().all(|process| !after.contains(process)), "{before:?}, {after:?}");
    for host in all {
        let started = fs::read_to_string(hosts.0.path().join(format!("{host}.started"))).expect("it has started");
        assert_eq!(started, "old\nnew\n", "{host}");
    }
    let copied: Vec<_> = ["identity/authority", "identity/members", "head.redb"].to_vec();
    for name in copied {
        assert!(hosts.0.path().join("work/before").join(name).exists(), "{name}");
    }
    fs::write(&over, "").expect("room");
    assert!(driver.end().ok().contains("the rounds are over"));
}

#[test]
fn a_head_whose_host_is_lost_comes_back_elsewhere_as_the_chapter_says() {
    let hosts = Hosts::new();
    hosts.type_in(JOIN_TWO).ok();
    hosts
        .type_in("mobula token create --role client | ssh laptop mobula login --address 10.0.0.1:6379 --name lab")
        .ok();
    hosts.type_in("mobula job submit target/release/my-program -- sum 10").ok();
    let blocks = blocks(OPERATING, "sh,recovery");
    let (last, copies) = blocks.split_last().expect("blocks");
    assert_eq!(copies.len(), 2, "{blocks:?}");
    for block in copies {
        hosts.type_in(block).ok();
    }
    let status: serde_json::Value = hosts.type_in("mobula status --json").json();
    // Its host is no more.
    let pid = fs::read_to_string(hosts.home("head").join("control.lock")).expect("it runs");
    Process::of(pid.trim().parse().expect("a pid")).signal(Signal::KILL);
    fs::rename(hosts.home("head"), hosts.0.path().join("lost")).expect("ours");
    let said = hosts.type_in(last);
    for word in ["node spare of cluster", "node node-2 of cluster", "node node-3 of cluster", "3 of ", "job-1"] {
        assert!(said.ok().contains(word), "{word:?} is not in {said:?}");
    }
    let now: serde_json::Value = hosts.type_in("ssh spare mobula status --json").json();
    assert_eq!((&now["cluster"], &now["summary"]["nodes_up"]), (&status["cluster"], &3.into()), "{now}");
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
