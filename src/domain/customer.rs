//! Customer information parameters: normalised, hashed at the door, never kept plain.
//!
//! [`Customer`] holds only what may be stored and sent: SHA-256 digests of normalised values, and
//! the few parameters that Meta wants unhashed (META 4). A value that is a digest already passes;
//! the digests of `""` and `"null"`, a well-known mistake, do not. Matching leads by these values
//! and telling a phone number's country are not done here.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::limits::{CUSTOMER_VALUE_BYTES_MAX, CUSTOMER_VALUES_MAX};

/// A customer information parameter that CRM events may carry (META 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parameter {
    /// E-mail address.
    Em,
    /// Phone number with country code.
    Ph,
    /// First name.
    Fn,
    /// Last name.
    Ln,
    /// Date of birth, `YYYYMMDD`.
    Db,
    /// Gender, `f` or `m`.
    Ge,
    /// City.
    Ct,
    /// State or region.
    St,
    /// Postal code.
    Zp,
    /// Country, ISO 3166-1 alpha-2.
    Country,
    /// The CRM's own id of the person.
    ExternalId,
    /// Click id; sent unhashed.
    Fbc,
    /// Browser id; sent unhashed.
    Fbp,
    /// IP address; sent unhashed.
    ClientIpAddress,
    /// Browser's user agent; sent unhashed.
    ClientUserAgent,
}

impl Parameter {
    /// Every parameter.
    pub const ALL: [Self; 15] = [
        Self::Em,
        Self::Ph,
        Self::Fn,
        Self::Ln,
        Self::Db,
        Self::Ge,
        Self::Ct,
        Self::St,
        Self::Zp,
        Self::Country,
        Self::ExternalId,
        Self::Fbc,
        Self::Fbp,
        Self::ClientIpAddress,
        Self::ClientUserAgent,
    ];

    /// Meta's name of the parameter, which is also ours.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Em => "em",
            Self::Ph => "ph",
            Self::Fn => "fn",
            Self::Ln => "ln",
            Self::Db => "db",
            Self::Ge => "ge",
            Self::Ct => "ct",
            Self::St => "st",
            Self::Zp => "zp",
            Self::Country => "country",
            Self::ExternalId => "external_id",
            Self::Fbc => "fbc",
            Self::Fbp => "fbp",
            Self::ClientIpAddress => "client_ip_address",
            Self::ClientUserAgent => "client_user_agent",
        }
    }

    /// Finds a parameter by its name; `email` and `phone` are understood too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "email" => Some(Self::Em),
            "phone" => Some(Self::Ph),
            _ => Self::ALL.into_iter().find(|parameter| parameter.name() == name),
        }
    }

    /// Whether Meta takes the parameter as a SHA-256 digest (META 4).
    pub const fn is_hashed(self) -> bool {
        !matches!(self, Self::Fbc | Self::Fbp | Self::ClientIpAddress | Self::ClientUserAgent)
    }

    /// The form of a plain value that is hashed, or `None` if it can't be one.
    fn normalise(self, plain: &str) -> Option<String> {
        let lower = plain.trim().to_lowercase();
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let value = match self {
            Self::Em => {
                let (local, domain) = lower.split_once('@')?;
                let plausible = !local.is_empty() && domain.contains('.') && !domain.contains('@');
                return (plausible && !lower.contains(char::is_whitespace)).then_some(lower);
            }
            Self::Ph => {
                let digits: String = lower.chars().filter(char::is_ascii_digit).collect();
                let digits = digits.trim_start_matches('0').to_owned();
                return (7..=15).contains(&digits.len()).then_some(digits);
            }
            Self::Db => {
                let digits: String = lower.chars().filter(char::is_ascii_digit).collect();
                return plausible_birth_date(&digits).then_some(digits);
            }
            Self::Ge => match lower.as_str() {
                "f" | "female" => "f".to_owned(),
                "m" | "male" => "m".to_owned(),
                _ => return None,
            },
            Self::Country => {
                let iso = lower.len() == 2 && lower.bytes().all(|byte| byte.is_ascii_lowercase());
                return iso.then_some(lower);
            }
            Self::Zp => letters(lower.split('-').next().unwrap_or_default()),
            Self::Fn | Self::Ln | Self::Ct | Self::St => letters(&lower),
            Self::ExternalId => plain.trim().to_owned(),
            Self::Fbc | Self::Fbp | Self::ClientIpAddress | Self::ClientUserAgent => {
                plain.trim().to_owned()
            }
        };
        (!value.is_empty()).then_some(value)
    }
}

