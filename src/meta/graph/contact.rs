//! Who filled in a form: its answers as customer parameters, by the types of its questions.
//!
//! The key of a question is made by whoever made the form (`correo_electrónico`), so it is never
//! looked at. Values are hashed by [`Customer`] at once. What can't be told for sure is left out: a
//! phone number without its country, a date of birth that may be read in two ways.

use crate::domain::customer::{Customer, Origin, Parameter};
use crate::meta::graph::form::Form;
use crate::meta::graph::lead::FieldData;

/// The customer parameters in the answers to a form's questions.
pub fn contact_of(answers: &[FieldData], form: &Form) -> Customer {
    let values = answers.iter().flat_map(|answer| {
        let kind = form.questions.get(&answer.name);
        let values = answer.values.iter();
        values.flat_map(move |value| {
            kind.map_or_else(Vec::new, |kind| parameters(kind, value.trim()))
        })
    });
    let mut values: Vec<(Parameter, String)> = values.collect();
    // The country is to be known before what is read by its rules.
    values.sort_by_key(|(parameter, _)| *parameter);
    let mut customer = Customer::default();
    for (parameter, value) in values {
        // What can't be such a value is left out: nobody could be found by it.
        let _ = customer.add(parameter, &value, &Origin::default());
    }
    customer
}

/// What an answer to a question of a type says about the person (META 2).
fn parameters(kind: &str, value: &str) -> Vec<(Parameter, String)> {
    let as_it_is = |parameter| vec![(parameter, value.to_owned())];
    match kind {
        "EMAIL" | "WORK_EMAIL" => as_it_is(Parameter::Em),
        "PHONE"
        | "USER_PROVIDED_PHONE_NUMBER"
        | "WORK_PHONE_NUMBER"
        | "WHATSAPP_NUMBER"
        | "PHONE_OTP" => as_it_is(Parameter::Ph),
        "FIRST_NAME" => as_it_is(Parameter::Fn),
        "LAST_NAME" => as_it_is(Parameter::Ln),
        "FULL_NAME" => full_name(value),
        "CITY" => as_it_is(Parameter::Ct),
        "STATE" | "PROVINCE" => as_it_is(Parameter::St),
        "ZIP" | "POST_CODE" => as_it_is(Parameter::Zp),
        "COUNTRY" => as_it_is(Parameter::Country),
        "DOB" => birth_date(value).into_iter().map(|date| (Parameter::Db, date)).collect(),
        "GENDER" => as_it_is(Parameter::Ge),
        _ => Vec::new(),
    }
}

/// First and last name, if there are just these two: of three words nobody knows which is which.
fn full_name(value: &str) -> Vec<(Parameter, String)> {
    match value.split_whitespace().collect::<Vec<_>>()[..] {
        [first, last] => vec![(Parameter::Fn, first.to_owned()), (Parameter::Ln, last.to_owned())],
        _ => Vec::new(),
    }
}

/// A date of birth as `YYYYMMDD`, if it can be read in one way only.
fn birth_date(text: &str) -> Option<String> {
    let numbers: Vec<&str> =
        text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    let (year, month, day) = match numbers[..] {
        [date] if date.len() == 8 && text.len() == 8 => return Some(date.to_owned()),
        [year, month, day] if year.len() == 4 => (year, month.parse().ok()?, day.parse().ok()?),
        [a, b, year] if year.len() == 4 => {
            let (a, b): (u8, u8) = (a.parse().ok()?, b.parse().ok()?);
            match (a, b) {
                (1..=12, 13..=31) => (year, a, b),
                (13..=31, 1..=12) => (year, b, a),
                (a, b) if a == b => (year, a, b),
                _ => return None,
            }
        }
        _ => {
            let date = jiff::civil::Date::strptime("%B %d, %Y", text).ok()?;
            return Some(date.strftime("%Y%m%d").to_string());
        }
    };
    Some(format!("{year}{month:02}{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FormId;

    fn form(questions: &[(&str, &str)]) -> Form {
        let questions = questions.iter().map(|(key, kind)| ((*key).into(), (*kind).into()));
        Form {
            id: FormId::from_u64(17).unwrap(),
            page_id: None,
            is_empty: false,
            questions: questions.collect(),
        }
    }

    fn answer(name: &str, value: &str) -> FieldData {
        FieldData { name: name.to_owned(), values: vec![value.to_owned()] }
    }

    fn known(parameters: &[(Parameter, &str)]) -> Customer {
        let mut customer = Customer::default();
        for (parameter, value) in parameters {
            customer.add(*parameter, value, &Origin::default()).unwrap();
        }
        customer
    }

    #[test]
    fn answers_are_mapped_by_the_types_of_their_questions_in_any_language() {
        for (kind, value, expected) in [
            ("EMAIL", "John_Smith@gmail.com", &[(Parameter::Em, "john_smith@gmail.com")][..]),
            ("WORK_EMAIL", "a@b.example", &[(Parameter::Em, "a@b.example")]),
            ("PHONE", "+1 (650) 555-1212", &[(Parameter::Ph, "+16505551212")]),
            ("PHONE_OTP", "+16505551212", &[(Parameter::Ph, "+16505551212")]),
            ("WHATSAPP_NUMBER", "+16505551212", &[(Parameter::Ph, "+16505551212")]),
            ("PHONE", "(650) 555-1212", &[]),
            ("FIRST_NAME", "Mary", &[(Parameter::Fn, "mary")]),
            ("LAST_NAME", "Smith", &[(Parameter::Ln, "smith")]),
            ("FULL_NAME", " Mary  Smith", &[(Parameter::Fn, "mary"), (Parameter::Ln, "smith")]),
            ("FULL_NAME", "Mary Ann Smith", &[]),
            ("FULL_NAME", "Mary", &[]),
            ("CITY", "Menlo Park", &[(Parameter::Ct, "menlopark")]),
            ("PROVINCE", "ca", &[(Parameter::St, "ca")]),
            ("POST_CODE", "94025-1234", &[(Parameter::Zp, "94025")]),
            ("COUNTRY", "US", &[(Parameter::Country, "us")]),
            ("GENDER", "female", &[(Parameter::Ge, "f")]),
            ("DOB", "02/16/1997", &[(Parameter::Db, "19970216")]),
            ("DOB", "02/03/1997", &[]),
            ("CUSTOM", "a@b.example", &[]),
            ("EMAIL", "nobody", &[]),
        ] {
            let form = form(&[("correo_electrónico", kind)]);
            let contact = contact_of(&[answer("correo_electrónico", value)], &form);
            assert_eq!(contact, known(expected), "{kind} {value}");
        }
    }

    #[test]
    fn a_key_that_only_looks_like_a_type_is_not_believed() {
        let answers = [answer("email", "a@b.example"), answer("phone_number", "+16505551212")];
        assert!(contact_of(&answers, &form(&[("email", "CUSTOM")])).is_empty());
    }

    #[test]
    fn a_date_of_birth_counts_only_when_it_can_be_read_in_one_way() {
        for (text, expected) in [
            ("1997-02-16", Some("19970216")),
            ("19970216", Some("19970216")),
            ("1997/2/6", Some("19970206")),
            ("2/16/1997", Some("19970216")),
            ("16.02.1997", Some("19970216")),
            ("02/02/1997", Some("19970202")),
            ("04/05/1997", None),
            ("April 19, 1987", Some("19870419")),
            ("19 de abril de 1987", None),
            ("16/2/97", None),
            ("", None),
        ] {
            assert_eq!(birth_date(text).as_deref(), expected, "{text}");
        }
    }
}
