//! Customer information parameters: normalised, hashed at the door, never kept plain.
//!
//! [`Customer`] holds only what may be stored and sent: SHA-256 digests of normalised values, and
//! the few parameters that Meta wants unhashed (META 4). A digest passes as it is. What would match
//! nobody, or somebody else, is left out with a reason; so one bad field costs no stage. Matching
//! leads by these values is not done here.

mod country;
mod normalise;
mod phone;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

pub use crate::domain::customer::country::Country;
use crate::domain::customer::normalise::{PLACEHOLDERS, normalise};
use crate::limits::{CUSTOMER_VALUE_BYTES_MAX, CUSTOMER_VALUES_MAX};

/// A customer information parameter that CRM events may carry (META 4).
///
/// They are in the order in which they have to be read: the country decides on others.
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
    /// Country, ISO 3166-1 alpha-2.
    Country,
    /// State or region.
    St,
    /// Postal code.
    Zp,
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
        Self::Country,
        Self::St,
        Self::Zp,
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
            Self::Country => "country",
            Self::St => "st",
            Self::Zp => "zp",
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
}

/// Why a value is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOutReason {
    /// It is empty, or a word that programs write where there is no value.
    NoValue,
    /// It is the digest of such a text, which matches nobody.
    DigestOfNothing,
    /// It can't be what the parameter is for, or it can be read in two ways.
    ImpossibleValue,
    /// A phone number without its country code, from a source without a country.
    CountryCodeMissing,
    /// It is too long, or there are too many values of this parameter.
    TooLarge,
}

impl LeftOutReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::NoValue,
        Self::DigestOfNothing,
        Self::ImpossibleValue,
        Self::CountryCodeMissing,
        Self::TooLarge,
    ];

    /// The reason's stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoValue => "no_value",
            Self::DigestOfNothing => "digest_of_nothing",
            Self::ImpossibleValue => "impossible_value",
            Self::CountryCodeMissing => "country_code_missing",
            Self::TooLarge => "too_large",
        }
    }
}

/// A value that is not sent: which parameter, and why. It never holds the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// The parameter.
    pub parameter: Parameter,
    /// Why.
    pub reason: LeftOutReason,
}

/// Where and when a plain value was written, as far as that says how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The country of phone numbers that do not name theirs.
    pub default_country: Option<Country>,
    /// The last day that somebody may be born on, as the number `YYYYMMDD`.
    pub today: u32,
}

impl Default for Origin {
    /// Nothing is known of it.
    fn default() -> Self {
        Self { default_country: None, today: 99_991_231 }
    }
}

/// Parameters that say too little about a person if an event has no others (META 3.7).
const TOO_BROAD: [&[Parameter]; 4] = [
    &[
        Parameter::Ct,
        Parameter::Country,
        Parameter::St,
        Parameter::Zp,
        Parameter::Ge,
        Parameter::ClientUserAgent,
    ],
    &[Parameter::Db, Parameter::ClientUserAgent],
    &[Parameter::Fn, Parameter::Ge],
    &[Parameter::Ln, Parameter::Ge],
];

static DIGESTS_OF_NOTHING: LazyLock<[String; PLACEHOLDERS.len() + 1]> = LazyLock::new(|| {
    let [null, undefined, none, not_available] = PLACEHOLDERS;
    ["", null, undefined, none, not_available].map(digest)
});

static DIGEST_OF_US: LazyLock<String> = LazyLock::new(|| digest("us"));

/// Customer parameters in the form that is stored and sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Customer(BTreeMap<&'static str, Vec<String>>);

impl Customer {
    /// Adds a plain or already hashed value. Add the country before what is read by its rules:
    /// the parameters are in that order.
    ///
    /// # Errors
    /// Why the value is left out; nothing is added then.
    pub fn add(
        &mut self,
        parameter: Parameter,
        value: &str,
        origin: &Origin,
    ) -> Result<(), LeftOut> {
        let left_out = |reason| LeftOut { parameter, reason };
        if value.len() > CUSTOMER_VALUE_BYTES_MAX || !self.has_room(parameter) {
            return Err(left_out(LeftOutReason::TooLarge));
        }
        let countries = self.values(Parameter::Country);
        let is_us = (!countries.is_empty()).then(|| countries == [DIGEST_OF_US.as_str()]);
        let normal = || normalise(parameter, value, is_us, origin).map_err(left_out);
        let stored = if !parameter.is_hashed() {
            normal()?
        } else if let Some(digest) = as_digest(value) {
            digest
        } else {
            digest(&normal()?)
        };
        if DIGESTS_OF_NOTHING.contains(&stored) {
            return Err(left_out(LeftOutReason::DigestOfNothing));
        }
        let values = self.0.entry(parameter.name()).or_default();
        if !values.contains(&stored) {
            values.push(stored);
        }
        Ok(())
    }

    /// Takes over the values of another that are not here, as far as there is room for them.
    pub fn merge(&mut self, other: &Self) {
        for parameter in Parameter::ALL {
            for value in other.values(parameter) {
                if self.has_room(parameter) && !self.values(parameter).contains(value) {
                    self.0.entry(parameter.name()).or_default().push(value.clone());
                }
            }
        }
    }

    /// Takes back what [`Customer::iter`] gave out, from the store.
    pub fn from_stored(parameters: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let known = parameters.into_iter().filter_map(|(name, values)| {
            Parameter::from_name(&name).map(|parameter| (parameter.name(), values))
        });
        Self(known.collect())
    }

    /// Whether no parameter is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether Meta takes an event that has these parameters and no lead id (META 3.7).
    pub fn is_sendable_alone(&self) -> bool {
        let within = |broad: &[Parameter]| {
            self.0.keys().all(|name| broad.iter().any(|parameter| parameter.name() == *name))
        };
        !TOO_BROAD.into_iter().any(within)
    }

    /// The e-mail addresses and phone numbers, which tell whose lead it is.
    pub fn digests_of_contact(&self) -> impl Iterator<Item = (Parameter, &str)> {
        [Parameter::Em, Parameter::Ph].into_iter().flat_map(|parameter| {
            self.values(parameter).iter().map(move |digest| (parameter, digest.as_str()))
        })
    }

    /// Meta's name and the values of each parameter, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.0.iter().map(|(name, values)| (*name, values.as_slice()))
    }

    fn values(&self, parameter: Parameter) -> &[String] {
        self.0.get(parameter.name()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Meta takes lists of the hashed parameters, and one text of each other (META 4).
    fn has_room(&self, parameter: Parameter) -> bool {
        let values_max = if parameter.is_hashed() { CUSTOMER_VALUES_MAX } else { 1 };
        self.values(parameter).len() < values_max
    }
}

impl fmt::Debug for Customer {
    /// Names the parameters only: the values are about a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn as_digest(value: &str) -> Option<String> {
    let value = value.trim();
    let digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    digest.then(|| value.to_ascii_lowercase())
}
