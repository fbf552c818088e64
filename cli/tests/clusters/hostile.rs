//! Command lines, files and ports that are not as they should be: the text and the exit code.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula_head::store::{Clock, MetadataStore, RedbStore, Transaction};
use redb::{Database, TableDefinition};
use serde_json::Value;

use crate::common::{Cluster, Ended, Node, Program, Root, mobula, until};

struct Place(Root);

impl Place {
    fn new() -> Place {
        Place(Root::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Program::start(mobula(&self.path("home")).args(arguments)).end()
    }

    fn start_head(&self) -> Result<Node, Ended> {
        self.start_head_with(&["--head"])
    }

    fn start_head_with(&self, arguments: &[&str]) -> Result<Node, Ended> {
        Node::start(self.0.path(), "home", arguments, None)
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_what_would_be_valid() {
    let place = Place::new();
    let start = |arguments: &[&str], words: &[&str]| {
        let all: Vec<_> = ["start"].iter().chain(arguments).copied().collect();
        place.run(&all).fails(2, words);
        assert!(!place.path("home").exists(), "{arguments:?} has made a home");
    };
    let seen = &["--token", "visible to others", "--token-file", "--token-fd", "stdin"];
    start(&["--address", "127.0.0.1:1", "--token", "abc"], seen);
    start(&["--head", "--token", "abc"], &["--head takes no token", "mobula token create"]);
    start(&["--head", "--num-cpus", "NaN"], &["--num-cpus", "NaN", "valid are a number such as 4 or 2.5"]);
    start(&["--head", "--num-cpus", "-1"], &["-1"]);
    start(&["--head", "--num-gpus", "1e3"], &["--num-gpus", "1e3", "valid are a number"]);
    start(
        &["--head", "--memory", "10XB"],
        &["--memory", "10XB", "there is no such unit", "valid are bytes such as 4GiB"],
    );
    start(&["--head", "--memory", "2000TB"], &["--memory", "2000TB", "petabyte"]);
    start(&["--head", "--resources", "disk"], &["--resources", "disk", "valid"]);
    start(&["--head", "--labels", "zone"], &["--labels", "zone", "valid"]);
    start(&["--head", "--lease", "soon"], &["--lease", "soon"]);
    start(&["--head", "--lease", "1ms"], &["--lease", "1ms", "valid are times from 100ms to 1h"]);
    let lives = "valid are times from 10s to 1day";
    start(&["--head", "--certificate-life", "2s"], &["--certificate-life", "2s", lives]);
    start(&["--head", "--certificate-life", "25h"], &["--certificate-life", "1day 1h", lives]);
    start(&["--head", "--lease", "2h"], &["--lease", "2h", "valid are times from 100ms to 1h"]);
    start(&["--head", "--port", "70000"], &["--port", "70000"]);
    start(&["--head", "--listen", "everywhere"], &["--listen", "everywhere"]);
    for address in ["host:", "host", ":6379", "127.0.0.1:99999", "127.0.0.1:x"] {
        start(&["--address", address, "--token-fd", "0"], &["--address", address, "valid are HOST:PORT"]);
    }
    start(&["--address", "127.0.0.1:1"], &["--address takes a token", "mobula token create", "--token-file"]);
    start(&["--address", "127.0.0.1:1", "--head"], &["cannot be used with"]);
    start(&[], &["--head"]);
    start(&["--address", "127.0.0.1:1", "--token-fd", "77"], &["--token-fd 77"]);
    place.run(&["token", "create", "--role", "king"]).fails(2, &["king"]);
    place.run(&["token", "create", "--ttl", "for ever"]).fails(2, &["--ttl"]);
    place.run(&["destroy"]).fails(2, &["destroy"]);
}

#[test]
fn what_a_file_of_flags_says_is_refused_with_78_and_its_place() {
    let place = Place::new();
    let file = place.path("node.toml");
    let named = file.display().to_string();
    let refused = |text: &str, words: &[&str]| {
        fs::write(&file, text).expect("room");
        place.run(&["start", "--config", &named]).fails(78, words);
        assert!(!place.path("home").exists(), "{text:?} has made a home");
    };
    let at = |place: &str| format!("{named}:{place}: ");
    refused("head = true\nnum-cpu = 1\n", &[&at("2:1"), "no key `num-cpu`", "nearest is `num-cpus`"]);
    refused("head = true\nnum-cpus = nan\n", &[&at("2:12"), "--num-cpus", "valid are a number such as 4 or 2.5"]);
    refused("head = maybe\n", &[&at("1:8")]);
    refused("token = 'mbl1.abc'\n", &["no key `token`", "nearest is `token-file`"]);
    refused(&"#".repeat(70_000), &["larger than the 65536 bytes"]);
    let nothing = place.path("nothing").display().to_string();
    place.run(&["start", "--config", &nothing]).fails(78, &["nothing: No such file"]);
    // What fits no other flag is said as if it had been typed.
    fs::write(&file, "head = true\naddress = '127.0.0.1:1'\n").expect("room");
    place.run(&["start", "--config", &named]).fails(2, &["cannot be used with"]);

    fs::write(&file, "head = true\nport = 1\nlabels = { zone = 'a' }\nresources = { disk = 2 }\n").expect("room");
    let head = place.start_head_with(&["--config", &named]).expect("typed flags count: the port is another");
    let view = place.run(&["--json", "status"]);
    assert!(view.ok().contains(r#""zone":"a""#) && view.ok().contains(r#""disk":2"#), "{view:?}");
    drop(head);
}

#[test]
fn what_is_no_token_is_not_repeated() {
    let place = Place::new();
    let file = place.path("token");
    let good = format!("mbl1.{}.{}.{}.", "a".repeat(64), "b".repeat(16), "c".repeat(64));
    let cases = [
        ("secret".to_owned(), "not a token"),
        (String::new(), "not a token"),
        (format!("{good}00000000"), "its checksum does not fit"),
        (format!("{good}0000000g"), "its checksum is not lower-case hexadecimal"),
        ("x".repeat(100_000), "not a token"),
    ];
    for (text, reason) in cases {
        fs::write(&file, &text).expect("room");
        set_mode(&file, 0o600);
        let path = file.display().to_string();
        let ended = place.run(&["start", "--address", "127.0.0.1:1", "--token-file", &path]);
        ended.fails(2, &[reason]);
        assert!(text.is_empty() || !ended.stderr.contains(&text), "{ended:?}");
        let mut command = mobula(&place.path("home"));
        let command = command.args(["start", "--address", "127.0.0.1:1", "--token-file", "-"]);
        Program::start_with(command, Some(&text)).end().fails(2, &[reason]);
    }
    let missing = place.path("missing").display().to_string();
    let ended = place.run(&["start", "--address", "127.0.0.1:1", "--token-file", &missing]);
    ended.fails(2, &[&missing, "there is no such file"]);
}

#[test]
fn a_token_file_that_others_could_have_read_ends_with_77_and_what_to_do() {
    let cluster = Cluster::head();
    let place = Place::new();
    let file = place.path("token");
    fs::write(&file, cluster.token(&[])).expect("room");
    let head = cluster.head.address.to_string();
    let start = |path: &Path, words: &[&str]| {
        let path = path.display().to_string();
        let all: Vec<_> = [path.as_str()].iter().chain(words).copied().collect();
        place.run(&["start", "--address", &head, "--port", "0", "--token-file", &path]).fails(77, &all);
    };
    set_mode(&file, 0o644);
    start(&file, &["its mode is 0644", "chmod 0600"]);
    set_mode(&file, 0o600);
    let link = place.path("link");
    symlink(&file, &link).expect("room");
    start(&link, &["it is a symbolic link"]);
    start(place.0.path(), &["it is not a regular file"]);
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(1), None).expect("root may");
        start(&file, &["it belongs to user 1", "chown it to 0"]);
    } else {
        eprintln!("skipped: the file of another user takes root");
    }
    assert_eq!(cluster.view()["summary"]["nodes"], 1);
}

#[test]
fn a_port_in_use_ends_with_4_and_its_holder() {
    let place = Place::new();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("bound").port().to_string();
    let own = std::process::id().to_string();
    let head = ["start", "--head", "--listen", "127.0.0.1", "--port", &port];
    place.run(&head).fails(4, &["port", &port, "in use", "by process", &own]);
    let foreground: Vec<_> = head.iter().chain(&["--block"]).copied().collect();
    place.run(&foreground).fails(4, &["port", &port, "in use", "by process", &own]);
}

#[test]
fn a_home_in_use_ends_with_5_and_its_pid() {
    let place = Place::new();
    let node = place.start_head().unwrap_or_else(|ended| panic!("{ended:?}"));
    let pid = node.process().pid.to_string();
    for block in [&["--block"][..], &[]] {
        let all: Vec<_> = ["start", "--head", "--port", "0"].iter().chain(block).copied().collect();
        place.run(&all).fails(5, &["in use by process", &pid]);
    }
    assert!(place.run(&["status"]).ok().contains("1 of 1 nodes up"));
}

#[test]
fn a_home_that_is_not_this_users_alone_ends_with_77() {
    let place = Place::new();
    fs::create_dir(place.path("home")).expect("room");
    set_mode(&place.path("home"), 0o755);
    let head = ["start", "--head", "--port", "0"];
    place.run(&head).fails(77, &["its mode is 0755", "chmod 0700"]);
    let ended = place.run(&["status"]);
    assert!(ended.stderr.contains("chmod 0700"), "{ended:?}");
    place.run(&["doctor"]).fails(1, &[]);
    fs::rename(place.path("home"), place.path("elsewhere")).expect("ours");
    set_mode(&place.path("elsewhere"), 0o700);
    symlink(place.path("elsewhere"), place.path("home")).expect("room");
    place.run(&head).fails(77, &["it is a symbolic link"]);
    assert!(fs::read_dir(place.path("elsewhere")).expect("there").next().is_none(), "something was left in it");
}

#[test]
fn corrupt_files_end_with_78_and_are_left_as_they_are() {
    let place = Place::new();
    let mut node = place.start_head().unwrap_or_else(|ended| panic!("{ended:?}"));
    // What was promised is in a file of its own.
    node.run(&["token", "create"]).ok();
    assert_eq!(node.run(&["stop"]).ok(), "the node has ended\n");
    node.end().ok();
    let (left, same) = ("was left as it is", "the file was not changed");
    for (name, kept) in [("identity/authority", left), ("identity/members", left), ("head.redb", same)] {
        let path = place.path("home").join(name);
        let good = fs::read(&path).expect("the head has written it");
        for bad in [&b"garbage"[..], &good[..good.len() / 2]] {
            fs::write(&path, bad).expect("room");
            let Err(ended) = place.start_head() else { panic!("{name}: it has started") };
            ended.fails(78, &[name, kept]);
            assert_eq!(fs::read(&path).expect("there"), bad, "{name}");
        }
        fs::write(&path, good).expect("room");
        if !name.starts_with("identity/") {
            // No secret: it lies in a directory of mode 0700.
            continue;
        }
        set_mode(&path, 0o640);
        let Err(ended) = place.start_head() else { panic!("{name}: it has started") };
        ended.fails(77, &[name, "its mode is 0640", "chmod 0600"]);
        set_mode(&path, 0o600);
    }
    place.start_head().unwrap_or_else(|ended| panic!("{ended:?}"));
}

/// What a file of ours says of its version, and what the next version would say.
const VERSION: (&[u8], &[u8]) = (b"\xa7version\x01", b"\xa7version\x02");

/// The file, as a program of the next version would have written it.
fn of_the_next_version(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).expect("it was written");
    let at = bytes.windows(VERSION.0.len()).position(|window| window == VERSION.0).expect("it says its version");
    bytes[at..at + VERSION.1.len()].copy_from_slice(VERSION.1);
    bytes
}

#[test]
fn state_of_a_newer_version_ends_with_78_and_is_left_as_it_is() {
    let mut cluster = Cluster::of(1);
    cluster.node("node-1").run(&["stop"]).ok();
    cluster.node("node-1").end().ok();
    cluster.run(&["stop"]).ok();
    cluster.head.end().ok();
    let newer = "it has version 2, this program reads version 1: use a newer one";
    for name in ["authority", "members"] {
        let path = cluster.head.home.join("identity").join(name);
        let (good, bad) = (fs::read(&path).expect("written"), of_the_next_version(&path));
        fs::write(&path, &bad).expect("room");
        let ended = cluster.head.fails_to_start_again(None);
        ended.fails(78, &[&path.display().to_string(), newer, "was left as it is"]);
        assert_eq!(fs::read(&path).expect("there"), bad, "{name}");
        fs::write(&path, good).expect("room");
    }

    // The file of records: one record in it, then the file itself.
    let path = cluster.head.home.join("head.redb");
    let good = fs::read(&path).expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let store = RedbStore::open(&path, Clock::new(|| Duration::ZERO)).expect("the head's");
        let mut meta = store.range("meta").await.expect("readable").entries.remove(0);
        meta.value[0] = 2;
        let writes = vec![mobula_head::Write::Put { key: meta.key, value: meta.value }];
        store.commit(Transaction { writes, ..Transaction::default() }).await.expect("written");
    });
    drop(runtime);
    let refused = |cluster: &mut Cluster, words: &[&str]| {
        let bad = fs::read(&path).expect("there");
        cluster.head.fails_to_start_again(None).fails(78, words);
        assert_eq!(fs::read(&path).expect("there").len(), bad.len());
    };
    let record =
        "record meta has version 2, this program reads versions up to 1: start a newer one; nothing was changed";
    refused(&mut cluster, &[record]);
    fs::write(&path, &good).expect("room");
    let database = Database::open(&path).expect("a database");
    let change = database.begin_write().expect("nobody else has it");
    let numbers: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
    change.open_table(numbers).expect("the head's").insert("format", 2).expect("room");
    change.commit().expect("written");
    drop(database);
    let format = "head.redb has format 2, this program reads 1: start a newer one; the file was not changed";
    refused(&mut cluster, &[format]);
    fs::write(&path, good).expect("room");
    cluster.head.start_again(None);

