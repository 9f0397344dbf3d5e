//! Customer information: what is hashed, what is left out, and what may be sent alone.

use proptest::prelude::*;

use super::*;

const TODAY: u32 = 20_251_101;

fn origin() -> Origin {
    Origin { default_country: None, today: TODAY }
}

fn with(values: &[(Parameter, &str)]) -> Customer {
    let mut customer = Customer::default();
    for (parameter, value) in values {
        customer.add(*parameter, value, &origin()).unwrap();
    }
    customer
}

/// Why a value is left out; the message of a failure names no more than the test does.
fn reason(parameter: Parameter, value: &str) -> Option<LeftOutReason> {
    let mut customer = Customer::default();
    let left_out = customer.add(parameter, value, &origin()).err()?;
    assert_eq!((left_out.parameter, customer), (parameter, Customer::default()));
    Some(left_out.reason)
}

/// Asserts that a value is hashed in this form.
#[track_caller]
fn hashed_as(customer: &mut Customer, parameter: Parameter, value: &str, normal: &str) {
    customer.0.remove(parameter.name());
    customer.add(parameter, value, &origin()).unwrap();
    assert_eq!(customer.values(parameter), [digest(normal)], "{value} is not {normal}");
}

#[test]
fn metas_published_vectors_come_out() {
    for (parameter, value, head, tail) in [
        (Parameter::Em, "John_Smith@gmail.com", "62a14e44", "f62f"),
        (Parameter::Ph, "+1 (650)555-1212", "e323ec62", "3176"),
        (Parameter::Fn, "Mary", "6915771b", "f4ec"),
        (Parameter::Fn, "정", "8fa8cd9c", "db14"),
        (Parameter::Fn, "Valéry", "08e1996b", "149c"),
        (Parameter::Db, "19970216", "01acdbf6", "0f0c"),
        (Parameter::Db, "1997-02-16", "01acdbf6", "0f0c"),
        (Parameter::Country, "US", "79adb2a2", "4621"),
    ] {
        let customer = with(&[(parameter, value)]);
        let digest = &customer.values(parameter)[0];
        assert!(digest.starts_with(head) && digest.ends_with(tail), "{value}: {digest}");
    }
    // The same number as its source writes it.
    let mut customer = Customer::default();
    let origin = Origin { default_country: Country::parse("US"), ..origin() };
    customer.add(Parameter::Ph, "(650)555-1212", &origin).unwrap();
    assert!(customer.values(Parameter::Ph)[0].starts_with("e323ec62"));
}

#[test]
fn each_parameter_is_hashed_in_the_form_that_meta_asks_for() {
    let mut customer = Customer::default();
    for (parameter, value, normal) in [
        (Parameter::Em, " Max.Mustermann+Ads@Example.ORG ", "max.mustermann+ads@example.org"),
        (Parameter::Em, "Mailto:max@example.org", "max@example.org"),
        (Parameter::Ph, "+49 (0)151/123 456 78", "4915112345678"),
        (Parameter::Fn, "Jean-Luc", "jeanluc"),
        (Parameter::Fn, "Mary Ann", "maryann"),
        (Parameter::Ln, "O\u{2019}Connor", "oconnor"),
        (Parameter::Ln, "Weiß, Dr.", "weißdr"),
        (Parameter::Ln, "सिंह\u{94D}", "सिंह\u{94D}"),
        (Parameter::Fn, "ジョン・スミス", "ジョンスミス"),
        (Parameter::Ct, "St. John's", "stjohns"),
        (Parameter::Ct, "São Paulo", "sãopaulo"),
        (Parameter::Ct, "北京", "北京"),
        (Parameter::St, "Nordrhein-Westfalen", "nordrheinwestfalen"),
        (Parameter::St, "CA", "ca"),
        (Parameter::Zp, "M1 1AE", "m11ae"),
        (Parameter::Zp, "94025-1234", "94025"),
        (Parameter::Zp, "01310-100", "01310100"),
        (Parameter::Zp, "50667", "50667"),
        (Parameter::Country, " de ", "de"),
        (Parameter::Ge, "Female", "f"),
        (Parameter::Ge, "Mann", "m"),
        (Parameter::Db, "2000-02-29", "20000229"),
        (Parameter::ExternalId, " Crm-7 ", "Crm-7"),
    ] {
        hashed_as(&mut customer, parameter, value, normal);
    }
}

