//! Times as CRMs write them: seconds, milliseconds, RFC 3339, or by a pattern.
//!
//! What goes on from here is Unix seconds, so that the rules about times know one form only.

use jiff::civil::{DateTime, date};
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::domain::time::UnixSeconds;

/// How a time is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// Whichever of the other forms it can only be; not a pattern.
    #[default]
    Auto,
    /// Unix seconds.
    UnixS,
    /// Unix milliseconds.
    UnixMs,
    /// RFC 3339, without an offset only if the source has a time zone.
    Rfc3339,
    /// A pattern such as `%d.%m.%Y %H:%M`.
    Pattern(String),
}

impl TimeFormat {
    /// Reads the name of a format, or a pattern, which has a `%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "unix_s" => Ok(Self::UnixS),
            "unix_ms" => Ok(Self::UnixMs),
            "rfc3339" => Ok(Self::Rfc3339),
            pattern if pattern.contains('%') => {
                check_pattern(pattern)?;
                Ok(Self::Pattern(pattern.to_owned()))
            }
            _ => Err("must be auto, unix_s, unix_ms, rfc3339, or a pattern such as %Y-%m-%d \
                      %H:%M:%S"
                .into()),
        }
    }

    /// What it is called.
    fn name(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::UnixS => "unix_s",
            Self::UnixMs => "unix_ms",
            Self::Rfc3339 => "rfc3339",
            Self::Pattern(pattern) => pattern,
        }
    }

    /// Reads a time. `zone` is for one without an offset, which is refused without it.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub fn read(&self, value: &Value, zone: Option<&TimeZone>) -> Result<UnixSeconds, String> {
        let text = match value {
            Value::Number(number) => match number.as_i64() {
                Some(number) => number.to_string(),
                None => return Err("is not a whole number".into()),
            },
            Value::String(text) => text.trim().to_owned(),
            _ => return Err("is neither a number nor a text".into()),
        };
        let number = text.parse::<i64>().ok();
        let seconds = match self {
            Self::UnixS => number,
            Self::UnixMs => number.map(|millis| millis.div_euclid(1_000)),
            Self::Rfc3339 => rfc3339(&text, zone)?,
            Self::Pattern(pattern) => by_pattern(pattern, &text, zone)?,
            Self::Auto => match number.or_else(|| microsoft_millis(&text)) {
                Some(number) if UnixSeconds::looks_like_milliseconds(number) => {
                    Some(number.div_euclid(1_000))
                }
                Some(number) => Some(number),
                None => rfc3339(&text, zone)?,
            },
        };
        let seconds = seconds.and_then(UnixSeconds::plausible);
        seconds.ok_or_else(|| format!("is no plausible time in the format {}", self.name()))
    }
}

/// The number in `/Date(1762000000000)/` or `/Date(1762000000000+0000)/`, as Microsoft's own JSON
/// writes times.
fn microsoft_millis(text: &str) -> Option<i64> {
    let inner = text.strip_prefix("/Date(")?.strip_suffix(")/")?;
    // A minus sign may lead the number; a sign after it leads an offset, which changes nothing.
    let end = inner.get(1..)?.find(['+', '-']).map_or(inner.len(), |at| at + 1);
    inner[..end].parse().ok()
}

fn rfc3339(text: &str, zone: Option<&TimeZone>) -> Result<Option<i64>, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(time.as_second()));
    }
    // A date alone would be taken for its first second.
    let Some(local) = text.parse::<DateTime>().ok().filter(|_| text.contains(':')) else {
        return Ok(None);
    };
    in_zone(local, zone).map(Some)
}

/// Writing some time by a pattern finds what reading never could. Two times of one day that it
/// writes alike would be read alike, as midnight.
fn check_pattern(pattern: &str) -> Result<(), String> {
    let written = |hour| {
        let time = date(2025, 11, 1).at(hour, 0, 0, 0).to_zoned(TimeZone::UTC);
        time.and_then(|time| strtime::format(pattern, &time))
            .map_err(|error| format!("is no pattern of a time: {error}"))
    };
    // Not twelve hours: a pattern may write those of a clock without AM and PM.
    if written(1)? == written(14)? {
        return Err("has no time of day: a date alone does not say when".into());
    }
    Ok(())
}