    let node = cluster.node("node-1");
    let path = node.home.join("membership");
    let (good, bad) = (fs::read(&path).expect("written"), of_the_next_version(&path));
    fs::write(&path, &bad).expect("room");
    node.fails_to_start_again(None).fails(78, &[&path.display().to_string(), newer, "was left as it is"]);
    assert_eq!(fs::read(&path).expect("there"), bad);
    fs::write(&path, good).expect("room");
    node.start_again(None);
    cluster.wait_for_nodes(2);
}

#[test]
fn files_of_an_identity_that_are_not_safe_end_with_77_and_what_to_do() {
    let mut cluster = Cluster::of(1);
    cluster.node("node-1").run(&["stop"]).ok();
    cluster.node("node-1").end().ok();
    cluster.run(&["stop"]).ok();
    cluster.head.end().ok();
    let Cluster { head, nodes, .. } = &mut cluster;
    let elsewhere = head.home.with_file_name("elsewhere");
    for name in ["identity/authority", "identity/members", "identity/audit.log", "membership"] {
        let node = if name == "membership" { &mut nodes[0] } else { &mut *head };
        let path = node.home.join(name);
        let named = path.display().to_string();
        let mut refused = |words: &[&str]| {
            node.fails_to_start_again(None).fails(77, &[&[named.as_str(), "is not safe for secrets"], words].concat());
        };
        set_mode(&path, 0o604);
        refused(&["its mode is 0604; chmod 0600 it"]);
        set_mode(&path, 0o600);
        fs::rename(&path, &elsewhere).expect("ours");
        symlink(&elsewhere, &path).expect("room");
        refused(&["it is a symbolic link"]);
        fs::remove_file(&path).expect("ours");
        fs::create_dir(&path).expect("room");
        refused(&["it is not a regular file"]);
        fs::remove_dir(&path).expect("ours");
        // Nobody ever writes to it, and nobody waits for that.
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).expect("room");
        refused(&["it is not a regular file"]);
        fs::remove_file(&path).expect("ours");
        fs::rename(&elsewhere, &path).expect("ours");
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(1), None).expect("root may");
            refused(&["it belongs to user 1; chown it to 0"]);
            chown(&path, Some(0), None).expect("root may");
        } else {
            eprintln!("skipped: the file of another user takes root");
        }
    }
    head.start_again(None);
    nodes[0].start_again(None);
    cluster.wait_for_nodes(2);
}

