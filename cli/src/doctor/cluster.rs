//! What only the cluster knows: whether its head answers, what time it is there, which versions run, and until when this host's certificates are good.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobula_control::{
    Client, ClusterView, ControlError, HeadNow, Heads, Login, LoginError, Logins, Target, View, resolve,
};
use mobula_core::cluster::{NodePhase, UnixTime};
use mobula_core::limits::CLOCK_SKEW_MAX;
use mobula_daemon::kept_membership;
use mobula_identity::Kept;

use super::Check;

const LOCAL_WITHIN: Duration = Duration::from_secs(2);
const HEAD_WITHIN: Duration = Duration::from_secs(5);
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// 2025: before that this program did not exist.
const CLOCK_MIN: UnixTime = UnixTime(1_735_689_600);

/// What a head has said of itself.
struct Head {
    cluster: Option<String>,
    version: String,
    now: UnixTime,
    /// This host's clock, before it was asked and after.
    asked: [UnixTime; 2],
    nodes: Vec<(String, String)>,
}

pub(super) async fn checks(home: &Path, is_running: bool) -> Vec<Check> {
    let mut heads = Vec::new();
    let membership = kept_membership(home);
    let mut checks = vec![node(home, is_running, &mut heads).await];
    checks.extend(match membership {
        Ok(None) if home.join("identity").exists() => Some(Check::ok(
            "certificate",
            "a head gives itself one at each start, for 24 h at most, and renews it for as long as it runs",
        )),
        Ok(None) => None,
        Ok(Some(kept)) => {
            heads.extend(of_member(&kept).await);
            Some(certificate("certificate", &kept, UnixTime::now(), is_running))
        }
        Err(error) => Some(Check::error("certificate", &error)),
    });
    checks.extend(logins(home, &mut heads).await);
    checks.push(clock(UnixTime::now(), &heads));
    checks.push(versions(&heads));
    checks
}

async fn node(home: &Path, is_running: bool, heads: &mut Vec<Head>) -> Check {
    if !is_running {
        return Check::ok("node", "none of this user runs here");
    }
    let before = UnixTime::now();
    match Client::local(home).ask_within(View {}, LOCAL_WITHIN).await {
        Ok(view) => {
            let found = format!("the head of cluster {} answers: version {}", view.cluster, view.version);
            heads.push(Head::of(view, before));
            Check::ok("node", found)
        }
        Err(ControlError::Refused(refusal)) => Check::ok("node", format!("it answers: {refusal}")),
        Err(error) => Check::error("node", &error),
    }
}

impl Head {
    fn of(view: ClusterView, before: UnixTime) -> Self {
        let up = view.nodes.iter().filter(|node| node.phase != NodePhase::Down);
        let nodes = up.map(|node| (node.name.to_string(), node.version.clone())).collect();
        let (cluster, asked) = (Some(view.cluster), [before, UnixTime::now()]);
        Head { cluster, version: view.version, now: view.now, asked, nodes }
    }
}

/// The head of the cluster of which this host is a node, if it answers.
async fn of_member(kept: &Kept) -> Option<Head> {
    let mut addresses = kept.heads.iter().filter_map(|head| resolve(head).ok());
    let heads = Heads::new(addresses.next()?, addresses);
    let own = &kept.joined.credentials;
    let credentials = mobula_transport::tls::Credentials {
        chain: own.chain.clone(),
        key: own.key.clone_key(),
        authority: own.authority.clone(),
    };
    let credentials = Arc::new(parking_lot::RwLock::new(Arc::new(credentials)));
    let before = UnixTime::now();
    let client = Client::new(Target::Remote { heads, credentials, life: kept.joined.uid, job: None });
    let answer = client.ask_within(HeadNow {}, HEAD_WITHIN).await.ok()?;
    let asked = [before, UnixTime::now()];
    Some(Head { cluster: None, version: answer.version, now: answer.now, asked, nodes: Vec::new() })
}

/// The credentials of this user, and whether the heads that they are for take them.
async fn logins(home: &Path, heads: &mut Vec<Head>) -> Vec<Check> {
    let named = match Logins::open(home) {
        Ok(None) => return Vec::new(),
        Ok(Some(logins)) => logins.names().map(|names| (logins, names)),
        Err(error) => Err(error),
    };
    let (logins, names) = match named {
        Ok(named) => named,
        Err(error) => return vec![Check::error("logins", &error)],
    };
    let mut checks = Vec::new();
    for name in names {
        let what = format!("login {name}");
        match logins.read(&name) {
            Ok(login) => checks.push(self::login(what, login, heads).await),
            Err(error) => checks.push(Check::error(what, &error)),
        }
    }
    checks
}

async fn login(what: String, login: Login, heads: &mut Vec<Head>) -> Check {
    let kept = login.kept();
    let as_role = format!("as {} until {}", kept.joined.role, date(kept.joined.until));
    let before = UnixTime::now();
    let answered = match login.target().await {
        Ok((target, _)) => Client::new(target).ask_within(View {}, HEAD_WITHIN).await,
        Err(error) => Err(error.into()),
    };
    match answered {
        Ok(view) => {
            let found = format!("{as_role}, renewed by use; the head of cluster {} answers", view.cluster);
            heads.push(Head::of(view, before));
            Check::ok(what, found)
        }
        Err(ControlError::Login(error @ LoginError::Over { .. })) => Check::error(what, &error),
        Err(error) => Check::error(what, &format!("{as_role}: {error}")),
    }
}

