//! Phone numbers as Meta matches them: country code and number, digits only.
//!
//! The library knows each country's prefixes and lengths. It is given digits and no more, since
//! what people write around them is nothing that it has to guess about. Whether a number is in
//! service nobody can tell.

use phonenumber::metadata::{DATABASE, Descriptor, Metadata};
use phonenumber::{PhoneNumber, Type};

use crate::domain::customer::LeftOutReason;
use crate::domain::customer::country::Country;
use crate::limits::PHONE_DIGITS;

/// Country code and number of what somebody wrote; `default_country` is where it is if it does not
/// say so itself.
pub(super) fn normalise(
    text: &str,
    default_country: Option<Country>,
) -> Result<String, LeftOutReason> {
    let written = dialled(text).ok_or(LeftOutReason::ImpossibleValue)?;
    let country = default_country.and_then(|country| DATABASE.by_id(country.code()));
    let number = match (international(&written, country), country) {
        (Some(digits), _) => whole(digits),
        (None, Some(country)) => national(&written, country),
        (None, None) => return Err(LeftOutReason::CountryCodeMissing),
    };
    number.as_ref().and_then(possible).ok_or(LeftOutReason::ImpossibleValue)
}

/// A number with its country code. Which country would write it is not told to the library: it
/// would cut that country's prefixes off.
fn whole(digits: &str) -> Option<PhoneNumber> {
    phonenumber::parse(None, format!("+{digits}")).ok()
}

/// A number as it is written within a country, where some have the country's code all the same.
fn national(digits: &str, country: &Metadata) -> Option<PhoneNumber> {
    let code = country.country_code().to_string();
    if !digits.starts_with(&code) {
        return phonenumber::parse(country.id().parse().ok(), digits).ok();
    }
    // The library would always cut the code off, and in Italy, +39, there are numbers from 391 on.
    whole(digits).filter(PhoneNumber::is_valid).or_else(|| whole(&(code + digits)))
}

/// The digits, behind a plus if there is one; without an extension. `None` if there is something in
/// it that does not belong to a phone number.
fn dialled(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("tel:").unwrap_or(text);
    let number = text.find(|c: char| c.is_ascii_alphabetic() || ";#,".contains(c));
    let (number, extension) = text.split_at(number.unwrap_or(text.len()));
    if !is_extension(extension) {
        return None;
    }
    let mut digits = String::new();
    for c in number.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' | '\u{FF0B}' if digits.is_empty() => digits.push('+'),
            c if is_separator(c) => {}
            _ => return None,
        }
    }
    (digits.len() > 1).then_some(digits)
}

fn is_separator(c: char) -> bool {
    // Telephones and web pages put invisible marks around numbers.
    let is_mark =
        matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}');
    let is_dash = matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}');
    c.is_whitespace() || is_mark || is_dash || "-.()[]/".contains(c)
}

fn is_extension(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let marks = [";ext=", "extension", "ext.", "extn", "ext", "x", "#"];
    let rest = marks.into_iter().find_map(|mark| lower.strip_prefix(mark)).unwrap_or(&lower);
    rest.chars().all(|c| c.is_ascii_digit() || c == ' ')
}

/// What follows the plus or the prefix of international calls: that of the country, or the one that
/// nearly all use if there is no country.
fn international<'d>(written: &'d str, country: Option<&Metadata>) -> Option<&'d str> {
    if let Some(digits) = written.strip_prefix('+') {
        return Some(digits);
    }
    let Some(country) = country else { return written.strip_prefix("00") };
    let prefix = country.international_prefix()?.find(written)?;
    (prefix.start() == 0).then(|| &written[prefix.end()..])
}

