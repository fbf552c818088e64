//! Flags, progress and JSON, the same in every example.
use std::fmt::Display;
use std::ops::RangeInclusive;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// The most node processes that an example starts on one machine.
pub const NODES_MAX: u32 = 128;

/// A clap value parser for whole numbers within `valid`; digits may be grouped with `_`.
///
/// What it refuses is reported by clap with the flag and the value, and the program ends with exit code 2.
pub fn whole_number<T>(valid: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: Clone + Display + PartialOrd + Send + Sync + TryFrom<u64> + 'static,
{
    move |text| {
        digits(text).and_then(|number| T::try_from(number).ok()).filter(|number| valid.contains(number)).ok_or_else(
            || {
                let (least, most) = (valid.start(), valid.end());
                format!("expected a whole number from {least} to {most} in plain digits, like 12 or 1_000")
            },
        )
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain =
        text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '_');
    if plain { text.replace('_', "").parse().ok() } else { None }
}

/// A bar on stderr that counts to `length`; it draws nothing unless stderr is a terminal.
pub fn progress_bar(length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    // The template is fixed, so it cannot fail; the default style is no worse than a panic.
    if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {unit} {{elapsed}}")) {
        bar.set_style(style);
    }
    bar
}

/// Writes `report` to stdout as one line of JSON.
/// # Errors
/// If `report` has no JSON form, such as a map whose keys are not strings.
pub fn print_json(report: &impl Serialize) -> serde_json::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_in_plain_digits() {
        let parse = whole_number::<u32>(1..=1_000_000);
        assert_eq!(parse("1"), Ok(1));
        assert_eq!(parse("1_000_000"), Ok(1_000_000));
        for refused in ["", "0", "-5", "+5", "1e3", "1.0", " 1", "_1", "0x10", "1000001", "99999999999999999999"] {
            let refusal = parse(refused).unwrap_err();
            assert!(refusal.contains("from 1 to 1000000"), "{refused}: {refusal}");
        }
    }
}
