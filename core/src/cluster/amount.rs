//! How much of something there is, exactly.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadFlag;

/// An amount of a resource in ten-thousandths of its unit, so that 0.1 ten times is 1 and nothing is lost in rounding.
/// The unit is a core, a GPU, a byte, or whatever a custom resource counts.
///
/// On the wire it is the number of ten-thousandths; in JSON, which people read, the number of units.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Amount(u64);

const PER_UNIT: u64 = 10_000;
const DIGITS: usize = 4;

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// One unit.
    pub const ONE: Amount = Amount(PER_UNIT);
    /// 10^15 units, the most that can be asked for or offered: of memory, a petabyte.
    pub const MAX: Amount = Amount(1_000_000_000_000_000 * PER_UNIT);

    /// So many whole units; [`MAX`](Self::MAX) if that is more.
    pub const fn units(units: u64) -> Self {
        let max = Amount::MAX.0 / PER_UNIT;
        Amount(if units > max { max } else { units } * PER_UNIT)
    }

    /// So many ten-thousandths; [`MAX`](Self::MAX) if that is more.
    pub const fn parts(parts: u64) -> Self {
        Amount(if parts > Amount::MAX.0 { Amount::MAX.0 } else { parts })
    }

    /// In ten-thousandths.
    pub const fn as_parts(self) -> u64 {
        self.0
    }

    /// Whole units, what is left over cut off.
    pub const fn whole(self) -> u64 {
        self.0 / PER_UNIT
    }

    /// True for nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// True for a whole number of units.
    pub const fn is_whole(self) -> bool {
        self.0.is_multiple_of(PER_UNIT)
    }

    /// The sum. Sums over a cluster may pass [`MAX`](Self::MAX); they end at what the number can hold.
    #[must_use]
    pub const fn plus(self, more: Amount) -> Self {
        Amount(self.0.saturating_add(more.0))
    }

    /// What is left, or none if there is not so much.
    pub const fn minus(self, less: Amount) -> Option<Amount> {
        match self.0.checked_sub(less.0) {
            Some(left) => Some(Amount(left)),
            None => None,
        }
    }

    /// Reads a decimal number with up to four places, as in `2`, `2.5`, `0.0001`.
    ///
    /// # Errors
    /// [`BadFlag`] names `flag`, the value, and what is valid.
    pub fn parse(flag: &str, text: &str) -> Result<Self, BadFlag> {
        decimal(text).map_err(|reason| BadFlag::new(flag, text, reason, "a number such as 4 or 2.5"))
    }

    /// Reads bytes: `4GiB`, `512MiB`, `1.5TB`, or a plain number of bytes. Units of 1024 are KiB, MiB, GiB and TiB, of 1000 kB, MB, GB
    /// and TB.
    ///
    /// # Errors
    /// [`BadFlag`] names `flag`, the value, and what is valid.
    pub fn parse_bytes(flag: &str, text: &str) -> Result<Self, BadFlag> {
        const VALID: &str = "bytes such as 4GiB, 512MiB or 1.5TB";
        const UNITS: [(&str, u64); 9] = [
            ("", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
        ];
        let bad = |reason: &str| BadFlag::new(flag, text, reason, VALID);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| bad(if number.is_empty() { "it is no number" } else { "there is no such unit" }))?;
        let number = decimal(number).map_err(bad)?;
        let parts = u128::from(number.0) * u128::from(scale.1);
        // A part of a byte is none.
        let bytes = parts / u128::from(PER_UNIT);
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= Amount::MAX.whole() => Ok(Amount::units(bytes)),
            _ => Err(bad("it is more than a petabyte")),
        }
    }
}

/// What can be an amount: a whole number that is not negative, a decimal number with up to four places, or an [`Amount`].
pub trait ToAmount {
    /// The amount.
    ///
    /// # Errors
    /// Why it is none: it is negative, no number, too large, or finer than 0.0001.
    fn to_amount(self) -> Result<Amount, String>;
}

impl ToAmount for Amount {
    fn to_amount(self) -> Result<Amount, String> {
        Ok(self)
    }
}

impl ToAmount for f64 {
    fn to_amount(self) -> Result<Amount, String> {
        // As people write it: 0.1 is one tenth, whatever its bits are.
        decimal(&self.to_string()).map_err(|reason| format!("{self}: {reason}"))
    }
}

