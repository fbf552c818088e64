//! `mobula man`: the manual page of the command, or of one of its commands, or all of them as files.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::failure::Failure;
use crate::show;

/// Prints the page of the command that these words are, or writes all pages.
pub(crate) fn man(words: &[String], into: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut command = Cli::command();
    // Now each command has its whole name, and the flags that all take.
    command.build();
    match into {
        Some(directory) => write(&command, directory, json),
        None => Ok(Man::new(of(&command, words)?.clone()).render(&mut std::io::stdout())?),
    }
}

fn of<'a>(root: &'a Command, words: &[String]) -> Result<&'a Command, Failure> {
    words.iter().try_fold(root, |command, word| {
        command.find_subcommand(word).ok_or_else(|| {
            let valid: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
            let there = if valid.is_empty() { "none".to_owned() } else { valid.join(", ") };
            Failure::usage(format!("there is no command `{name} {word}`: commands of `{name}` are {there}"))
        })
    })
}

/// All pages, as `mobula.1`, `mobula-start.1`, `mobula-job-submit.1`.
fn write(root: &Command, directory: &Path, json: bool) -> Result<(), Failure> {
    let failed = |error| Failure::other(format!("the pages cannot be written to {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut pages = Vec::new();
    for command in all(root) {
        pages.push(Man::new(command.clone()).generate_to(directory).map_err(failed)?);
    }
    match json {
        true => show::json(&pages),
        false => println!("{} pages are in {}", pages.len(), directory.display()),
    }
    Ok(())
}

/// The command and those under it.
fn all(root: &Command) -> Vec<&Command> {
    let below = root.get_subcommands().filter(|command| !command.is_hide_set());
    std::iter::once(root).chain(below.flat_map(all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Command {
        let mut root = Cli::command();
        root.build();
        root
    }

    fn page(command: &Command) -> String {
        let mut page = Vec::new();
        Man::new(command.clone()).render(&mut page).expect("memory");
        String::from_utf8(page).expect("text").replace('\\', "")
    }

    #[test]
    fn every_flag_of_every_command_is_on_its_page() {
        let root = root();
        let commands = all(&root);
        assert!(commands.len() > 30, "{}", commands.len());
        let mut flags = 0;
        for command in commands {
            let page = page(command);
            let name = command.get_display_name().unwrap_or_else(|| command.get_name());
            assert!(page.contains(name), "{name}: {page}");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let word = match arg.get_long() {
                    Some(long) => format!("--{long}"),
                    None => arg.get_value_names().map(|names| names[0].to_string()).unwrap_or_default(),
                };
                assert!(!word.is_empty() && page.contains(&word), "{word} is not on the page of {name}: {page}");
                // The last line of its help may be the default.
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let begins: String =
                    help.chars().take_while(|letter| letter.is_alphanumeric() || *letter == ' ').collect();
                assert!(page.contains(begins.trim()), "{help} is not on the page of {name}: {page}");
                flags += 1;
            }
        }
        assert!(flags > 100, "{flags}");
    }

    #[test]
    fn words_are_a_command_or_what_would_be_one_is_said() {
        let (root, words) = (root(), |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for (typed, name) in [("", "mobula"), ("start", "mobula-start"), ("job submit", "mobula-job-submit")] {
            let found = of(&root, &words(typed)).unwrap_or_else(|failure| panic!("{}", failure.text));
            assert_eq!(found.get_display_name().unwrap_or_else(|| found.get_name()), name);
        }
        for (typed, said) in [("stat", "status"), ("job begin", "submit"), ("start here", "are none")] {
            let Err(failure) = of(&root, &words(typed)) else { panic!("{typed} is a command") };
            assert_eq!(failure.code, 2);
            assert!(failure.text.contains(said), "{}", failure.text);
        }
    }
}