/// A node that says all that it has to say, and where it is.
fn talkative(place: &Place, name: &str, how: &[&str], token: Option<&str>) -> (Program, SocketAddr) {
    let start = ["start", "--block", "--json", "--listen", "127.0.0.1", "--advertise", "127.0.0.1", "--port", "0"];
    let mut command = mobula(&place.path(name));
    let mut node = Program::start_with(command.env("MOBULA_LOG", "debug").args(start).args(how), token);
    let line = node.line("that it is ready", |line| line.starts_with(r#"{"Ready""#));
    let told: Value = serde_json::from_str(&line).expect("JSON");
    (node, told["Ready"]["address"].as_str().and_then(|at| at.parse().ok()).expect("an address"))
}

/// What comes back for `bytes` until the other side closes, which it does by itself; how long that takes, and to whom it was said.
#[expect(clippy::disallowed_methods, reason = "how long that takes is told")]
fn answer_to(bytes: &[u8], at: SocketAddr) -> (Vec<u8>, Duration, SocketAddr) {
    let mut stream = TcpStream::connect(at).expect("it listens");
    let own = stream.local_addr().expect("connected");
    stream.set_read_timeout(Some(crate::common::LONG)).expect("a timeout");
    let begun = Instant::now();
    stream.write_all(bytes).expect("room");
    let mut answer = Vec::new();
    // It may have closed before it has read all: that is a reset.
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("it does not close: {error}"),
        _ => (answer, begun.elapsed(), own),
    }
}

#[test]
fn what_does_not_speak_tls_gets_no_byte_of_an_application_and_one_line_in_the_log() {
    let place = Place::new();
    let (head, at_head) = talkative(&place, "home", &["--head", "--name", "head"], None);
    let token = place.run(&["token", "create"]).ok().trim().to_owned();
    let join = ["--address", &at_head.to_string(), "--token-file", "-", "--name", "node"];
    let (node, at_node) = talkative(&place, "node", &join, Some(&token));
    let strangers: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/jobs/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
        b"OPTIONS * HTTP/1.1\r\nOrigin: http://localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // It begins as the name of a process does.
        b"MKCOL /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"MOBULA>\n\0\0\0\0\0\0\0\x07",
        &[0xff; 64],
    ];
    for (what, node, at) in [("head", &head, at_head), ("node", &node, at_node)] {
        for bytes in strangers {
            let text = String::from_utf8_lossy(bytes);
            let (answer, took, own) = answer_to(bytes, at);
            // A TLS alert is a record of the type 21, of two bytes.
            let is_alert = matches!(answer[..], [21, 3, _, 0, 2, 2, _]);
            assert!(answer.is_empty() || is_alert, "{what}, {text:?}: {answer:?}");
            // Long before the time that a handshake may take.
            assert!(took < Duration::from_secs(3), "{what}, {text:?}: {took:?}");
            let is_of_it = |line: &&str| match bytes.starts_with(b"MOBULA>") {
                true => line.contains("a connection to a process that is not here target=0000000000000007"),
                false => line.contains(&format!("connection refused address={own} ")),
            };
            let lines = || node.stderr().lines().filter(is_of_it).map(str::to_owned).collect::<Vec<_>>();
            let lines = until(&format!("a line of {text:?}"), || Some(lines()).filter(|lines| !lines.is_empty()));
            assert!(matches!(&lines[..], [line] if !line.contains("localhost") && !line.contains("SSH")), "{lines:?}");
        }
        assert!(!node.stderr().contains("panicked"), "{what}: {}", node.stderr());
    }
    assert!(place.run(&["status"]).ok().contains("2 of 2 nodes up"));
}

