//! The form of a plain value that is hashed, or sent as it is, by Meta's text (META 4).
//!
//! Where the text is silent, letters of all scripts stay: Meta's own example keeps an é. A value
//! that can be read in two ways is none: a wrong digest matches somebody else.

use core::net::IpAddr;

use crate::domain::customer::country::{Country, us_state};
use crate::domain::customer::{LeftOutReason, Origin, Parameter, phone};

/// Words that programs write where there is no value.
pub(super) const PLACEHOLDERS: [&str; 4] = ["null", "undefined", "none", "n/a"];

const FEMALE: [&str; 14] = [
    "f", "female", "woman", "girl", "w", "weiblich", "frau", "femme", "mujer", "femenino", "donna",
    "femmina", "mulher", "vrouw",
];
const MALE: [&str; 13] = [
    "m",
    "male",
    "man",
    "boy",
    "männlich",
    "mann",
    "herr",
    "homme",
    "hombre",
    "masculino",
    "uomo",
    "maschio",
    "homem",
];

/// Punctuation and symbols beyond ASCII. Anything else that is no letter, such as an accent of its
/// own, belongs to the letter before it.
const PUNCTUATION: [(char, char); 11] = [
    ('\u{80}', '\u{BF}'),
    ('\u{D7}', '\u{D7}'),
    ('\u{F7}', '\u{F7}'),
    ('\u{5BE}', '\u{5BE}'),
    ('\u{60C}', '\u{61F}'),
    ('\u{964}', '\u{965}'),
    ('\u{2000}', '\u{2BFF}'),
    ('\u{2E00}', '\u{303F}'),
    ('\u{30FB}', '\u{30FB}'),
    ('\u{FE10}', '\u{FFEF}'),
    ('\u{1F000}', '\u{1FAFF}'),
];

/// The form of a plain value. `is_us` tells whether the person lives in the United States, if that
/// is known.
pub(super) fn normalise(
    parameter: Parameter,
    plain: &str,
    is_us: Option<bool>,
    origin: &Origin,
) -> Result<String, LeftOutReason> {
    let plain = plain.trim();
    let lower = plain.to_lowercase();
    if lower.is_empty() || PLACEHOLDERS.contains(&lower.as_str()) {
        return Err(LeftOutReason::NoValue);
    }
    let value = match parameter {
        Parameter::Ph => return phone::normalise(plain, origin.default_country),
        // As it is copied from a link on a page.
        Parameter::Em => Some(lower.strip_prefix("mailto:").unwrap_or(&lower).to_owned())
            .filter(|text| is_email(text)),
        Parameter::Fn | Parameter::Ln | Parameter::Ct => {
            Some(bare(&lower)).filter(|text| text.chars().any(char::is_alphabetic))
        }
        Parameter::St if is_us == Some(true) => us_state(&bare(&lower)).map(str::to_owned),
        Parameter::St => Some(bare(&lower)).filter(|text| text.chars().any(char::is_alphanumeric)),
        Parameter::Zp => postal_code(&lower, is_us),
        Parameter::Db => {
            birth_date(&lower).filter(|date| *date <= origin.today).map(|date| date.to_string())
        }
        Parameter::Ge => gender(&lower).map(str::to_owned),
        Parameter::Country => Country::parse(&lower).map(|_| lower),
        Parameter::Fbc | Parameter::Fbp => is_browser_id(plain).then(|| plain.to_owned()),
        Parameter::ClientIpAddress => plain.parse::<IpAddr>().ok().map(|_| plain.to_owned()),
        Parameter::ExternalId | Parameter::ClientUserAgent => {
            Some(plain.to_owned()).filter(|text| !text.chars().any(char::is_control))
        }
    };
    value.ok_or(LeftOutReason::ImpossibleValue)
}

/// Without blanks, punctuation and symbols.
fn bare(text: &str) -> String {
    let is_mark = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || c.is_ascii()
            || PUNCTUATION.iter().any(|(first, last)| (*first..=*last).contains(&c))
    };
    text.chars().filter(|c| c.is_alphanumeric() || !is_mark(*c)).collect()
}

fn is_email(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "<>,;\"()".contains(c);
    let Some((local, domain)) = text.split_once('@') else { return false };
    let labels = domain.split('.').count();
    let whole = domain.split('.').all(|label| !label.is_empty());
    !local.is_empty() && labels > 1 && whole && !domain.contains('@') && !text.contains(odd)
}

/// Without blanks and dashes; of the United States the first five digits.
fn postal_code(lower: &str, is_us: Option<bool>) -> Option<String> {
    let code = bare(lower);
    let (first, rest) = code.split_at_checked(5).unwrap_or((&code, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = is_digits(&code);
    // Saudi Arabia alone writes its own so, too.
    let is_zip_plus_four = digits && rest.len() == 4 && lower.split('-').nth(1) == Some(rest);
    if is_us.unwrap_or(is_zip_plus_four) {
        return (digits && matches!(code.len(), 5 | 9)).then(|| first.to_owned());
    }
    (code.chars().count() > 1).then_some(code)
}

/// A day from 1900 on as a number, `YYYYMMDD`. Other orders can be read in two ways.
fn birth_date(text: &str) -> Option<u32> {
    let digits: String = match text.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => text.split('-').collect(),
        _ => text.to_owned(),
    };
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u32 = digits.parse().ok()?;
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (year >= 1900 && (1..=days).contains(&day)).then_some(number)
}

fn gender(lower: &str) -> Option<&'static str> {
    if FEMALE.contains(&lower) {
        Some("f")
    } else if MALE.contains(&lower) {
        Some("m")
    } else {
        None
    }
}

/// Whether a text is `fb.<subdomain index>.<milliseconds>.<id>`.
fn is_browser_id(text: &str) -> bool {
    let mut parts = text.splitn(4, '.');
    let digits = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    parts.next() == Some("fb")
        && digits(parts.next())
        && digits(parts.next())
        && parts.next().is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic()))
}
