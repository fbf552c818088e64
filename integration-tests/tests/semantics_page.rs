//! Every promise of `docs/semantics.md` names the tests that prove it, and they exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above").to_path_buf()
}

/// The promises of a page: its list items, each as one line.
fn promises(page: &str) -> Vec<String> {
    let mut promises: Vec<String> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        if let Some(first) = line.strip_prefix("- ") {
            promises.push(first.to_owned());
            open = true;
        } else if open && line.starts_with("  ") {
            let promise = promises.last_mut().expect("one is open");
            promise.push(' ');
            promise.push_str(line.trim());
        } else {
            open = false;
        }
    }
    promises
}

/// The tests that a promise names, as (file, function).
fn named_tests(promise: &str) -> Vec<(&str, &str)> {
    promise
        .split("(test: ")
        .skip(1)
        .map(|rest| {
            let (name, _) = rest.split_once(')').unwrap_or_else(|| panic!("`(test: ` is not closed: {promise}"));
            name.rsplit_once("::").unwrap_or_else(|| panic!("`{name}` is not `file::name`: {promise}"))
        })
        .collect()
}

/// Where a file is that a promise names: by its path, or as one of the integration tests, each of which has its own name.
fn path_of(file: &str) -> PathBuf {
    if file.ends_with(".rs") {
        return root().join(file);
    }
    let tests = root().join("integration-tests/tests");
    let folders = std::fs::read_dir(&tests).expect("the tests").map(|entry| entry.expect("an entry").path());
    let mut files = folders.chain([tests.clone()]).map(|folder| folder.join(file).with_extension("rs"));
    files.find(|path| path.is_file()).unwrap_or_else(|| tests.join(file))
}

/// The tests of a source file: functions marked as such, and those that `suites!` runs on its stages.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if !line.starts_with("//") {
            if marked && let Some(name) = function(line) {
                tests.insert(name);
            }
            marked = false;
        }
        if let Some((name, stages)) = line.split_once(" on [")
            && stages.ends_with("];")
            && source.contains("suites! {")
        {
            tests.insert(name);
        }
    }
    let functions: BTreeSet<&str> = source.lines().filter_map(|line| function(line.trim())).collect();
    tests.retain(|test| functions.contains(test));
    tests
}

/// The name of the function that `line` begins.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    line.split_once('(').map(|(name, _)| name)
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let page = std::fs::read_to_string(root().join("docs/semantics.md")).expect("the page");
    let promises = promises(&page);
    assert!(promises.len() > 40, "only {} promises found: has the page another form now?", promises.len());
    let mut wrong = Vec::new();
    for promise in &promises {
        let named = named_tests(promise);
        if named.is_empty() {
            wrong.push(format!("names no test: {promise}"));
        }
        for (file, name) in named {
            match std::fs::read_to_string(path_of(file)) {
                Ok(source) if tests_in(&source).contains(name) => {}
                Ok(_) => wrong.push(format!("{file} has no test `{name}`: {promise}")),
                Err(error) => wrong.push(format!("{file}: {error}: {promise}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong lines in docs/semantics.md:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
    let page = "Text.\n\n- One holds. (test: a::b)\n  (test: core/src/c.rs::d)\n- Two holds.\n\n  Not a part of it.\n";
    let promises = promises(page);
    assert_eq!(promises, ["One holds. (test: a::b) (test: core/src/c.rs::d)", "Two holds."]);
    assert_eq!(named_tests(&promises[0]), [("a", "b"), ("core/src/c.rs", "d")]);
    assert!(named_tests(&promises[1]).is_empty());
    let source = "suites! {\n    runs on [embedded, memory];\n    is_missing on [memory];\n}\nasync fn runs(_: Stage) {}\n\
                  /// Text.\n#[test]\n#[ignore]\nfn plain() {}\nfn helper() {}\n";
    assert_eq!(tests_in(source), BTreeSet::from(["runs", "plain"]));
}
