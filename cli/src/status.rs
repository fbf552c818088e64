//! `mobula status`, once or at each change.

use std::io::{IsTerminal, Write};

use mobula_control::{Client, ControlError, Heard, View, WatchView, follow_patiently};

use crate::failure::Failure;
use crate::job::HEAD_AWAY_MAX;
use crate::show;

/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows the cluster: once, or again whenever it has changed.
pub(crate) async fn status(client: &Client, follow: bool, json: bool) -> Result<(), Failure> {
    if !follow {
        let view = client.ask(View {}).await?;
        show::one(json, &view, |view| print!("{}", show::status(view)));
        return Ok(());
    }
    match follow_patiently(client, WatchView {}, HEAD_AWAY_MAX, |heard| print(heard, json)).await {
        // Nobody reads any more.
        Err(End::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(End::Output(error)) => Err(error.into()),
        Err(End::Head(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Why nothing more is shown.
enum End {
    Head(ControlError),
    Output(std::io::Error),
}

impl From<ControlError> for End {
    fn from(error: ControlError) -> Self {
        End::Head(error)
    }
}

fn print(heard: Heard<'_, mobula_control::ClusterView>, json: bool) -> Result<(), End> {
    let view = match heard {
        Heard::Item(view) => view,
        Heard::Away(error) => {
            eprintln!("{error}; trying again");
            return Ok(());
        }
    };
    let mut out = std::io::stdout().lock();
    let text = match json {
        true => serde_json::to_string(&view).unwrap_or_default() + "\n",
        false if out.is_terminal() => CLEAR.to_owned() + &show::status(&view),
        false => show::status(&view) + "\n",
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(End::Output)
}