macro_rules! whole_numbers {
    ($($number:ty)*) => {$(
        impl ToAmount for $number {
            fn to_amount(self) -> Result<Amount, String> {
                decimal(&self.to_string()).map_err(|reason| format!("{self}: {reason}"))
            }
        }
    )*};
}

whole_numbers! { i32 i64 u32 u64 usize }

/// The number that `text` is, or why it is none.
fn decimal(text: &str) -> Result<Amount, &'static str> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.starts_with('-') {
        return Err("it is negative");
    }
    if whole.is_empty() || !is_digits(whole) || !is_digits(places) || text.ends_with('.') {
        return Err("it is no number");
    }
    if places.len() > DIGITS {
        return Err("it is finer than 0.0001");
    }
    let whole: u64 = whole.parse().map_err(|_| "it is too large")?;
    if whole > Amount::MAX.whole() {
        return Err("it is too large");
    }
    let places: u64 = format!("{places:0<DIGITS$}").parse().map_err(|_| "it is no number")?;
    Ok(Amount::parts(whole * PER_UNIT + places))
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, places) = (self.0 / PER_UNIT, self.0 % PER_UNIT);
        if places == 0 {
            return write!(f, "{whole}");
        }
        let places = format!("{places:04}");
        write!(f, "{whole}.{}", places.trim_end_matches('0'))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            false => serializer.serialize_u64(self.0),
            true if self.is_whole() => serializer.serialize_u64(self.whole()),
            true => serializer.serialize_f64(self.0 as f64 / PER_UNIT as f64),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Amount);
        }
        let units = f64::deserialize(deserializer)?;
        if !(0.0..=Amount::MAX.whole() as f64).contains(&units) {
            return Err(D::Error::custom("an amount is a number from 0 to 10^15"));
        }
        Ok(Amount::parts((units * PER_UNIT as f64).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let tenth = Amount::parse("--num-cpus", "0.1").expect("a number");
        let sum = (0..10).fold(Amount::ZERO, |sum, _| sum.plus(tenth));
        assert_eq!(sum, Amount::ONE);
        assert_eq!(Amount::ONE.minus(tenth).map(|left| left.to_string()), Some("0.9".to_owned()));
        assert_eq!(tenth.minus(Amount::ONE), None);
    }

    #[test]
    fn numbers_are_read_and_written_the_same() {
        for text in ["0", "1", "2.5", "0.0001", "128", "1000000000000000", "3.1415"] {
            assert_eq!(Amount::parse("--num-cpus", text).expect("a number").to_string(), text);
        }
        for (text, bytes) in [("4GiB", 4 << 30), ("1.5KiB", 1536), ("0.5kB", 500), ("17", 17), ("2 MiB", 2 << 20)] {
            assert_eq!(Amount::parse_bytes("--memory", text), Ok(Amount::units(bytes)), "{text}");
        }
    }

    #[test]
    fn numbers_of_programs_are_amounts() {
        assert_eq!((2.to_amount(), 0.1.to_amount()), (Ok(Amount::units(2)), Ok(Amount::parts(1_000))));
        assert_eq!((7_u64.to_amount(), 2.5.to_amount()), (Ok(Amount::units(7)), Ok(Amount::parts(25_000))));
        assert_eq!(Amount::ONE.to_amount(), Ok(Amount::ONE));
        for bad in [f64::NAN, f64::INFINITY, -1.0, 0.00001, 1e300] {
            bad.to_amount().expect_err("no amount");
        }
        assert_eq!((-1).to_amount(), Err("-1: it is negative".to_owned()));
        u64::MAX.to_amount().expect_err("too much");
    }

    #[test]
    fn what_is_no_number_is_named_with_its_flag_and_the_valid_form() {
        for text in ["", "NaN", "inf", "-1", "1e3", ".5", "5.", "1.00001", "0x10", "99999999999999999999", "１"] {
            let error = Amount::parse("--num-cpus", text).expect_err(text).to_string();
            assert!(error.contains("--num-cpus") && error.contains("2.5"), "{error}");
        }
        let error = Amount::parse_bytes("--memory", "10XB").expect_err("no unit").to_string();
        assert_eq!(error, "--memory \"10XB\": there is no such unit; valid are bytes such as 4GiB, 512MiB or 1.5TB");
        for text in ["", "GiB", "4gib", "-4GiB", "9999999TiB", "1.23456GiB", "4GiB!"] {
            Amount::parse_bytes("--memory", text).expect_err(text);
        }
    }
}
