//! Prints what the cluster says: tables for people, JSON for programs.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use mobula_control::{ActorTable, ClusterView};
use mobula_core::NodeUid;
use mobula_core::cluster::{
    Amount, DetachedRow, JobPhase, JobRow, NodePhase, NodeRow, Resources, UnixTime, WorkerPhase, WorkerRow,
};
use mobula_identity::{CredentialInfo, TokenInfo};
use serde::Serialize;

use crate::args::List;
use crate::login::LoginRow;

/// JSON on one line.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// One answer: as JSON, or as `people` read it.
pub(crate) fn one<T: Serialize>(json: bool, answer: &T, people: impl FnOnce(&T)) {
    if json { self::json(answer) } else { people(answer) }
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    print!("{}", table_text(head, rows));
}

fn table_text(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head.to_vec());
    table.add_rows(rows);
    table.lines().map(|line| format!("{}\n", line.trim())).collect()
}

/// The whole cluster, for a look.
pub(crate) fn status(view: &ClusterView) -> String {
    let summary = &view.summary;
    let mut text = format!(
        "cluster {}, {} of {} nodes up, {} jobs, {} workers\n",
        view.cluster, summary.nodes_up, summary.nodes, summary.jobs, summary.workers
    );
    text += &format!("resources {} free of {}\n", amounts(&summary.available), amounts(&summary.total));
    let tables = [
        Some(nodes(view)),
        (!view.jobs.is_empty()).then(|| jobs(view)),
        (!view.placement_groups.is_empty()).then(|| groups(view)),
    ];
    tables.iter().flatten().for_each(|table| text += &format!("\n{table}"));
    text
}

/// In numbers.
pub(crate) fn summary(view: &ClusterView) {
    let summary = &view.summary;
    let rows: [(&str, String); 9] = [
        ("nodes", summary.nodes.to_string()),
        ("nodes up", summary.nodes_up.to_string()),
        ("jobs", summary.jobs.to_string()),
        ("workers", summary.workers.to_string()),
        ("leases", summary.leases.to_string()),
        ("waiting", summary.waiting.to_string()),
        ("placement groups", summary.groups.to_string()),
        ("resources", amounts(&summary.total)),
        ("free", amounts(&summary.available)),
    ];
    table(&["WHAT", "HOW MUCH"], rows.into_iter().map(|(what, much)| vec![what.to_owned(), much]));
}

/// One of the lists.
pub(crate) fn list(view: &ClusterView, list: List) {
    let text = match list {
        List::Nodes => nodes(view),
        List::Workers => workers(view),
        List::Jobs => jobs(view),
        List::PlacementGroups => groups(view),
        // They are not in the view.
        List::Leases | List::Actors { .. } | List::Detached => return,
    };
    print!("{text}");
}

fn nodes(view: &ClusterView) -> String {
    let rows = view.nodes.iter().map(|node| {
        vec![
            node.name.to_string(),
            node.uid.to_string(),
            phase(node).to_owned(),
            node.address.clone(),
            format!("{}/{}", used(&node.total, &node.available, |of| of.cpus), node.total.cpus),
            format!("{}/{}", used(&node.total, &node.available, |of| of.gpus), node.total.gpus),
            bytes(node.total.memory),
            node.workers.to_string(),
            if node.uid == view.head { "head".to_owned() } else { String::new() },
        ]
    });
    table_text(&["NODE", "UID", "STATE", "ADDRESS", "CPU", "GPU", "MEMORY", "WORKERS", ""], rows)
}

fn used(total: &Resources, free: &Resources, of: impl Fn(&Resources) -> Amount) -> Amount {
    of(total).minus(of(free)).unwrap_or(Amount::ZERO)
}

fn phase(node: &NodeRow) -> &'static str {
    match node.phase {
        NodePhase::Joining => "joining",
        NodePhase::Up => "up",
        NodePhase::Suspect => "suspect",
        NodePhase::Draining => "draining",
        _ => "down",
    }
}

