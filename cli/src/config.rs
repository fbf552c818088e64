//! `mobula start --config FILE`: the flags of `start`, written down. What is typed as well counts instead of what the file says.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::Cli;
use crate::failure::Failure;

const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What only the command line can say, or says only to itself.
const TYPED_ONLY: [&str; 2] = ["config", "token-fd"];

/// What was typed, and behind it what the file says that `--config` names, if there is one.
pub(crate) fn with_file(mut typed: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some(path) = named(&typed) else { return Ok(typed) };
    let from_file = read(&path)?.into_iter().filter(|flag| !typed.iter().any(|word| flag.is(word)));
    let from_file: Vec<_> = from_file.map(|flag| flag.word.into()).collect();
    typed.extend(from_file);
    Ok(typed)
}

/// A flag as it is typed.
struct Flag {
    name: String,
    word: String,
}

impl Flag {
    fn is(&self, typed: &OsString) -> bool {
        let typed = typed.to_string_lossy();
        typed.split_once('=').map_or(&*typed, |(flag, _)| flag) == format!("--{}", self.name)
    }
}

/// The file that was typed behind `start --config`. What else is wrong is found later.
fn named(typed: &[OsString]) -> Option<PathBuf> {
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(typed).ok()?;
    matches.subcommand_matches("start")?.get_one::<PathBuf>("config").cloned()
}

fn read(path: &Path) -> Result<Vec<Flag>, Failure> {
    let bad = |error: &dyn Display| Failure::not_configured(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| bad(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(&format!("it is larger than the {FILE_BYTES_MAX} bytes that are read")));
    }
    flags(&text).map_err(|Wrong { at, what }| {
        let before = &text[..at.min(text.len())];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Failure::not_configured(format!("{}:{line}:{column}: {what}", path.display()))
    })
}

/// What is wrong in a file, and at which byte.
struct Wrong {
    at: usize,
    what: String,
}

fn flags(text: &str) -> Result<Vec<Flag>, Wrong> {
    let table = DeTable::parse(text)
        .map_err(|error| Wrong { at: error.span().unwrap_or_default().start, what: error.message().to_owned() })?;
    let cli = Cli::command();
    let start = cli.find_subcommand("start").map(Command::get_arguments).into_iter().flatten();
    let known: Vec<(&str, &Arg)> = start
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| Some((arg.get_long()?, arg)))
        .filter(|(long, _)| !TYPED_ONLY.contains(long))
        .collect();
    let mut flags = Vec::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().to_string();
        let Some((_, arg)) = known.iter().find(|(long, _)| *long == name) else {
            let likeness = |long: &str| strsim::jaro_winkler(long, &name);
            let nearest = known.iter().map(|(long, _)| *long).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let nearest = nearest.unwrap_or_default();
            let what = format!(
                "there is no key `{name}`; the nearest is `{nearest}`, and keys are the flags of `mobula start`"
            );
            return Err(Wrong { at: key.span().start, what });
        };
        let word = match (arg.get_action(), value.get_ref()) {
            (ArgAction::SetTrue, DeValue::Boolean(false)) => continue,
            (ArgAction::SetTrue, DeValue::Boolean(true)) => format!("--{name}"),
            (ArgAction::SetTrue, _) => return Err(wrong(value.span(), format!("`{name}` is true or false"))),
            _ => format!("--{name}={}", word(value, ",").map_err(|what| wrong(value.span(), what))?),
        };
        check(arg, &word).map_err(|what| wrong(value.span(), what))?;
        flags.push(Flag { name, word });
    }
    Ok(flags)
}

fn wrong(span: Range<usize>, what: String) -> Wrong {
    Wrong { at: span.start, what }
}

/// A value as it is typed: lists with `between` them, tables as `key=value`.
fn word(value: &Spanned<DeValue<'_>>, between: &str) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Array(values) if !between.is_empty() => {
            let words: Result<Vec<_>, _> = values.iter().map(|value| word(value, "")).collect();
            Ok(words?.join(between))
        }
        DeValue::Table(table) if !between.is_empty() => {
            let pair = |(key, value): (&Spanned<_>, _)| Ok(format!("{}={}", key.get_ref(), word(value, "")?));
            let pairs: Result<Vec<_>, String> = table.iter().map(pair).collect();
            Ok(pairs?.join(between))
        }
        _ => Err("this is a text, a number, a list of them, or a table of them".to_owned()),
    }
}

/// What the flag alone says to its value.
fn check(arg: &Arg, word: &str) -> Result<(), String> {
    let alone = Arg::new(arg.get_id().clone())
        .long(arg.get_long().unwrap_or_default().to_owned())
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone());
    let parsed = Command::new("file").no_binary_name(true).arg(alone).try_get_matches_from([word]);
    parsed.map(drop).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words: Vec<_> =
            flags(text).unwrap_or_else(|wrong| panic!("{}", wrong.what)).into_iter().map(|flag| flag.word).collect();
        words.sort();
        words
    }

    #[test]
    fn a_file_says_what_can_be_typed() {
        let text = r#"
            head = true
            block = false
            port = 6379
            num-cpus = 2.5
            memory = "4GiB"
            listen = "127.0.0.1"
            labels = { zone = "a" }
            [resources]
            disk = 1
        "#;
        let expected = [
            "--head",
            "--labels=zone=a",
            "--listen=127.0.0.1",
            "--memory=4GiB",
            "--num-cpus=2.5",
            "--port=6379",
            "--resources=disk=1",
        ];
        assert_eq!(words(text), expected);
        assert_eq!(words(r#"address = ["10.0.0.1:6379", "10.0.0.2:6379"]"#), ["--address=10.0.0.1:6379,10.0.0.2:6379"]);
        assert!(words("# nothing").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_would_be_valid() {
        for (text, at, words) in [
            ("head = true\nnum-cpu = 2", 12, &["`num-cpu`", "nearest is `num-cpus`"][..]),
            ("token = \"mbl1\"", 0, &["`token`", "nearest is `token-file`"]),
            ("token-fd = 7", 0, &["no key `token-fd`"]),
            ("detached = true", 0, &["no key `detached`"]),
            ("head = 1", 7, &["`head` is true or false"]),
            ("num-cpus = nan", 11, &["--num-cpus", "valid are a number"]),
            ("port = 70000", 7, &["--port", "70000"]),
            ("labels = [[1]]", 9, &["a text, a number, a list of them"]),
            ("port = 1\nport = 2", 9, &["duplicate key"]),
            ("port 1", 5, &[]),
        ] {
            let Err(wrong) = flags(text) else { panic!("{text} makes sense") };
            assert_eq!(wrong.at, at, "{text}: {}", wrong.what);
            words.iter().for_each(|word| assert!(wrong.what.contains(word), "{text}: {}", wrong.what));
        }
    }

    #[test]
    fn what_is_typed_counts() {
        let flag = |name: &str| Flag { name: name.to_owned(), word: String::new() };
        for (name, typed, is) in [
            ("port", "--port", true),
            ("port", "--port=1", true),
            ("port", "--ports=1", false),
            ("head", "head", false),
        ] {
            assert_eq!(flag(name).is(&OsString::from(typed)), is, "{name} {typed}");
        }
    }
}