#[test]
fn without_a_node_the_command_says_how_to_start_one() {
    let place = Place::new();
    for command in
        [&["status"][..], &["node", "list"], &["job", "list"], &["token", "create"], &["summary"], &["list", "leases"]]
    {
        place.run(command).fails(69, &["no node of yours runs on this host", "mobula start --head", "MOBULA_HOME"]);
    }
    assert_eq!(place.run(&["stop"]).ok(), "no node of yours runs on this host\n");
    assert!(place.run(&["doctor"]).ok().contains("none of this user runs here"));
    assert!(!place.path("home").exists());
}

#[test]
fn a_head_that_is_not_there_ends_with_69() {
    let (place, cluster) = (Place::new(), Cluster::head());
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let token = cluster.token(&[]);
    let mut command = mobula(&place.path("home"));
    let command = command.args(["start", "--address", &nobody.to_string(), "--port", "0", "--token-file", "-"]);
    Program::start_with(command, Some(&token)).end().fails(69, &[&nobody.to_string()]);
}

#[test]
fn a_node_that_is_not_the_head_says_where_the_head_is_asked() {
    let mut cluster = Cluster::of(1);
    let head = cluster.head.address.ip().to_string();
    let node = cluster.node("node-1");
    node.run(&["status"]).fails(1, &["this node is not the head", &head]);
    node.run(&["token", "create"]).fails(1, &["this node is not the head"]);
    assert!(node.run(&["doctor"]).ok().contains("this node is not the head"));
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let commands: [&[&str]; 27] = [
        &[],
        &["start"],
        &["stop"],
        &["login"],
        &["logout"],
        &["cluster", "list"],
        &["cluster", "use"],
        &["credential", "list"],
        &["credential", "revoke"],
        &["status"],
        &["summary"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["node"],
        &["node", "drain"],
        &["node", "remove"],
        &["job"],
        &["job", "submit"],
        &["job", "logs"],
        &["job", "stop"],
        &["list"],
        &["get"],
        &["logs"],
        &["doctor"],
        &["completions"],
    ];
    for command in commands {
        let all: Vec<_> = command.iter().chain(&["--help"]).copied().collect();
        let ended = place.run(&all);
        assert!(ended.ok().contains("Usage: mobula") && ended.stdout.contains("--json"), "{ended:?}");
    }
    let start = place.run(&["start", "--help"]);
    for flag in ["--head", "--address", "--token-file", "--port", "--num-cpus", "--memory", "--labels", "--block"] {
        assert!(start.ok().contains(flag), "{flag}: {start:?}");
    }
    // Refused flags and inner ones are not offered.
    assert!(!start.ok().contains("--detached") && !start.ok().contains("--token <"), "{start:?}");
    for (shell, word) in [("bash", "_mobula"), ("zsh", "#compdef mobula"), ("fish", "complete -c mobula")] {
        let ended = place.run(&["completions", shell]);
        assert!(ended.ok().contains(word) && ended.stdout.contains("submit"), "{shell}");
    }
    place.run(&["completions", "cmd"]).fails(2, &["bash", "zsh", "fish"]);
    let page = place.run(&["man"]);
    assert!(page.ok().contains(".TH mobula 1") && page.stdout.contains("start"), "{page:?}");
    assert!(place.run(&["--version"]).ok().starts_with("mobula 0."));
}