fn by_pattern(pattern: &str, text: &str, zone: Option<&TimeZone>) -> Result<Option<i64>, String> {
    let Ok(parts) = strtime::parse(pattern, text) else { return Ok(None) };
    if let Ok(time) = parts.to_timestamp() {
        return Ok(Some(time.as_second()));
    }
    let Ok(local) = parts.to_datetime() else { return Ok(None) };
    in_zone(local, zone).map(Some)
}

fn in_zone(local: DateTime, zone: Option<&TimeZone>) -> Result<i64, String> {
    let zone = zone.ok_or("has no offset: set the time_zone of this source")?;
    let time = zone.to_timestamp(local).map_err(|_| "is out of range".to_owned())?;
    Ok(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECONDS: i64 = 1_762_000_000;

    fn read(format: &str, value: &Value) -> Result<i64, String> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        TimeFormat::parse(format).unwrap().read(value, Some(&zone)).map(UnixSeconds::get)
    }

    #[test]
    fn every_form_comes_to_the_same_second() {
        for (format, value) in [
            ("auto", json!(SECONDS)),
            ("auto", json!("1762000000")),
            ("auto", json!(1_762_000_000_999_i64)),
            ("auto", json!("2025-11-01T12:26:40.000+0000")),
            ("auto", json!("2025-11-01 13:26:40")),
            ("auto", json!("/Date(1762000000000)/")),
            ("auto", json!("/Date(1762000000000+0100)/")),
            ("unix_s", json!("1762000000")),
            ("unix_ms", json!(1_762_000_000_001_i64)),
            ("rfc3339", json!(" 2025-11-01T12:26:40Z ")),
            ("%d.%m.%Y %H:%M:%S", json!("01.11.2025 13:26:40")),
            ("%b %d, %Y %I:%M:%S %p", json!("Nov 01, 2025 01:26:40 PM")),
            ("%Y-%m-%d %H:%M:%S %z", json!("2025-11-01 12:26:40 +0000")),
        ] {
            assert_eq!(read(format, &value), Ok(SECONDS), "{format} {value}");
        }
    }

    #[test]
    fn a_time_in_another_form_is_refused_without_its_value() {
        for (format, value) in [
            ("unix_s", json!(1_762_000_000_000_i64)),
            ("unix_ms", json!(SECONDS)),
            ("rfc3339", json!(SECONDS)),
            ("%d.%m.%Y %H:%M", json!("2025-11-01 13:26")),
            ("auto", json!("2025-11-01")),
            ("auto", json!("erika@example.org")),
            ("auto", json!("/Date()/")),
            ("auto", json!("/Date(+)/")),
            ("auto", json!(1_762_000_000.5)),
            ("auto", json!(true)),
            ("auto", json!([SECONDS])),
        ] {
            let problem = read(format, &value).unwrap_err();
            assert!(!problem.contains("2025-11") && !problem.contains("erika"), "{problem}");
        }
    }

    #[test]
    fn a_time_without_an_offset_needs_the_zone_of_its_source() {
        for (format, text) in
            [("auto", "2025-11-01 13:26:40"), ("%d.%m.%Y %H:%M", "01.11.2025 13:26")]
        {
            let read = TimeFormat::parse(format).unwrap().read(&json!(text), None);
            assert!(read.unwrap_err().contains("time_zone"), "{format}");
        }
    }

    #[test]
    fn a_pattern_without_a_time_of_day_is_refused() {
        for pattern in ["%d.%m.%Y", "%Y-%m-%d", "%F", "%d.%m.%Y um %M"] {
            let problem = TimeFormat::parse(pattern).unwrap_err();
            assert!(problem.contains("no time of day"), "{pattern}: {problem}");
        }
        for pattern in ["%s", "%F %H", "%d.%m.%Y %I:%M %p", "%Y-%m-%dT%T%z"] {
            assert!(TimeFormat::parse(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_format_is_said_at_the_start() {
        for wrong in ["", "iso", "%E and so on"] {
            assert!(TimeFormat::parse(wrong).is_err(), "{wrong}");
        }
    }
}
