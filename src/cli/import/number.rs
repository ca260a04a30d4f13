//! JavaScript's conversions and arithmetic, and the spans of the npm package `ms`. Tests: `tests/it/import.rs`.

use super::text::Text;
use super::value::Value;

/// What a template string or `+` would make of it.
pub(super) fn text_of(value: &Value<'_>) -> Option<Text> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Number(number) if number.abs() < 1e15 => Some(Text::literal(number.to_string())),
        Value::Bool(flag) => Some(Text::literal(flag.to_string())),
        _ => None,
    }
}

/// A variable stays one: what it holds will be a number.
pub(super) fn number_of<'s>(value: &Value<'s>, whole: bool) -> Option<Value<'s>> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::Text(text) => match text.as_literal() {
            None => text.as_variable().map(|_| value.clone()),
            Some(literal) => {
                let digits = literal.trim();
                let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
                let digits = if whole { digits } else { &digits[..end] };
                let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                digits.parse().ok().filter(|_| plain).map(Value::Number)
            }
        },
        _ => None,
    }
}

pub(super) fn arithmetic(mark: &str, a: f64, b: f64) -> Option<f64> {
    match mark {
        "+" => Some(a + b),
        "-" => Some(a - b),
        "*" => Some(a * b),
        "/" => Some(a / b),
        "%" => Some(a % b),
        "**" => Some(a.powf(b)),
        _ => None,
    }
}

/// The npm package `ms`: `"2 days"`, `"1d"`, `"10h"`, `"2.5 hrs"`, `"100"`.
pub(super) fn ms(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 6e4,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3.6e6,
        "d" | "day" | "days" => 8.64e7,
        "w" | "week" | "weeks" => 6.048e8,
        "y" | "yr" | "yrs" | "year" | "years" => 3.155_76e10,
        _ => return None,
    };
    Some(number * factor)
}