/// Whether eight digits read as year, month and day of somebody alive (META 4: 1900 to now).
fn plausible_birth_date(digits: &str) -> bool {
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u32>().ok();
    let in_range = |number: Option<u32>, from, to| number.is_some_and(|n| (from..=to).contains(&n));
    digits.len() == 8
        && in_range(number(0..4), 1900, 2100)
        && in_range(number(4..6), 1, 12)
        && in_range(number(6..8), 1, 31)
}

/// A customer value that would do harm if it were sent. It names the field, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCustomer {
    /// The value can't be what the parameter is for.
    #[error("customer.{0} is not a possible value of this parameter")]
    Impossible(&'static str),
    /// The value is the digest of an empty text or of the word null.
    #[error("customer.{0} is the SHA-256 of an empty text or of \"null\", which matches nobody")]
    DigestOfNothing(&'static str),
    /// Too many values, or one that is too long.
    #[error("customer.{0} has too many values, or one that is too long")]
    TooLarge(&'static str),
}

/// Customer parameters in the form that is stored and sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Customer(BTreeMap<&'static str, Vec<String>>);

impl Customer {
    const DIGEST_OF_EMPTY: &str =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const DIGEST_OF_NULL: &str = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b";

    /// Adds a plain or already hashed value; an empty plain value counts as absent.
    ///
    /// # Errors
    /// [`InvalidCustomer`] if the value must not be sent; nothing is added then.
    pub fn add(&mut self, parameter: Parameter, value: &str) -> Result<(), InvalidCustomer> {
        let name = parameter.name();
        let values = self.0.get(name).map_or(0, Vec::len);
        // Meta takes lists of the hashed parameters, and one text of each other (META 4).
        let values_max = if parameter.is_hashed() { CUSTOMER_VALUES_MAX } else { 1 };
        if value.len() > CUSTOMER_VALUE_BYTES_MAX || values >= values_max {
            return Err(InvalidCustomer::TooLarge(name));
        }
        if value.trim().is_empty() {
            return Ok(());
        }
        let stored = if !parameter.is_hashed() {
            parameter.normalise(value).ok_or(InvalidCustomer::Impossible(name))?
        } else if let Some(digest) = as_digest(value) {
            digest
        } else {
            let normal = parameter.normalise(value).ok_or(InvalidCustomer::Impossible(name))?;
            hex::encode(Sha256::digest(normal.as_bytes()))
        };
        if stored == Self::DIGEST_OF_EMPTY || stored == Self::DIGEST_OF_NULL {
            return Err(InvalidCustomer::DigestOfNothing(name));
        }
        let values = self.0.entry(name).or_default();
        if !values.contains(&stored) {
            values.push(stored);
        }
        Ok(())
    }

    /// Takes back what [`Customer::iter`] gave out, from the store.
    pub fn from_stored(parameters: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let known = parameters.into_iter().filter_map(|(name, values)| {
            Parameter::from_name(&name).map(|parameter| (parameter.name(), values))
        });
        Self(known.collect())
    }

    /// Adds the values of another that are not there yet, as many as there may be.
    pub fn merge(&mut self, other: &Self) {
        for (name, values) in &other.0 {
            let own = self.0.entry(name).or_default();
            for value in values {
                if !own.contains(value) && own.len() < CUSTOMER_VALUES_MAX {
                    own.push(value.clone());
                }
            }
        }
    }

    /// Whether Meta takes an event with these parameters and no lead id (META 3.7).
    pub fn is_sendable_alone(&self) -> bool {
        !self.is_empty()
    }

    /// Whether no parameter is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Meta's name and the values of each parameter, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.0.iter().map(|(name, values)| (*name, values.as_slice()))
    }
}

impl fmt::Debug for Customer {
    /// Names the parameters only: the values are about a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn as_digest(value: &str) -> Option<String> {
    let value = value.trim();
    let digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    digest.then(|| value.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(parameter: Parameter, value: &str) -> String {
        let mut customer = Customer::default();
        customer.add(parameter, value).unwrap();
        customer.0[parameter.name()][0].clone()
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
            (Parameter::Country, "US", "79adb2a2", "4621"),
        ] {
            let digest = digest_of(parameter, value);
            assert!(digest.starts_with(head) && digest.ends_with(tail), "{value}: {digest}");
        }
    }

    #[test]
    fn a_digest_passes_in_lower_case() {
        let digest = "A".repeat(64);
        assert_eq!(digest_of(Parameter::Em, &digest), "a".repeat(64));
    }

    #[test]
    fn digests_of_nothing_are_refused_hashed_or_plain() {
        let mut customer = Customer::default();
        for value in [Customer::DIGEST_OF_EMPTY, Customer::DIGEST_OF_NULL] {
            let refused = customer.add(Parameter::Em, value);
            assert_eq!(refused, Err(InvalidCustomer::DigestOfNothing("em")));
        }
        let refused = customer.add(Parameter::ExternalId, "null");
        assert_eq!(refused, Err(InvalidCustomer::DigestOfNothing("external_id")));
        assert!(customer.is_empty());
    }

    #[test]
    fn an_empty_value_counts_as_absent_and_an_impossible_one_is_named_without_its_value() {
        let mut customer = Customer::default();
        customer.add(Parameter::Ph, "  ").unwrap();
        assert!(customer.is_empty());
        for (parameter, value) in [
            (Parameter::Em, "nobody"),
            (Parameter::Ph, "12"),
            (Parameter::Db, "19971316"),
            (Parameter::Ge, "x"),
            (Parameter::Country, "Japan"),
            (Parameter::Ct, "--"),
        ] {
            let error = customer.add(parameter, value).unwrap_err();
            assert_eq!(error, InvalidCustomer::Impossible(parameter.name()));
            assert!(!error.to_string().contains(value));
        }
    }

    #[test]
    fn unhashed_parameters_stay_as_they_are_and_debug_shows_no_value() {
        let mut customer = Customer::default();
        customer.add(Parameter::Fbc, "fb.1.1596403881668.AbCdEf").unwrap();
        assert_eq!(customer.0["fbc"], ["fb.1.1596403881668.AbCdEf"]);
        assert_eq!(format!("{customer:?}"), r#"{"fbc"}"#);
    }

    #[test]
    fn values_are_bounded_in_number_and_length() {
        let mut customer = Customer::default();
        let long = "x".repeat(CUSTOMER_VALUE_BYTES_MAX + 1);
        assert_eq!(customer.add(Parameter::Fbp, &long), Err(InvalidCustomer::TooLarge("fbp")));
        for n in 0..CUSTOMER_VALUES_MAX {
            customer.add(Parameter::ExternalId, &n.to_string()).unwrap();
        }
        customer.add(Parameter::Fbc, "fb.1.2.X").unwrap();
        assert_eq!(customer.add(Parameter::Fbc, "y"), Err(InvalidCustomer::TooLarge("fbc")));
        let refused = customer.add(Parameter::ExternalId, "one more");
        assert_eq!(refused, Err(InvalidCustomer::TooLarge("external_id")));
    }

    #[test]
    fn aliases_are_understood() {
        assert_eq!(Parameter::from_name("email"), Some(Parameter::Em));
        assert_eq!(Parameter::from_name("phone"), Some(Parameter::Ph));
        assert_eq!(Parameter::from_name("fax"), None);
    }
}
