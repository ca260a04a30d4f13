//! Durations (`"250ms" "30s" "14d"`) and sizes (`"64KiB"`) as text. Knows no configuration. Tests: below.

use std::time::Duration;

/// What a duration looks like, for messages.
pub(super) const DURATION_CURE: &str =
    "write a whole number and one unit: \"250ms\", \"30s\", \"5m\", \"1h\" or \"14d\"";
/// What a size looks like, for messages.
pub(super) const SIZE_CURE: &str =
    "write a whole number of bytes, or one with a unit: \"512B\", \"64KiB\", \"1MiB\", \"2GiB\"";

/// A hundred years: longer than any deadline can mean, short enough that no later sum overflows.
const LONGEST_MILLIS: u64 = 36_500 * 86_400_000;

/// Parses `<whole number><unit>`; `None` for anything else, and for more than a hundred years.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let millis = number.checked_mul(factor)?;
    (millis <= LONGEST_MILLIS).then(|| Duration::from_millis(millis))
}

/// Parses a size in bytes: a bare number, or `B`, `KiB`, `MiB`, `GiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// A duration as the config would write it, in the largest unit that fits.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (factor, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
        .into_iter()
        .find(|(factor, _)| millis > 0 && millis.is_multiple_of(*factor))
        .unwrap_or((1, "ms"));
    format!("\"{}{unit}\"", millis / factor)
}

/// A size as the config would write it, in the largest unit that fits.
pub(super) fn show_size(bytes: u64) -> String {
    let (shift, unit) = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift))
        .unwrap_or((0, "B"));
    format!("\"{}{unit}\"", bytes >> shift)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("14d", 1_209_600_000),
            ("0s", 0),
        ] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parsed.as_millis(), millis, "{text}");
            assert_eq!(parse_duration(show_duration(parsed).trim_matches('"')), Some(parsed), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "1h30m",
            "1.5s",
            "-1s",
            " 1s",
            "1 s",
            "1S",
            "1w",
            "99999999999999999999s",
            "36501d",
            "+1s",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(parse_size(show_size(bytes).trim_matches('"')), Some(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "64KB",
            "64kib",
            "64K",
            "1.5MiB",
            "-1",
            "1 KiB",
            "18446744073709551615GiB",
            "unlimited",
        ] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }
}
