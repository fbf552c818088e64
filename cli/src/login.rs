//! `mobula login`, `mobula logout` and `mobula cluster`: clusters that are asked from a host that is none of their nodes.

use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

use mobula_control::{Address, Logins, resolve};
use mobula_core::cluster::UnixTime;
use mobula_identity::{ClusterId, JoinError, Kept, first_that_leads, hide_from_dumps, join};
use serde::Serialize;

use crate::args::{Cluster, Login};
use crate::failure::Failure;
use crate::{show, token_input};

/// What is told of a login.
#[derive(Serialize)]
pub(crate) struct LoginRow {
    pub(crate) name: String,
    pub(crate) current: bool,
    pub(crate) cluster: String,
    pub(crate) role: String,
    pub(crate) uid: String,
    pub(crate) until: UnixTime,
    pub(crate) heads: Vec<String>,
}

impl LoginRow {
    fn of(login: &mobula_control::Login, current: Option<&str>) -> Result<Self, Failure> {
        let kept = login.kept();
        Ok(LoginRow {
            name: login.name().to_owned(),
            current: current == Some(login.name()),
            cluster: kept.cluster().map_err(Failure::other)?.to_string(),
            role: kept.joined.role.to_string(),
            uid: kept.joined.uid.to_string(),
            until: kept.joined.until,
            heads: kept.heads.clone(),
        })
    }
}

/// Spends a token, and keeps what is given for it.
pub(crate) async fn login(
    login: Login,
    said: Option<(&'static str, Address)>,
    home: &Path,
    json: bool,
) -> Result<(), Failure> {
    let (place, heads) = match said {
        Some((place, Address::Heads(heads))) => (place, heads),
        _ => return Err(Failure::usage("login takes --address HOST:PORT: where a head of the cluster is")),
    };
    let role = login.role;
    if !role.is_person() {
        let text = format!(
            "--role {role}: valid are client, operator and observer; a node joins with `mobula start --address`"
        );
        return Err(Failure::usage(text));
    }
    // Without that it works as well.
    let _ = hide_from_dumps();
    let token = token(login.token)?;
    let logins = Logins::create(home)?;
    let cluster = ClusterId(token.pin()).to_string();
    // Before the token is spent.
    logins.may_keep(login.name.as_deref().unwrap_or(&cluster), &cluster)?;
    let addresses = heads.iter().map(|head| resolve(head)).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|error| Failure::usage(format!("{place} {error}")))?;
    let joined = first_that_leads(&addresses, |head| join(head, &token, role)).await;
    let (_, joined) = joined.map_err(|error| match error {
        error @ JoinError::JoinRejected { .. } => {
            Failure::not_permitted(format!("{error}. Is the token for another role than {role} (--role)?"))
        }
        error => error.into(),
    })?;
    drop(token);
    let login = logins.keep(login.name.as_deref(), Kept { joined, heads }).await?;
    let row = LoginRow::of(&login, Some(login.name()))?;
    if json {
        show::json(&row);
    } else {
        let until = humantime::format_rfc3339_seconds(row.until.system());
        println!(
            "logged in to cluster {} as {} {}, until {until} and for as long as it is used",
            row.name, row.role, row.uid
        );
    }
    Ok(())
}

/// From where the flags say, else from standard input, if that is no terminal.
fn token(mut input: crate::args::TokenInput) -> Result<mobula_identity::Token, Failure> {
    if input.token.is_none() && input.token_file.is_none() && input.token_fd.is_none() {
        if stdin().is_terminal() {
            return Err(Failure::usage(
                "login takes a token, which whoever runs the cluster makes with `mobula token create --role client`: give it by --token-file, \
                 --token-fd or standard input",
            ));
        }
        input.token_file = Some(PathBuf::from("-"));
    }
    token_input::read(&input)
}

/// Forgets a login. The certificate is good until its end: an operator can revoke it.
pub(crate) fn logout(home: &Path, name: Option<&str>, json: bool) -> Result<(), Failure> {
    let Some(logins) = Logins::open(home)? else { return Err(nowhere()) };
    let name = match name {
        Some(name) => name.to_owned(),
        None => logins.default()?.ok_or_else(nowhere)?.name().to_owned(),
    };
    let name = logins.remove(&name)?;
    if json {
        show::json(&serde_json::json!({ "logged_out": name }));
    } else {
        println!("logged out of cluster {name}");
    }
    Ok(())
}

fn nowhere() -> Failure {
    Failure::other("you are not logged in to any cluster; `mobula login --address HOST:PORT` does that")
}

/// Lists logins, or makes one the current one.
pub(crate) fn cluster(home: &Path, cluster: Cluster, json: bool) -> Result<(), Failure> {
    let logins = Logins::open(home)?;
    match cluster {
        Cluster::List => {
            let mut rows = Vec::new();
            if let Some(logins) = logins {
                let current = logins.default().ok().flatten().map(|login| login.name().to_owned());
                for name in logins.names()? {
                    rows.push(LoginRow::of(&logins.read(&name)?, current.as_deref())?);
                }
            }
            show::one(json, &rows, |rows| show::logins(rows));
        }
        Cluster::Use { name } => {
            let name = logins.ok_or_else(nowhere)?.make_current(&name)?;
            if json {
                show::json(&serde_json::json!({ "current": name }));
            } else {
                println!("cluster {name} is asked from now on, where nothing else is said");
            }
        }
    }
    Ok(())
}
