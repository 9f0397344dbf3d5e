//! Numbers in Meta's JSON, which come as integers or as strings of digits.

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;

/// A number that may be missing or make no sense.
pub(super) fn lenient(raw: Option<&RawValue>) -> Option<WireId> {
    serde_json::from_str(raw?.get()).ok()
}

/// A number as Meta writes it: an integer, or a string of digits. Never a float.
#[derive(Clone, Copy)]
pub(super) struct WireId(pub(super) u64);

impl<'de> Deserialize<'de> for WireId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WireIdVisitor;

        impl Visitor<'_> for WireIdVisitor {
            type Value = WireId;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number as digits, at most 18446744073709551615")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<WireId, E> {
                Ok(WireId(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WireId, E> {
                let plain = text == "0" || !text.starts_with('0');
                let digits = plain && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = if digits { text.parse().ok() } else { None };
                number.map(WireId).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(WireIdVisitor)
    }
}