fn workers(view: &ClusterView) -> String {
    let name = |uid: NodeUid| {
        view.nodes.iter().find(|node| node.uid == uid).map_or_else(String::new, |node| node.name.to_string())
    };
    let rows = view.workers.iter().map(|worker| {
        vec![
            worker.uid.to_string(),
            worker.job.to_string(),
            worker.order.to_string(),
            name(worker.node),
            worker.pid.map_or_else(String::new, |pid| pid.to_string()),
            worker_phase(worker),
            worker.restarts.to_string(),
            worker.lease.map_or_else(|| "the job".to_owned(), |lease| format!("the actor of {lease}")),
        ]
    });
    table_text(&["WORKER", "JOB", "NUMBER", "NODE", "PID", "STATE", "RESTARTS", "FOR"], rows)
}

fn worker_phase(worker: &WorkerRow) -> String {
    match &worker.phase {
        WorkerPhase::Starting => "starting".to_owned(),
        WorkerPhase::Ready => "ready".to_owned(),
        WorkerPhase::Ended { reason } => format!("ended: {reason}"),
        _ => String::new(),
    }
}

fn jobs(view: &ClusterView) -> String {
    let rows = view.jobs.iter().map(|job| {
        vec![
            job.id.to_string(),
            job.phase.to_string(),
            job.workers.to_string(),
            since(job.created, job.ended.unwrap_or_else(UnixTime::now)),
            job.submitter.clone(),
            job.entrypoint.clone(),
        ]
    });
    table_text(&["JOB", "STATE", "WORKERS", "RUNS FOR", "SUBMITTER", "COMMAND"], rows)
}

/// One job.
pub(crate) fn job(job: &JobRow) {
    let mut rows = vec![
        vec!["job".to_owned(), job.id.to_string()],
        vec!["state".to_owned(), job.phase.to_string()],
        vec!["command".to_owned(), job.entrypoint.clone()],
        vec!["program".to_owned(), job.executable.hash.to_string()],
        vec!["workers".to_owned(), job.workers.to_string()],
        vec!["submitter".to_owned(), job.submitter.clone()],
        vec!["runs for".to_owned(), since(job.created, job.ended.unwrap_or_else(UnixTime::now))],
    ];
    if let Some(node) = job.driver_node {
        rows.push(vec!["driver on".to_owned(), node.to_string()]);
    }
    table(&["WHAT", "IT IS"], rows);
}

fn groups(view: &ClusterView) -> String {
    let name = |uid: &NodeUid| {
        let node = view.nodes.iter().find(|node| node.uid == *uid);
        node.map_or_else(|| uid.to_string(), |node| node.name.to_string())
    };
    let rows = view.placement_groups.iter().map(|group| {
        let mut nodes: Vec<String> = group.bundles.iter().filter_map(|(_, node)| node.as_ref().map(name)).collect();
        nodes.sort();
        nodes.dedup();
        let placed = group.bundles.iter().filter(|(_, node)| node.is_some()).count();
        let strategy = serde_json::to_value(group.strategy).ok();
        let state = serde_json::to_value(group.phase).ok();
        let word =
            |value: Option<serde_json::Value>| value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        vec![
            group.id.to_string(),
            word(state),
            word(strategy),
            format!("{placed}/{}", group.bundles.len()),
            nodes.join(" "),
        ]
    });
    table_text(&["GROUP", "STATE", "STRATEGY", "BUNDLES", "NODES"], rows)
}

/// Leases.
pub(crate) fn leases(leases: &[mobula_core::cluster::LeaseRow]) {
    let rows = leases.iter().map(|lease| vec![lease.id.to_string(), lease.node.to_string(), amounts(&lease.resources)]);
    table(&["LEASE", "NODE", "RESOURCES"], rows);
}