#[test]
fn the_united_states_have_codes_of_states_and_five_digits() {
    for country in ["US", "us", digest("us").as_str()] {
        let mut customer = with(&[(Parameter::Country, country)]);
        for (parameter, value, normal) in [
            (Parameter::St, "California", "ca"),
            (Parameter::St, "New York", "ny"),
            (Parameter::St, "TX", "tx"),
            (Parameter::Zp, "94025", "94025"),
            (Parameter::Zp, "940251234", "94025"),
            (Parameter::Zp, "94025 1234", "94025"),
        ] {
            hashed_as(&mut customer, parameter, value, normal);
        }
        for (parameter, value) in [(Parameter::St, "Bavaria"), (Parameter::Zp, "2139")] {
            let reason = customer.add(parameter, value, &origin()).unwrap_err().reason;
            assert_eq!(reason, LeftOutReason::ImpossibleValue, "{value}");
        }
    }
    let mut elsewhere = with(&[(Parameter::Country, "GE")]);
    hashed_as(&mut elsewhere, Parameter::St, "Georgia", "georgia");
    let mut elsewhere = with(&[(Parameter::Country, "SA")]);
    hashed_as(&mut elsewhere, Parameter::Zp, "12271-2345", "122712345");
}

#[test]
fn a_digest_passes_in_small_letters_whatever_it_is_of() {
    for parameter in Parameter::ALL.into_iter().filter(|parameter| parameter.is_hashed()) {
        let customer = with(&[(parameter, &format!(" {} ", "A0".repeat(32)))]);
        assert_eq!(customer.values(parameter), ["a0".repeat(32)]);
    }
}

#[test]
fn digests_of_nothing_are_left_out() {
    // Meta's own example for a CRM has the second of these as its phone number.
    for value in [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b",
        "74234E98AFE7498FB5DAF1F36AC2D78ACC339464F950703B8C019892F982B90B",
        &digest("undefined"),
        &digest("n/a"),
    ] {
        for parameter in Parameter::ALL.into_iter().filter(|parameter| parameter.is_hashed()) {
            assert_eq!(reason(parameter, value), Some(LeftOutReason::DigestOfNothing), "{value}");
        }
    }
}

#[test]
fn nothing_is_left_out_as_no_value_of_any_parameter() {
    for parameter in Parameter::ALL {
        for value in ["", "  ", "\t\n", "null", "NULL", " Undefined ", "None", "n/a", "N/A"] {
            assert_eq!(reason(parameter, value), Some(LeftOutReason::NoValue), "{value:?}");
        }
    }
}

#[test]
fn what_a_parameter_can_not_be_is_left_out() {
    for (parameter, values) in [
        (Parameter::Em, &["nobody", "a@b", "a@b@c.org", "@x.org", "a@.org", "a b@x.org"][..]),
        (Parameter::Em, &["Max <max@x.org>", "a@x.org;b@x.org", "a@x..org"]),
        (Parameter::Ph, &["+12", "call me", "+49", "+1 650 555 121"]),
        (Parameter::Fn, &["-", "123", "?!"]),
        (Parameter::Ct, &["--", "50667"]),
        (Parameter::St, &["."]),
        (Parameter::Zp, &["-", "1"]),
        (Parameter::Db, &["19971316", "19970229", "18991231", "20251102", "02/16/1997"]),
        (Parameter::Db, &["16.02.1997", "970216", "1997", "1997-2-16", "1997-02-16T00:00:00Z"]),
        (Parameter::Db, &["1997--0216", "+9970216", "19970200", "19000229"]),
        (Parameter::Ge, &["x", "diverse", "1"]),
        (Parameter::Country, &["Japan", "UK", "XX", "USA", "D"]),
        (
            Parameter::Fbc,
            &["AbCdEf", "fb.1.AbCdEf", "fb.1.1596403881668.", "fb.x.1.Ab", "fc.1.1.A"],
        ),
        (Parameter::Fbc, &["fb.1.1596403881668.Ab Cd"]),
        (Parameter::Fbp, &["1098115397", "fb.1..1098115397"]),
        (Parameter::ClientIpAddress, &["localhost", "1.2.3", "1.2.3.4:80", "::g"]),
        (Parameter::ClientUserAgent, &["Mozilla\n5.0"]),
        (Parameter::ExternalId, &["a\0b"]),
    ] {
        for value in values {
            let found = reason(parameter, value);
            assert_eq!(found, Some(LeftOutReason::ImpossibleValue), "{parameter:?} {value}");
        }
    }
    let found = reason(Parameter::Ph, "0151 12345678");
    assert_eq!(found, Some(LeftOutReason::CountryCodeMissing));
}

