//! Times at the border: Unix seconds or RFC 3339 in, RFC 3339 out.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

pub use crate::clock::rfc3339;
use crate::domain::time::{Timestamp, UnixSeconds};

/// The day of a moment in UTC as the number `YYYYMMDD`.
pub fn day_number(at: Timestamp) -> u32 {
    let day = rfc3339(at);
    let digits = day.bytes().take(10).filter(u8::is_ascii_digit).map(char::from);
    // A year before 0 is written with a sign and more digits: a day that is before all others.
    digits.collect::<String>().parse().unwrap_or(0)
}

/// Reads a time as a number or a text. `zone` is for texts without an offset; without it they are
/// refused, because a guess would be hours off.
///
/// # Errors
/// What is wrong with it, for the caller.
pub fn read_time(value: &Value, zone: Option<&TimeZone>) -> Result<UnixSeconds, String> {
    match value {
        Value::Number(number) => {
            read_seconds(number.as_i64().ok_or("must be whole Unix seconds, without a fraction")?)
        }
        Value::String(text) => read_time_text(text, zone),
        _ => Err("must be Unix seconds or an RFC 3339 time with an offset".into()),
    }
}

/// Reads a time from a text: digits are Unix seconds.
///
/// # Errors
/// What is wrong with it, for the caller.
pub fn read_time_text(text: &str, zone: Option<&TimeZone>) -> Result<UnixSeconds, String> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return read_seconds(number);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return read_seconds(time.as_second());
    }
    let local = text.parse::<DateTime>().ok().filter(|_| text.contains(':'));
    match (local, zone) {
        (Some(local), Some(zone)) => {
            let time = zone.to_timestamp(local).map_err(|error| error.to_string())?;
            read_seconds(time.as_second())
        }
        (Some(_), None) => {
            Err("has no offset: write it with one, as in 2025-11-01T12:26:40+01:00 \
                                or ...Z, or configure a time_zone for this source"
                .into())
        }
        (None, _) => Err("must be Unix seconds or an RFC 3339 time with an offset".into()),
    }
}

fn read_seconds(number: i64) -> Result<UnixSeconds, String> {
    if let Some(seconds) = UnixSeconds::plausible(number) {
        return Ok(seconds);
    }
    Err(if UnixSeconds::looks_like_milliseconds(number) {
        format!("{number} looks like milliseconds: send seconds, {}", number / 1_000)
    } else {
        format!("{number} is no plausible time in Unix seconds")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<i64, String> {
        read_time(value, None).map(UnixSeconds::get)
    }

    #[test]
    fn seconds_and_times_with_an_offset_are_understood() {
        for value in [
            json!(1_762_000_000),
            json!("1762000000"),
            json!("2025-11-01T12:26:40Z"),
            json!("2025-11-01T13:26:40+01:00"),
            json!("2025-11-01T12:26:40+0000"),
            json!("2025-11-01 12:26:40.999Z"),
        ] {
            assert_eq!(read(&value), Ok(1_762_000_000), "{value}");
        }
    }

    #[test]
    fn milliseconds_are_recognised_and_the_seconds_named() {
        let error = read(&json!(1_762_000_000_123_i64)).unwrap_err();
        assert!(error.contains("milliseconds") && error.contains("1762000000"), "{error}");
    }

    #[test]
    fn a_time_without_an_offset_needs_the_zone_of_its_source() {
        assert!(read(&json!("2025-11-01T12:26:40")).unwrap_err().contains("no offset"));
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let time = read_time(&json!("2025-11-01 13:26:40"), Some(&zone));
        assert_eq!(time, Ok(UnixSeconds::new(1_762_000_000)));
    }

    #[test]
    fn other_things_are_refused() {
        for value in [
            json!(1_762_000_000.5),
            json!(-1),
            json!(12),
            json!(true),
            json!("yesterday"),
            json!("2025-11-01"),
            json!(""),
            json!([1]),
        ] {
            assert!(read(&value).is_err(), "{value}");
        }
    }
}
