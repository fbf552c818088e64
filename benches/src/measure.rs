//! What a measure yields: two series of rounds, their medians, their ratio, and the line that says so.
use serde_json::json;

/// The figures of one side, a round each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn median(&self) -> f64 {
        percentile(&mut self.0.clone(), 50.0)
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    fn show(&self) -> String {
        format!("{} ({} .. {})", figure(self.median()), figure(self.min()), figure(self.max()))
    }
}

/// One measure, beside what it is compared with in the same run.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// What `raw` is.
    pub(crate) reference: &'static str,
    pub(crate) ours: Series,
    pub(crate) raw: Series,
}

impl Line {
    /// Ours divided by the reference; of the medians.
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.median() / self.raw.median()
    }

    pub(crate) fn json(&self) -> String {
        json!({
            "name": self.name,
            "value": self.ours.median(),
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": self.raw.median(),
            "ratio": self.ratio(),
        })
        .to_string()
    }

    pub(crate) fn row(&self) -> String {
        row(self.name, self.unit, &self.ours.show(), &self.raw.show(), &format!("{:.3}", self.ratio()), self.reference)
    }
}

/// The head of the table that [`Line::row`] fills.
pub(crate) fn head() -> String {
    row("measure", "unit", "median (min .. max)", "reference (min .. max)", "ratio", "what the reference is")
}

fn row(name: &str, unit: &str, ours: &str, raw: &str, ratio: &str, reference: &str) -> String {
    format!("{name:<25} {unit:<7} {ours:>28} {raw:>28} {ratio:>8}  {reference}")
}

/// Three significant digits, with k and M.
fn figure(value: f64) -> String {
    let (scaled, suffix) = match value {
        _ if value >= 1e6 => (value / 1e6, " M"),
        _ if value >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled {
        _ if scaled >= 100.0 => 0,
        _ if scaled >= 10.0 => 1,
        _ if scaled >= 1.0 => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{suffix}")
}

/// The smallest figure that `percent` of all figures do not exceed; NaN of none. Sorts its argument.
pub(crate) fn percentile(figures: &mut [f64], percent: f64) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let rank = (percent / 100.0 * figures.len() as f64).ceil() as usize;
    figures.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figures: &[f64]) -> Series {
        Series(figures.to_vec())
    }

    #[test]
    fn percentiles_are_figures_that_occurred() {
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 50.0), 2.0);
        assert_eq!(percentile(&mut [4.0, 1.0, 3.0, 2.0], 50.0), 2.0);
        assert_eq!(percentile(&mut [1.0, 2.0, 3.0, 4.0], 100.0), 4.0);
        assert!(percentile(&mut [], 50.0).is_nan());
    }

    #[test]
    fn the_line_carries_medians_and_their_ratio() {
        let line = Line {
            name: "remote-tell",
            unit: "tells/s",
            reference: "asks",
            ours: series(&[9.0, 6.0, 1.0]),
            raw: series(&[2.0, 2.0, 8.0]),
        };
        let value: serde_json::Value = serde_json::from_str(&line.json()).expect("a JSON object");
        let expected = serde_json::json!({
            "name": "remote-tell", "value": 6.0, "unit": "tells/s",
            "reference": "asks", "reference_value": 2.0, "ratio": 3.0,
        });
        assert_eq!(value, expected);
        assert!(line.row().contains("6.00 (1.00 .. 9.00)"));
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(figure(2_412_000.0), "2.41 M");
        assert_eq!(figure(24_100.0), "24.1 k");
        assert_eq!(figure(50.64), "50.6");
        assert_eq!(figure(0.4926), "0.493");
    }
}
