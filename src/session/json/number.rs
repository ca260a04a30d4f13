//! JSON numbers that keep every digit: JavaScript's spelling where `f64` holds the value, the source's own where it does not.

use std::fmt::Write;

/// A JSON number. Its text is what `JSON.stringify` writes when that names exactly the value of the source (`1.0` is `1`, `-0` is
/// `0`, `1E+21` is `1e+21`); a number that `f64` would change (big integers, many digits, `1e400`) keeps its source text.
#[derive(Clone, Debug)]
pub struct Number(Box<str>);

impl Number {
    /// From a valid JSON number.
    pub(super) fn from_source(text: &str) -> Self {
        if is_short_integer(text) {
            return Self(text.into());
        }
        let Some(decimal) = Decimal::parse(text) else { return Self(text.into()) };
        // Every decimal of 15 digits survives f64 unchanged, away from its ends, so its shortest text is known without it.
        let exact = decimal.digits.len() <= 15 && decimal.point.abs() < 300
            || text.parse().ok().and_then(Decimal::from_f64).is_some_and(|held| held == decimal);
        Self(if exact { decimal.to_js() } else { text.into() })
    }

    /// The number as JavaScript writes it; `None` for NaN and the infinities, which JSON does not have.
    pub fn from_f64(value: f64) -> Option<Self> {
        Decimal::from_f64(value).map(|decimal| Self(decimal.to_js()))
    }

    /// Its text in JSON.
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// What JavaScript would calculate with: the nearest `f64`, infinite beyond its range.
    pub fn as_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// The value, when it is a whole number within 32 bits.
    pub fn as_i32(&self) -> Option<i32> {
        self.0.parse().ok()
    }

    /// The value, when it is a whole number within 64 bits and not written with an exponent.
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }
}

/// Keeps every digit, also those that `f64` would not.
impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(value.to_string().into())
    }
}

/// Equality of values: `1e400` is `10e399`, `9007199254740993` is not `9007199254740992`.
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || matches!((Decimal::parse(&self.0), Decimal::parse(&other.0)), (Some(a), Some(b)) if a == b)
    }
}

/// What most numbers of a session are, and already spelt as JavaScript does.
fn is_short_integer(text: &str) -> bool {
    match text.strip_prefix('-').unwrap_or(text).as_bytes() {
        [b'0'] => text == "0",
        digits => digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit),
    }
}

/// ±0.digits × 10^point, no zeros at either end of the digits; zero has no digits and no sign.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    point: i64,
}

impl Decimal {
    /// From a number of JSON or of Rust's `{:e}`. `None` when the exponent has no place in 18 digits.
    fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let leading = all.bytes().take_while(|byte| *byte == b'0').count();
        let digits = all[leading..].trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, point: 0 });
        }
        let exponent: i64 = exponent.parse().ok().filter(|e: &i64| e.unsigned_abs() < 10_u64.pow(18))?;
        let shift = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(Self { negative: text.starts_with('-'), digits, point: exponent + shift })
    }

    /// The shortest decimal that `f64` reads as this value, and of those the nearest; of two as near (the value ends in a 5 just
    /// behind them) Rust takes the upper one, JavaScript the even one, which is what rounding to that length gives.
    fn from_f64(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        let shortest = Self::parse(&format!("{value:e}"))?;
        if shortest.digits.len() < 16 {
            return Some(shortest);
        }
        let rounded = format!("{value:.*e}", shortest.digits.len() - 1);
        if rounded.parse() == Ok(value) { Self::parse(&rounded) } else { Some(shortest) }
    }

    /// ECMAScript's Number::toString.
    fn to_js(&self) -> Box<str> {
        let (digits, point) = (self.digits.as_str(), self.point);
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let mut out = String::with_capacity(digits.len() + 8);
        if self.negative {
            out.push('-');
        }
        let zeros = |n: i64| "0".repeat(usize::try_from(n).unwrap_or(0));
        match usize::try_from(point) {
            _ if count == 0 => out.push('0'),
            Ok(_) if point >= count && point <= 21 => {
                out.push_str(digits);
                out.push_str(&zeros(point - count));
            }
            Ok(whole @ 1..=21) => {
                out.push_str(&digits[..whole]);
                out.push('.');
                out.push_str(&digits[whole..]);
            }
            _ if (-5..=0).contains(&point) => {
                out.push_str("0.");
                out.push_str(&zeros(-point));
                out.push_str(digits);
            }
            _ => {
                out.push_str(&digits[..1]);
                if count > 1 {
                    out.push('.');
                    out.push_str(&digits[1..]);
                }
                // Writing to a String cannot fail.
                let _ = write!(out, "e{:+}", point - 1);
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_json_stringify() {
        for (source, text) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e7", "0"),
            ("0e99999999999999999999", "0"),
            ("-1", "-1"),
            ("1.0", "1"),
            ("1e2", "100"),
            ("1.50", "1.5"),
            ("1E+21", "1e+21"),
            ("123e18", "123000000000000000000"),
            ("0.000001", "0.000001"),
            ("1e-6", "0.000001"),
            ("1e-7", "1e-7"),
            ("12.5e-9", "1.25e-8"),
            ("-0.00001234", "-0.00001234"),
            ("2.9802322387695312E-8", "2.9802322387695312e-8"),
            ("5.684341886080802e-14", "5.684341886080802e-14"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740992", "9007199254740992"),
            ("100000000000000000000", "100000000000000000000"),
            ("1000000000000000000000", "1e+21"),
        ] {
            assert_eq!(Number::from_source(source).as_text(), text, "{source}");
        }
    }

    #[test]
    fn what_f64_would_change_keeps_its_text() {
        for source in [
            "9007199254740993",
            "123456789012345678",
            "1e400",
            "-1E+400",
            "1e-400",
            "0.1000000000000000055511151231257827",
            "3.14159265358979323846",
            "1e99999999999999999999",
            "18446744073709551615",
        ] {
            assert_eq!(Number::from_source(source).as_text(), source);
        }
    }

    #[test]
    fn equality_is_that_of_values() {
        let eq = |a, b| Number::from_source(a) == Number::from_source(b);
        assert!(eq("1.0", "1") && eq("1e400", "10e399") && eq("9007199254740993", "9007199254740993.0"));
        assert!(!eq("9007199254740993", "9007199254740992") && !eq("1e400", "1e401") && !eq("1", "-1"));
        assert!(!eq("1e99999999999999999999", "1e99999999999999999998"));
    }

    #[test]
    fn whole_numbers_within_32_bits_are_known() {
        let int = |text| Number::from_source(text).as_i32();
        assert_eq!((int("1e2"), int("-0"), int("-2147483648.0")), (Some(100), Some(0), Some(i32::MIN)));
        assert_eq!((int("2147483648"), int("1.5"), int("1e21")), (None, None, None));
        assert_eq!(Number::from_f64(-0.0).unwrap().as_text(), "0");
        assert_eq!(Number::from_f64(2_f64.powi(-25)).unwrap().as_text(), "2.9802322387695312e-8");
        assert!(Number::from_f64(f64::NAN).is_none());
        assert!(Number::from_source("1e400").as_f64().is_infinite());
    }
}
