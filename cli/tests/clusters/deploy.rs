//! The files in `deploy/`: they are what systemd and container tools take, and the command takes their command lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Ended, Program, mobula};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above").join("deploy")
}

/// The units, and whether they are a user's.
fn units() -> Vec<(PathBuf, bool)> {
    let mut units = Vec::new();
    for (directory, is_users) in [("systemd/system", false), ("systemd/user", true)] {
        for entry in fs::read_dir(deploy().join(directory)).expect("it is there") {
            units.push((entry.expect("it was listed").path(), is_users));
        }
    }
    assert_eq!(units.len(), 3);
    units
}

/// The values of a key of a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let of_line = |line: &'a str| line.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value);
    unit.lines().filter_map(of_line).collect()
}

/// The command takes these words: it knows each flag, and would explain itself.
fn is_understood(words: &[&str]) {
    let place = tempfile::tempdir().expect("a directory");
    let ended = Program::start(mobula(&place.path().join("home")).args(words).arg("--help")).end();
    assert!(ended.ok().contains("Usage: mobula"), "{words:?}");
}

#[test]
fn every_unit_starts_a_node_in_the_foreground_without_rights() {
    for (path, is_users) in units() {
        let unit = fs::read_to_string(&path).expect("it was listed");
        let started = values(&unit, "ExecStart");
        assert_eq!(started.len(), 1, "{}", path.display());
        let started = started[0].replace("${MOBULA_HEAD}", "10.0.0.1:6379");
        let (program, words) = started.split_once(' ').expect("a program and its arguments");
        assert!(program.ends_with("/bin/mobula"), "{program}");
        let words: Vec<&str> = words.split_whitespace().collect();
        assert!(words.contains(&"--block"), "{words:?}");
        is_understood(&words);
        let has = |line: &str| assert!(unit.lines().any(|found| found == line), "{}: {line}", path.display());
        for line in
            ["Type=exec", "NoNewPrivileges=yes", "KillMode=mixed", "Delegate=yes", "UMask=0077", "RestrictSUIDSGID=yes"]
        {
            has(line);
        }
        // These exit codes do not get better by themselves.
        has("RestartPreventExitStatus=2 77 78");
        if !is_users {
            for line in [
                "User=mobula",
                "CapabilityBoundingSet=",
                "ProtectSystem=strict",
                "StateDirectory=mobula",
                "StateDirectoryMode=0700",
                "Environment=MOBULA_HOME=/var/lib/mobula",
                "LimitCORE=0",
            ] {
                has(line);
            }
            // It would keep the node from what `Delegate` gives it.
            assert!(values(&unit, "ProtectControlGroups").is_empty());
            // The home would be a link, which is refused.
            assert!(values(&unit, "DynamicUser").is_empty());
        }
    }
    let node = fs::read_to_string(deploy().join("systemd/system/mobula-node.service")).expect("there");
    let variables = fs::read_to_string(deploy().join("node.conf")).expect("there");
    assert_eq!(values(&node, "EnvironmentFile"), ["/etc/mobula/node.conf"]);
    assert!(values(&variables, "MOBULA_HEAD").len() == 1 && node.contains("${MOBULA_HEAD}"));
    // It comes back by itself: no token lies there for whoever finds it.
    assert!(!node.contains("--token") && values(&node, "StandardInput").is_empty());
}

/// `systemd-analyze`, if there is one.
fn analyze(arguments: &[&str], runtime: &Path) -> Option<Ended> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze");
        return None;
    }
    Some(Program::start(Command::new("systemd-analyze").args(arguments).env("XDG_RUNTIME_DIR", runtime)).end())
}

#[test]
fn systemd_takes_the_units_and_finds_little_exposure() {
    let place = tempfile::tempdir().expect("a directory");
    for (path, is_users) in units() {
        // It looks for the program.
        let unit = fs::read_to_string(&path).expect("it was listed");
        let own = env!("CARGO_BIN_EXE_mobula");
        let unit = unit.replace("%h/.cargo/bin/mobula", own).replace("/usr/local/bin/mobula", own);
        let copy = place.path().join(path.file_name().expect("a name"));
        fs::write(&copy, unit).expect("room");
        let copy = copy.display().to_string();
        let whose = if is_users { "--user" } else { "--system" };
        let Some(verified) = analyze(&["verify", "--man=no", whose, &copy], place.path()) else { return };
        assert!(verified.ok().is_empty() && verified.stderr.is_empty(), "{verified:?}");
        if !is_users {
            // In tenths of the ten that a service without any care has.
            let looked = analyze(&["security", "--offline=true", "--threshold=30", &copy], place.path());
            looked.expect("there is one").ok();
        }
    }
}

#[test]
fn the_container_runs_a_node_as_a_user_without_rights() {
    let text = fs::read_to_string(deploy().join("Containerfile")).expect("there").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let steps: Vec<(&str, &str)> = lines.map(|line| line.split_once(' ').expect("a word and the rest")).collect();
    const KNOWN: [&str; 13] = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
        "LABEL",
    ];
    assert!(steps.iter().all(|(step, _)| KNOWN.contains(step)), "{steps:?}");
    let of = |wanted: &str| -> &str {
        let found = steps.iter().rfind(|(step, _)| *step == wanted);
        found.unwrap_or_else(|| panic!("no {wanted}")).1
    };
    let list = |text: &str| -> Vec<String> { serde_json::from_str(text).expect("a list of words") };
    assert_eq!(list(of("ENTRYPOINT")), ["/usr/local/bin/mobula"]);
    let words = list(of("CMD"));
    is_understood(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(words.contains(&"--block".to_owned()));
    let port = words.iter().position(|word| word == "--port").expect("a port");
    assert_eq!(of("EXPOSE"), words[port + 1]);
    let (user, _) = of("USER").split_once(':').expect("a user and a group");
    assert!(user.parse::<u32>().expect("a number, which orchestrators can check") > 0);
    assert_eq!(of("ENV"), "MOBULA_HOME=/var/lib/mobula");
    assert_eq!(of("VOLUME"), "/var/lib/mobula");
    let (_, probe) = of("HEALTHCHECK").split_once("CMD ").expect("a probe");
    is_understood(&list(probe).iter().skip(1).map(String::as_str).collect::<Vec<_>>());
    // Debian's name stands in the builder's: the program finds the C library that it was built with.
    let bases: Vec<&str> = steps.iter().filter(|(step, _)| *step == "FROM").map(|(_, rest)| *rest).collect();
    assert!(bases.len() == 2 && bases.iter().all(|base| base.contains("bookworm")), "{bases:?}");
}
