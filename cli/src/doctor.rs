//! `mobula doctor`: what on this host would keep a node from its work.

use std::path::Path;
use std::time::Duration;

use mobula_control::{Client, Home, Login, LoginError, Logins, View};
use serde::Serialize;

use crate::failure::Failure;
use crate::show;

#[derive(Serialize)]
struct Check {
    what: String,
    ok: bool,
    found: String,
}

/// Fewer descriptors than this are few for a node with many links.
const DESCRIPTORS_MIN: u64 = 1024;

/// Looks at everything, and fails if something is wrong.
pub(crate) async fn doctor(home: &Path, json: bool) -> Result<(), Failure> {
    let mut checks = vec![files(home), descriptors(), clock(), groups(home)];
    checks.push(node(home).await);
    checks.extend(logins(home).await);
    let ok = checks.iter().all(|check| check.ok);
    if json {
        show::json(&checks);
    } else {
        for check in &checks {
            println!("{} {}: {}", if check.ok { "ok  " } else { "FAIL" }, check.what, check.found);
        }
    }
    if ok { Ok(()) } else { Err(Failure::other("something has to be mended first")) }
}

fn files(home: &Path) -> Check {
    let what = "home".to_owned();
    if !home.exists() {
        return Check { what, ok: true, found: format!("{} is made by the first start", home.display()) };
    }
    match Home::open(home) {
        Ok(_) => Check { what, ok: true, found: format!("{} is this user's alone", home.display()) },
        Err(error) => Check { what, ok: false, found: error.to_string() },
    }
}

fn descriptors() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let found = format!("{soft} may be open at a time; `ulimit -n` raises that");
    Check { what: "descriptors".to_owned(), ok: soft >= DESCRIPTORS_MIN, found }
}

/// Without them a node works as well.
fn groups(home: &Path) -> Check {
    let found = mobula_daemon::cgroups(home, Home::is_running(home)).to_string();
    Check { what: "cgroups".to_owned(), ok: true, found }
}

/// Certificates are good from five minutes before they are given, so a clock may be wrong by less than that.
fn clock() -> Check {
    let now = mobula_core::cluster::UnixTime::now();
    // 2025: before that this program did not exist.
    let ok = now.0 > 1_735_689_600;
    let text = humantime::format_rfc3339_seconds(now.system()).to_string();
    Check {
        what: "clock".to_owned(),
        ok,
        found: format!("it is {text}; hosts of a cluster may differ by less than 5 minutes"),
    }
}

async fn node(home: &Path) -> Check {
    let what = "node".to_owned();
    if !Home::is_running(home) {
        return Check { what, ok: true, found: "none of this user runs here".to_owned() };
    }
    match Client::local(home).ask_within(View {}, Duration::from_secs(2)).await {
        Ok(view) => {
            let found = format!("the head of cluster {} answers: version {}", view.cluster, view.version);
            Check { what, ok: true, found }
        }
        Err(error) => match error {
            mobula_control::ControlError::Refused(refusal) => {
                Check { what, ok: true, found: format!("it answers: {refusal}") }
            }
            error => Check { what, ok: false, found: error.to_string() },
        },
    }
}

/// The credentials of this user, and whether the heads that they are for take them.
async fn logins(home: &Path) -> Vec<Check> {
    let failed = |what: String, error: LoginError| Check { what, ok: false, found: error.to_string() };
    let named = match Logins::open(home) {
        Ok(None) => return Vec::new(),
        Ok(Some(logins)) => logins.names().map(|names| (logins, names)),
        Err(error) => Err(error),
    };
    let (logins, names) = match named {
        Ok(named) => named,
        Err(error) => return vec![failed("logins".to_owned(), error)],
    };
    let mut checks = Vec::new();
    for name in names {
        let what = format!("login {name}");
        checks.push(match logins.read(&name) {
            Ok(login) => self::login(what, login).await,
            Err(error) => failed(what, error),
        });
    }
    checks
}

async fn login(what: String, login: Login) -> Check {
    let (role, until) = (login.kept().joined.role, login.kept().joined.until);
    let until = humantime::format_rfc3339_seconds(until.system());
    let answered = match login.target().await {
        Ok((target, _)) => Client::new(target).ask_within(View {}, Duration::from_secs(5)).await,
        Err(error) => Err(error.into()),
    };
    match answered {
        Ok(view) => {
            let found =
                format!("as {role} until {until}, renewed by use; the head of cluster {} answers", view.cluster);
            Check { what, ok: true, found }
        }
        Err(error) => Check { what, ok: false, found: format!("as {role} until {until}: {error}") },
    }
}
