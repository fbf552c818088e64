//! `mobula job`.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use mobula_control::{Client, LogPart, StopJob, SubmitJob, View, hand_in, read_logs};
use mobula_core::cluster::{JobId, JobRow, Resources};

use crate::args::{Job, List, Logs, Submit};
use crate::failure::Failure;
use crate::show;

/// So long a head that was there may be away while somebody follows what it says.
pub(crate) const HEAD_AWAY_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn job(client: &Client, job: Job, json: bool) -> Result<(), Failure> {
    match job {
        Job::Submit(submit) => self::submit(client, submit, json).await,
        Job::List => {
            let view = client.ask(View {}).await?;
            match json {
                true => show::json(&view.jobs),
                false => show::list(&view, List::Jobs),
            }
            Ok(())
        }
        Job::Status { job } => {
            let row = find(client, job).await?;
            match json {
                true => show::json(&row),
                false => show::job(&row),
            }
            Ok(())
        }
        Job::Logs(logs) => self::logs(client, logs, json).await,
        Job::Stop { job } => {
            client.ask(StopJob { job }).await?;
            match json {
                true => show::json(&serde_json::json!({ "job": job, "stopping": true })),
                false => println!("{job} is being stopped"),
            }
            Ok(())
        }
    }
}

async fn find(client: &Client, job: JobId) -> Result<JobRow, Failure> {
    let view = client.ask(View {}).await?;
    view.jobs.into_iter().find(|row| row.id == job).ok_or_else(|| Failure::other(format!("there is no {job}")))
}

async fn submit(client: &Client, submit: Submit, json: bool) -> Result<(), Failure> {
    let mut environment = BTreeMap::new();
    for pair in &submit.env {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Failure::usage(format!("--env {pair:?}: valid is NAME=VALUE")));
        };
        environment.insert(name.to_owned(), value.to_owned());
    }
    let executable = hand_in(client, &submit.program).await?;
    let mut request = [0; 8];
    getrandom::fill(&mut request).map_err(std::io::Error::from)?;
    let name = submit.program.file_name().unwrap_or(submit.program.as_os_str()).to_string_lossy().into_owned();
    let words = std::iter::once(name).chain(submit.arguments.iter().cloned());
    let job = client
        .ask(SubmitJob {
            request: u64::from_be_bytes(request),
            entrypoint: words.collect::<Vec<_>>().join(" "),
            executable,
            arguments: submit.arguments,
            environment,
            resources: Resources::cpus(submit.num_cpus),
        })
        .await?;
    match (json, submit.no_wait) {
        (true, true) => show::json(&serde_json::json!({ "job": job.to_string() })),
        (false, true) => println!("{job}"),
        _ => eprintln!("{job} is submitted; `mobula job stop {job}` ends it"),
    }
    if submit.no_wait {
        return Ok(());
    }
    let printed = logs(client, Logs { job, follow: true }, json).await;
    printed.map_err(|failure| Failure {
        text: format!("{}; `mobula logs --follow {job}` goes on with it", failure.text),
        ..failure
    })?;
    show::exit_of(&find(client, job).await?.phase)
}

/// Prints what a job prints: the driver's lines as they are, those of workers with their names in front.
pub(crate) async fn logs(client: &Client, logs: Logs, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let print = |part: LogPart| {
        if json {
            let text = String::from_utf8_lossy(&part.bytes);
            writeln!(out, "{}", serde_json::json!({ "source": part.source, "text": text }))?;
        } else if part.source == "driver" {
            out.write_all(&part.bytes)?;
        } else {
            for line in part.bytes.split_inclusive(|byte| *byte == b'\n') {
                write!(out, "({}) ", part.source)?;
                out.write_all(line)?;
            }
        }
        Ok::<_, Failure>(out.flush()?)
    };
    read_logs(client, logs.job, logs.follow, HEAD_AWAY_MAX, print).await
}