/// Actors; what is missing is said on standard error.
pub(crate) fn actors(found: &ActorTable) {
    let rows = found.actors.iter().map(|actor| {
        vec![
            actor.actor.to_string(),
            actor.actor_type.clone(),
            actor.name.clone().unwrap_or_default(),
            actor.job.to_string(),
            actor.actor.node.name.to_string(),
            actor.actor.node.uid.to_string(),
            actor.restarts.to_string(),
            actor.waiting.to_string(),
        ]
    });
    table(&["ACTOR", "TYPE", "NAME", "JOB", "NODE", "WORKER", "RESTARTS", "MAIL"], rows);
    if found.left_out > 0 {
        eprintln!("{} more are not listed; --limit and --job say which are", found.left_out);
    }
    if !found.silent.is_empty() {
        eprintln!("no answer from {}: what runs there is not listed", found.silent.join(", "));
    }
}

/// Detached actors.
pub(crate) fn detached(rows: &[DetachedRow]) {
    let uid = |uid: Option<NodeUid>| uid.map_or_else(String::new, |uid| uid.to_string());
    let rows = rows.iter().map(|row| vec![row.name.clone(), row.keeper.to_string(), uid(row.driver_node)]);
    table(&["NAME", "JOB", "KEPT ON"], rows);
}

/// Tokens.
pub(crate) fn tokens(tokens: &[TokenInfo]) {
    let now = UnixTime::now();
    let rows = tokens.iter().map(|token| {
        vec![token.id.to_string(), token.role.to_string(), token.uses_left.to_string(), since(now, token.expires)]
    });
    table(&["TOKEN", "ROLE", "USES LEFT", "EXPIRES IN"], rows);
}

/// Credentials of people.
pub(crate) fn credentials(credentials: &[CredentialInfo]) {
    let now = UnixTime::now();
    let rows = credentials.iter().map(|one| {
        let token = one.token.map_or_else(String::new, |token| token.to_string());
        let from = one.from.ip().to_string();
        vec![one.uid.to_string(), one.role.to_string(), from, token, since(one.since, now), since(now, one.until)]
    });
    table(&["CREDENTIAL", "ROLE", "FROM", "TOKEN", "AGE", "EXPIRES IN"], rows);
}

/// Clusters to which this user has logged in.
pub(crate) fn logins(logins: &[LoginRow]) {
    let now = UnixTime::now();
    let rows = logins.iter().map(|row| {
        let current = if row.current { "current" } else { "" };
        let left = if row.until > now { since(now, row.until) } else { "over".to_owned() };
        let heads = row.heads.join(",");
        [&row.name, &row.cluster, &row.role, &row.uid, &left, &heads, current].map(str::to_owned).to_vec()
    });
    table(&["NAME", "CLUSTER", "ROLE", "CREDENTIAL", "EXPIRES IN", "HEADS", ""], rows);
}

fn since(from: UnixTime, until: UnixTime) -> String {
    humantime::format_duration(std::time::Duration::from_secs(until.0.saturating_sub(from.0))).to_string()
}

/// `4 cpu, 16.0 GiB memory, 1 disk`.
pub(crate) fn amounts(resources: &Resources) -> String {
    let all: Vec<String> = resources
        .iter()
        .filter(|(_, amount)| !amount.is_zero())
        .map(|(name, amount)| match name {
            "memory" => format!("{} memory", bytes(amount)),
            name => format!("{amount} {name}"),
        })
        .collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

fn bytes(amount: Amount) -> String {
    let bytes = amount.whole();
    match bytes {
        0 => "0".to_owned(),
        b if b >= 1 << 30 => format!("{:.1} GiB", b as f64 / (1_u64 << 30) as f64),
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / (1_u64 << 20) as f64),
        b => format!("{b} B"),
    }
}

/// How a job that is over ends the command that has waited for it.
pub(crate) fn exit_of(phase: &JobPhase) -> Result<(), crate::failure::Failure> {
    match phase {
        JobPhase::Failed { reason } => Err(crate::failure::Failure::other(format!("the job has failed: {reason}"))),
        JobPhase::Stopped => Err(crate::failure::Failure::other("the job was stopped")),
        _ => Ok(()),
    }
}
