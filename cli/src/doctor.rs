//! `mobula doctor`: what on this host would keep a node or a user from work, each with what to do about it.

mod cluster;
mod files;
mod host;

use std::path::Path;

use mobula_control::Home;
use serde::Serialize;

use crate::args::Doctor;
use crate::failure::Failure;
use crate::show;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    state: State,
    /// What there is, or why it was not looked at.
    found: String,
    /// What is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Failed,
    Skipped,
}

impl Check {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Check { what: what.into(), state: State::Ok, found: found.into(), mend: None }
    }

    fn failed(what: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Check { what: what.into(), state: State::Failed, found: found.into(), mend: Some(mend.into()) }
    }

    /// What failed says itself what is to be done.
    fn error(what: impl Into<String>, error: &dyn std::fmt::Display) -> Self {
        Check { what: what.into(), state: State::Failed, found: error.to_string(), mend: None }
    }

    fn skipped(what: impl Into<String>, why: impl Into<String>) -> Self {
        Check { what: what.into(), state: State::Skipped, found: why.into(), mend: None }
    }
}

/// Looks at everything, and fails if something is wrong.
pub(crate) async fn doctor(home: &Path, options: &Doctor, json: bool) -> Result<(), Failure> {
    let is_running = Home::is_running(home);
    let mut checks = files::checks(home);
    checks.push(host::descriptors());
    checks.push(Check::ok("cgroups", mobula_daemon::cgroups(home, is_running).to_string()));
    checks.extend(host::port_and_exposure(home, is_running, options.port));
    checks.extend(cluster::checks(home, is_running).await);
    if json {
        show::json(&checks);
    } else {
        for Check { what, state, found, mend } in &checks {
            let state = match state {
                State::Ok => "ok  ",
                State::Failed => "FAIL",
                State::Skipped => "skip",
            };
            let mend = mend.as_ref().map_or_else(String::new, |mend| format!("; {mend}"));
            println!("{state} {what}: {found}{mend}");
        }
    }
    match checks.iter().filter(|check| check.state == State::Failed).count() {
        0 => Ok(()),
        count => Err(Failure::other(format!("{count} of {} checks failed: mend that first", checks.len()))),
    }
}