#[test]
fn somebody_may_be_born_from_1900_until_today() {
    for day in ["19000101", "20251101", "2025-11-01", "20240229"] {
        assert_eq!(reason(Parameter::Db, day), None, "{day}");
    }
    let mut customer = Customer::default();
    assert!(customer.add(Parameter::Db, "99991231", &Origin::default()).is_ok());
}

#[test]
fn unhashed_parameters_stay_as_they_are_and_debug_shows_no_value() {
    for (parameter, value) in [
        (Parameter::Fbc, "fb.1.1596403881668.IwAR_AbCdEf-1.AQYBAQEA"),
        (Parameter::Fbp, "fb.1.1558571054389.1098115397"),
        (Parameter::ClientIpAddress, "203.0.113.7"),
        (Parameter::ClientIpAddress, "2001:db8::1"),
        (Parameter::ClientUserAgent, "Mozilla/5.0 (X11)"),
    ] {
        let customer = with(&[(parameter, &format!(" {value} "))]);
        assert_eq!(customer.values(parameter), [value]);
        assert_eq!(format!("{customer:?}"), format!("{{{:?}}}", parameter.name()));
    }
}

#[test]
fn values_are_bounded_in_number_and_length() {
    let long = "x".repeat(CUSTOMER_VALUE_BYTES_MAX + 1);
    assert_eq!(reason(Parameter::ExternalId, &long), Some(LeftOutReason::TooLarge));
    let mut customer = Customer::default();
    for n in 0..CUSTOMER_VALUES_MAX {
        customer.add(Parameter::ExternalId, &n.to_string(), &origin()).unwrap();
    }
    customer.add(Parameter::Fbc, "fb.1.2.X", &origin()).unwrap();
    for (parameter, value) in [(Parameter::ExternalId, "more"), (Parameter::Fbc, "fb.1.2.Y")] {
        let left_out = customer.add(parameter, value, &origin()).unwrap_err();
        assert_eq!(left_out.reason, LeftOutReason::TooLarge);
    }
}

#[test]
fn names_are_read_back_and_aliases_are_understood() {
    for parameter in Parameter::ALL {
        assert_eq!(Parameter::from_name(parameter.name()), Some(parameter));
    }
    assert!(Parameter::ALL.is_sorted(), "the country would come after what it decides on");
    assert_eq!(Parameter::from_name("email"), Some(Parameter::Em));
    assert_eq!(Parameter::from_name("phone"), Some(Parameter::Ph));
    assert_eq!(Parameter::from_name("fax"), None);
}

/// A customer who has these parameters.
fn having(parameters: impl IntoIterator<Item = Parameter>) -> Customer {
    Customer(parameters.into_iter().map(|p| (p.name(), vec!["a".repeat(64)])).collect())
}

#[test]
fn what_says_too_little_about_a_person_is_not_sent_without_a_lead() {
    use Parameter::{ClientIpAddress, ClientUserAgent, Country, Ct, Db, Em, Fbc, Fbp, Fn, Ge};
    use Parameter::{ExternalId, Ln, Ph, St, Zp};
    for (parameters, sendable) in [
        (&[][..], false),
        (&[Ct, Country, St, Zp, Ge, ClientUserAgent], false),
        (&[Ct], false),
        (&[Db, ClientUserAgent], false),
        (&[Db], false),
        (&[Fn, Ge], false),
        (&[Ln], false),
        (&[Ge], false),
        (&[Fn, Ln], true),
        (&[Db, Ge], true),
        (&[Fn, Ct], true),
        (&[Ct, Country, St, Zp, Ge, ClientUserAgent, Ln], true),
        (&[ClientIpAddress], true),
        (&[Em], true),
        (&[Ph], true),
        (&[Fbc], true),
        (&[Fbp], true),
        (&[ExternalId], true),
    ] {
        let customer = having(parameters.iter().copied());
        assert_eq!(customer.is_sendable_alone(), sendable, "{customer:?}");
    }
}