/// The digits of a number, if a person in one of the countries with its code can have it by its
/// length. Which numbers are given out changes every month; lengths hardly do.
fn possible(number: &PhoneNumber) -> Option<String> {
    let (code, national) = (number.code().value(), number.national().to_string());
    let has_length = |country: &&Metadata| {
        let kinds = [Type::Mobile, Type::FixedLine, Type::PersonalNumber, Type::Voip];
        let kinds = kinds.into_iter().filter_map(|kind| country.descriptors().get(kind));
        let mut lengths = kinds.flat_map(Descriptor::possible_length);
        lengths.any(|length| usize::from(*length) == national.len())
    };
    DATABASE.by_code(&code)?.iter().find(|country| has_length(country))?;
    let digits = format!("{code}{national}");
    PHONE_DIGITS.contains(&digits.len()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(country: &str, text: &str) -> Result<String, LeftOutReason> {
        normalise(text, Country::parse(country))
    }

    #[test]
    fn a_number_with_its_country_code_is_the_same_from_everywhere() {
        for (text, digits) in [
            ("+1 (650)555-1212", "16505551212"),
            ("+49 151 12345678", "4915112345678"),
            ("+49 (0)151 / 12345678", "4915112345678"),
            ("tel:+49-151-12345678", "4915112345678"),
            ("\u{202A}+49 151 12345678\u{202C}", "4915112345678"),
            ("+44 20 7946 0958 ext. 12", "442079460958"),
            ("+44 20 7946 0958 x12", "442079460958"),
            ("+39 06 698 12345", "390669812345"),
            ("+33 1 42 68 53 00", "33142685300"),
            ("+91 98765 43210", "919876543210"),
            ("+55 11 96123-4567", "5511961234567"),
        ] {
            for country in ["", "DE", "US", "IT", "JP"] {
                assert_eq!(read(country, text).as_deref(), Ok(digits), "{country} {text}");
            }
        }
    }

    #[test]
    fn a_number_without_one_is_read_as_its_source_writes_numbers() {
        for (country, text, digits) in [
            ("US", "(650) 555-1212", "16505551212"),
            ("US", "1 650 555 1212", "16505551212"),
            ("US", "011 49 151 12345678", "4915112345678"),
            ("DE", "0151 12345678", "4915112345678"),
            ("DE", "4915112345678", "4915112345678"),
            ("DK", "45 12 34 56", "4545123456"),
            ("DK", "45 45 12 34 56", "4545123456"),
            ("DE", "0039 06 698 12345", "390669812345"),
            ("IT", "06 698 12345", "390669812345"),
            ("IT", "391 234 5678", "393912345678"),
            ("IT", "39 391 234 5678", "393912345678"),
            ("RU", "8 912 345-67-89", "79123456789"),
            ("GB", "020 7946 0958", "442079460958"),
            ("FR", "01 42 68 53 00", "33142685300"),
            ("AU", "0011 49 151 12345678", "4915112345678"),
            ("", "0049 151 12345678", "4915112345678"),
        ] {
            assert_eq!(read(country, text).as_deref(), Ok(digits), "{country} {text}");
        }
    }

    #[test]
    fn without_a_country_it_can_be_anybodys() {
        for text in ["0151 12345678", "650 555 1212", "4915112345678", "1"] {
            let expected = if text.len() > 1 {
                LeftOutReason::CountryCodeMissing
            } else {
                LeftOutReason::ImpossibleValue
            };
            assert_eq!(read("", text), Err(expected), "{text}");
            // A country without telephones of its own is as good as none.
            assert_eq!(read("AQ", text), Err(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_impossible() {
        for (country, text) in [
            ("", "+49"),
            ("", "+"),
            ("", "++4915112345678"),
            ("", "+49 151 123456789012"),
            ("", "+1 650 555"),
            ("", "+999 12345678"),
            ("", "+0151 12345678"),
            ("DE", "12"),
            ("DE", "1234"),
            ("DE", "4915100canary"),
            ("DE", "mine: 0151 12345678"),
            ("US", "1-800-FLOWERS"),
            ("US", "650 555 12123"),
            ("US", "650 555 1212, 650 555 1213 and more"),
            ("DE", "٠١٥١"),
            ("DE", "---"),
        ] {
            assert_eq!(
                read(country, text),
                Err(LeftOutReason::ImpossibleValue),
                "{country} {text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_what_comes_out_comes_out_again(
            text in "[+0-9 ()/.x#;,-]{0,40}|\\PC{0,20}", country in "|DE|US|IT|AQ|CN"
        ) {
            if let Ok(digits) = read(&country, &text) {
                prop_assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
                prop_assert_eq!(read(&country, &format!("+{digits}")), Ok(digits));
            }
        }
    }
}
