//! A program that runs: what it prints goes to files, so that it never waits for its reader, and can be read while it runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{LONG, Process, until, wait_until};

/// A program that runs. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    words: String,
    stdout: File,
    stderr: File,
}

impl Program {
    /// Starts it, its standard input empty.
    pub(crate) fn start(command: &mut Command) -> Program {
        Program::start_with(command, None)
    }

    /// Starts it, with `input` on its standard input.
    pub(crate) fn start_with(command: &mut Command, input: Option<&str>) -> Program {
        let stdout = tempfile::tempfile().expect("a file");
        let stderr = tempfile::tempfile().expect("a file");
        command.stdout(stdout.try_clone().expect("a descriptor")).stderr(stderr.try_clone().expect("a descriptor"));
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let words = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{words}: {error}"));
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // If it does not read it, its end says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        Program { child, words, stdout, stderr }
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// What it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        content(&self.stdout)
    }

    /// What it has complained of so far.
    pub(crate) fn stderr(&self) -> String {
        content(&self.stderr)
    }

    /// Waits for a whole line of its standard output that is as `wanted`, and gives it.
    pub(crate) fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(&format!("{what} from {}", self.words), || {
            let text = self.stdout();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let found = whole.lines().find(|line| wanted(line)).map(str::to_owned);
            if found.is_none() && self.has_ended() && self.stdout() == text {
                panic!("{} has ended without {what}: {text:?}, {:?}", self.words, self.stderr());
            }
            found
        })
    }

    /// True once it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Kills it, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> Ended {
        let mut status = None;
        wait_until(LONG, &format!("the end of {}", self.words), || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        Ended {
            words: self.words.clone(),
            status: status.expect("it has ended"),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn content(file: &File) -> String {
    let length = file.metadata().expect("it is open").len();
    let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
    file.read_exact_at(&mut bytes, 0).expect("so much is there");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a program has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    #[expect(dead_code, reason = "a failed test shows it")]
    words: String,
    /// Its exit code, or the signal that has ended it.
    pub(crate) status: ExitStatus,
    /// All that it has printed.
    pub(crate) stdout: String,
    /// All that it has complained of.
    pub(crate) stderr: String,
}

impl Ended {
    /// What it has printed, if it has ended well.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert!(self.status.success(), "{self:?}");
        &self.stdout
    }

    /// The JSON that it has printed, if it has ended well.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It has ended with `code` and has printed each of `words` to standard error.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
    }
}