#[test]
fn merging_adds_what_is_new_within_the_bounds() {
    let mut customer = with(&[(Parameter::Em, "a@x.org"), (Parameter::Fbp, "fb.1.2.3")]);
    let emails: Vec<String> = (0..20).map(|n| format!("{n}@x.org")).collect();
    let mut other = with(&[(Parameter::Em, "a@x.org"), (Parameter::Fbp, "fb.1.2.4")]);
    for email in &emails[..9] {
        other.add(Parameter::Em, email, &origin()).unwrap();
    }
    other.add(Parameter::Ph, "+4915112345678", &origin()).unwrap();
    customer.merge(&other);
    assert_eq!(customer.values(Parameter::Em), other.values(Parameter::Em));
    assert_eq!(customer.values(Parameter::Fbp), ["fb.1.2.3"], "there is one only");
    assert_eq!(customer.values(Parameter::Ph), [digest("4915112345678")]);
    let before = customer.clone();
    customer.merge(&with(&[(Parameter::Em, &emails[19])]));
    assert_eq!(customer, before, "there is no room");
}

#[test]
fn a_lead_is_found_by_its_email_addresses_and_phone_numbers() {
    let customer = with(&[
        (Parameter::Ph, "+4915112345678"),
        (Parameter::Fn, "Max"),
        (Parameter::Em, "a@x.org"),
        (Parameter::Em, "b@x.org"),
    ]);
    let (a, b, phone) = (digest("a@x.org"), digest("b@x.org"), digest("4915112345678"));
    let found: Vec<_> = customer.digests_of_contact().collect();
    let expected = [(Parameter::Em, &*a), (Parameter::Em, &b), (Parameter::Ph, &phone)];
    assert_eq!(found, expected);
}

fn parameter() -> impl Strategy<Value = Parameter> {
    proptest::sample::select(&Parameter::ALL[..])
}

proptest! {
    #[test]
    fn whatever_comes_in_a_digest_goes_out_or_nothing(
        parameter in parameter(), value in "\\PC{0,40}|[0-9a-fA-F]{64}|[a-zA-Z0-9@. +-]{0,20}"
    ) {
        let mut customer = Customer::default();
        match customer.add(parameter, &value, &origin()) {
            Err(_) => prop_assert!(customer.is_empty()),
            Ok(()) if parameter.is_hashed() => {
                let stored = &customer.values(parameter)[0];
                prop_assert_eq!(as_digest(stored), Some(stored.clone()));
                prop_assert!(!DIGESTS_OF_NOTHING.contains(stored));
            }
            Ok(()) => prop_assert_eq!(customer.values(parameter), [value.trim()]),
        }
    }

    #[test]
    fn case_and_blanks_around_a_value_make_no_difference(
        parameter in proptest::sample::select(&[
            Parameter::Em, Parameter::Fn, Parameter::Ct, Parameter::Zp, Parameter::Ge,
        ][..]),
        value in "[a-z]{1,8}(@[a-z]{1,8}\\.org)?"
    ) {
        let read = |value: &str| {
            let mut customer = Customer::default();
            customer.add(parameter, value, &origin()).map(|()| customer)
        };
        prop_assert_eq!(read(&value), read(&format!("  {}\t", value.to_uppercase())));
    }

    #[test]
    fn more_parameters_never_make_an_event_less_sendable(
        some in proptest::collection::btree_set(parameter(), 0..6), more in parameter()
    ) {
        let fewer = having(some.iter().copied()).is_sendable_alone();
        let all = having(some.iter().copied().chain([more])).is_sendable_alone();
        prop_assert!(all || !fewer);
    }
}