/// The certificate of a node that has joined.
fn certificate(what: &str, kept: &Kept, now: UnixTime, is_running: bool) -> Check {
    let until = date(kept.joined.until);
    if kept.is_over(now) {
        let mend = "start it once more with --address and a token of `mobula token create`";
        return Check::failed(what, format!("that of this node was good until {until}, and is over"), mend);
    }
    let renewal = match (kept.is_due(now), is_running) {
        (true, true) => "is due, and is renewed as soon as the head answers",
        (true, false) => "is due: start the node before that, or it takes a token to come back",
        (false, true) => "is renewed when two thirds of its life are over",
        (false, false) => "lets the node come back until then",
    };
    Check::ok(what, format!("that of this node is good until {until}, and {renewal}"))
}

/// Certificates are good from five minutes before they are given, so a clock may be wrong by less than that.
fn clock(now: UnixTime, heads: &[Head]) -> Check {
    let mend = "set the clock of that host which is wrong, with NTP (`timedatectl set-ntp true`)";
    let here = format!("it is {} here", date(now));
    if now < CLOCK_MIN {
        return Check::failed("clock", here, mend);
    }
    let apart = |head: &&Head| {
        let [before, after] = head.asked;
        let (ahead, behind) = (before.0.saturating_sub(head.now.0), head.now.0.saturating_sub(after.0));
        (ahead.max(behind), if ahead > behind { "ahead of" } else { "behind" })
    };
    // A head of an earlier version does not say what time it is.
    let known = heads.iter().filter(|head| head.now != UnixTime::default());
    let Some((seconds, how)) = known.map(|head| apart(&head)).max() else {
        let why = format!(
            "{here}, and no head has said what time it is there: up to {} min may lie between",
            CLOCK_SKEW_MAX.as_secs() / 60
        );
        return Check::skipped("clock", why);
    };
    let time = humantime::format_duration(Duration::from_secs(seconds));
    let found = format!("{here}, {time} {how} the head's; up to {} min are borne", CLOCK_SKEW_MAX.as_secs() / 60);
    match seconds > CLOCK_SKEW_MAX.as_secs() {
        true => Check::failed("clock", found, mend),
        false => Check::ok("clock", found),
    }
}

/// Before 1.0 a minor version may speak otherwise.
fn versions(heads: &[Head]) -> Check {
    let mut others = Vec::new();
    for head in heads {
        let name =
            head.cluster.as_ref().map_or_else(|| "the head".to_owned(), |cluster| format!("the head of {cluster}"));
        let nodes = head.nodes.iter().map(|(name, version)| (format!("node {name}"), version));
        let all = std::iter::once((name, &head.version)).chain(nodes);
        others.extend(
            all.filter(|(_, version)| !speaks_with(version)).map(|(who, version)| format!("{who} has {version}")),
        );
    }
    match (heads.is_empty(), others.is_empty()) {
        (true, _) => Check::skipped("versions", format!("this program is {VERSION}; no head has answered to compare")),
        (false, true) => {
            Check::ok("versions", format!("this program is {VERSION}, and speaks with all that were asked"))
        }
        (false, false) => Check::failed(
            "versions",
            format!("this program is {VERSION}, but {}", others.join(", ")),
            "install one version everywhere: the head first, then nodes one by one",
        ),
    }
}

/// Both have the same major and minor version.
fn speaks_with(version: &str) -> bool {
    let protocol = |version: &str| version.splitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
    protocol(version) == protocol(VERSION)
}

fn date(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(time.system()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn head(now: UnixTime, version: &str, nodes: &[(&str, &str)]) -> Head {
        let nodes = nodes.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        Head {
            cluster: Some("abc".to_owned()),
            version: version.to_owned(),
            now,
            asked: [NOW, UnixTime(NOW.0 + 2)],
            nodes,
        }
    }

    #[test]
    fn clocks_may_differ_by_five_minutes_and_no_more() {
        let at = |now: u64| clock(NOW, &[head(UnixTime(now), VERSION, &[])]);
        for (now, state, said) in [
            (NOW.0, State::Ok, "0s behind"),
            (NOW.0 + 302, State::Ok, "5m behind"),
            (NOW.0 - 300, State::Ok, "5m ahead of"),
            (NOW.0 + 303, State::Failed, "5m 1s behind"),
            (NOW.0 - 301, State::Failed, "5m 1s ahead of"),
            (0, State::Skipped, "no head has said"),
        ] {
            let check = at(now);
            assert!(check.state == state && check.found.contains(said), "{now}: {check:?}");
            assert_eq!(check.mend.is_some_and(|mend| mend.contains("NTP")), state == State::Failed);
        }
        assert_eq!(clock(UnixTime(1_000_000_000), &[]).state, State::Failed);
        assert_eq!(clock(NOW, &[]).state, State::Skipped);
    }

    #[test]
    fn who_has_another_version_is_named() {
        let (major, rest) = VERSION.split_once('.').expect("three numbers");
        let minor = rest.split_once('.').expect("three numbers").0;
        let later_patch = format!("{major}.{minor}.999");
        let other = format!("{major}.{}.0", minor.parse::<u32>().expect("a number") + 1);
        let nodes = [("node-1", later_patch.as_str()), ("node-2", other.as_str())];
        assert_eq!(versions(&[head(NOW, VERSION, &nodes[..1])]).state, State::Ok);
        assert_eq!(versions(&[]).state, State::Skipped);
        let check = versions(&[head(NOW, &other, &nodes)]);
        assert_eq!(check.state, State::Failed);
        assert!(check.found.contains(&format!("the head of abc has {other}, node node-2 has {other}")), "{check:?}");
        assert!(!check.found.contains("node-1") && check.mend.is_some());
    }
}
