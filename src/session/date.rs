//! JavaScript's ISO date text, `Date.prototype.toISOString`: UTC with milliseconds and `Z`.

use super::Millis;

const DAY: Millis = 86_400_000;
/// JavaScript's `Date` ends at ±8.64e15 ms; past the year 9999 its text changes shape, so that is where we stop.
const MAX: Millis = 253_402_300_799_999;
const MIN: Millis = -62_167_219_200_000;

/// `2026-11-20T16:13:40.123Z`, 24 bytes. Moments outside the years 0000 to 9999 are clamped.
pub fn render_iso(at: Millis) -> String {
    String::from_utf8_lossy(&iso_bytes(at)).into_owned()
}

/// [`render_iso`] without an allocation; bytes 11 to 18 are the time of day.
pub fn iso_bytes(at: Millis) -> [u8; 24] {
    let at = at.clamp(MIN, MAX);
    let (year, month, day) = civil_from_days(at.div_euclid(DAY));
    let ms = at.rem_euclid(DAY);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    put(&mut out[0..4], year);
    put(&mut out[5..7], month);
    put(&mut out[8..10], day);
    put(&mut out[11..13], ms / 3_600_000);
    put(&mut out[14..16], ms / 60_000 % 60);
    put(&mut out[17..19], ms / 1000 % 60);
    put(&mut out[20..23], ms % 1000);
    out
}

/// Reads what [`render_iso`] writes, and the same with fewer or no fraction digits. Anything else is `None`
/// (JavaScript would say `Invalid Date` or guess).
pub fn parse_iso(text: &str) -> Option<Millis> {
    let body = text.strip_suffix('Z')?;
    let (head, fraction) = match body.split_once('.') {
        Some((head, fraction)) => (head, fraction),
        None => (body, ""),
    };
    let bytes = head.as_bytes();
    if bytes.len() != 19 || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    for (at, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if bytes[at] != separator {
            return None;
        }
    }
    let field = |range: std::ops::Range<usize>, max: Millis| -> Option<Millis> {
        let mut value = 0;
        for &byte in &bytes[range] {
            value = value * 10 + Millis::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        (value <= max).then_some(value)
    };
    let (year, month, day) = (field(0..4, 9999)?, field(5..7, 12)?, field(8..10, 31)?);
    let (hour, minute, second) = (field(11..13, 23)?, field(14..16, 59)?, field(17..19, 59)?);
    if month == 0 || day == 0 {
        return None;
    }
    let mut ms = 0;
    for (index, byte) in fraction.bytes().take(3).enumerate() {
        ms += Millis::from(byte - b'0') * [100, 10, 1][index];
    }
    Some(days_from_civil(year, month, day) * DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + ms)
}

fn put(out: &mut [u8], mut value: Millis) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

// Days to year, month, day in the proleptic Gregorian calendar, by eras of 400 years that begin on 1 March.
fn civil_from_days(days: Millis) -> (Millis, Millis, Millis) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + Millis::from(month <= 2), month, day)
}

fn days_from_civil(year: Millis, month: Millis, day: Millis) -> Millis {
    let year = year - Millis::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        // From Node: new Date(n).toISOString()
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_191_220_123, "2026-11-20T16:13:40.123Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(render_iso(ms), text);
            assert_eq!(parse_iso(text), Some(ms));
        }
        assert_eq!(render_iso(Millis::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(parse_iso("2026-11-20T16:13:40Z"), Some(1_795_191_220_000));
        for bad in [
            "",
            "Z",
            "2026-11-20",
            "2026-13-20T16:13:40Z",
            "2026-00-20T16:13:40Z",
            "2026-11-20T24:13:40Z",
            "2026-11-20T16:13:40.12aZ",
            "2026-11-20T16:13:40+01:00",
            "２026-11-20T16:13:4Z",
        ] {
            assert_eq!(parse_iso(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let time = render_iso;
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(951_868_799_999), "2000-02-29T23:59:59.999Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999Z");
    }

    proptest::proptest! {
        #[test]
        fn parse_undoes_render(ms in MIN..=MAX) {
            proptest::prop_assert_eq!(parse_iso(&render_iso(ms)), Some(ms));
        }
    }
}
