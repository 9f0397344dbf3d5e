//! The identifiers: Meta's, which are runs of digits, and our event id, which is derived.
//!
//! Each id is its own type with one way in (`parse`) and one way out (`Display`). Meta's ids live
//! in a `u64` and never pass through a floating-point number, which would round 17 digits.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::domain::stage::StageName;
use crate::domain::time::UnixSeconds;

/// A text that is not an id of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {kind}: {expected}")]
pub struct InvalidId {
    /// What the text should have been, with its article, such as `a lead id`.
    pub kind: &'static str,
    /// What such an id looks like.
    pub expected: &'static str,
}

/// The digits of a positive `u64` written without sign, blank or leading zero.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// What a lead is known by: Meta's id (`leadgen_id`), 15 to 17 digits today (META 1.5), or an id
/// of our own while nobody has told us Meta's.
///
/// Ids of our own are the numbers from 2^63 on, which nobody but us can say: they are not parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeadId(u64);

impl LeadId {
    /// The lead of the *Test* button in Meta's dashboard; not a real one (META 1.5).
    pub const TEST: Self = Self(444_444_444_444);
    /// Smallest number of 15 digits. Shorter ids are a CRM's own (META 7).
    const SMALLEST: u64 = 100_000_000_000_000;
    /// The smallest id of our own.
    pub const OWN: u64 = 1 << 63;

    /// Reads the digits of a lead id.
    ///
    /// Longer ids than today's 17 digits are let through as long as they fit 63 bits, so that
    /// growth on Meta's side loses no lead.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        digits(text).and_then(Self::from_u64).ok_or(InvalidId {
            kind: "a lead id",
            expected: "Meta's leadgen_id of 15 to 17 digits, as a string or an integer",
        })
    }

    /// Takes a number that may be Meta's id of a lead.
    pub fn from_u64(number: u64) -> Option<Self> {
        let plausible = (Self::SMALLEST..Self::OWN).contains(&number) || number == Self::TEST.0;
        plausible.then_some(Self(number))
    }

    /// Takes back the number behind an id of either kind, as it was given out.
    pub fn from_known(number: u64) -> Option<Self> {
        Self::from_u64(number).or((number >= Self::OWN).then_some(Self(number)))
    }

    /// An id of our own, the same for the same parts for ever.
    pub fn own(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new_with_prefix(b"leadloop own id 1\0");
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut number = [0; 8];
        number.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(number) | Self::OWN)
    }

    /// Whether it is an id of our own, which means nothing to Meta.
    pub const fn is_own(self) -> bool {
        self.0 >= Self::OWN
    }

    /// Meta's id, if it is known.
    pub fn metas(self) -> Option<Self> {
        (!self.is_own()).then_some(self)
    }

    /// The number behind the id.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Declares an id of Meta's that is any run of digits within a `u64`.
macro_rules! meta_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Reads the digits of the id.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                digits(text)
                    .map(Self)
                    .ok_or(InvalidId { kind: $kind, expected: "a run of digits" })
            }

            /// Takes a number; zero is no id.
            pub fn from_u64(number: u64) -> Option<Self> {
                (number > 0).then_some(Self(number))
            }

            /// The number behind the id.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

meta_id!(
    /// Meta's id of a Facebook Page.
    PageId, "a page id"
);
meta_id!(
    /// Meta's id of an Instant Form.
    FormId, "a form id"
);
meta_id!(
    /// Meta's id of an ad; absent for organic leads.
    AdId, "an ad id"
);
meta_id!(
    /// Meta's id of a dataset, once called a pixel: where events are sent to.
    DatasetId, "a dataset id"
);

/// Our id of an event, the same for the same event for ever.
///
/// It is derived from what the CRM or the webhook reported (lead, stage, time), so a replay, a
/// retry, a re-queue or another machine arrives at the same id, and Meta can collapse what was
/// sent twice. It carries the lead id, which makes a look-up by event id a look-up by lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    lead_id: LeadId,
    digest: [u8; Self::DIGEST_BYTES],
}

impl EventId {
    const PREFIX: &str = "evt_";
    const DIGEST_BYTES: usize = 12;
    const LEAD_HEX: usize = 16;

    /// The id of the event that says: this lead reached this stage at this time.
    ///
    /// `reported_time` is the time as it was reported, before any adjustment.
    pub fn derive(lead_id: LeadId, stage: &StageName, reported_time: UnixSeconds) -> Self {
        let hash = Sha256::new()
            .chain_update(b"leadloop event 1\0")
            .chain_update(lead_id.get().to_be_bytes())
            .chain_update(reported_time.get().to_be_bytes())
            .chain_update(stage.as_str().as_bytes())
            .finalize();
        let mut digest = [0; Self::DIGEST_BYTES];
        digest.copy_from_slice(&hash[..Self::DIGEST_BYTES]);
        Self { lead_id, digest }
    }

    /// Reads an event id as it was given out.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Self::read(text)
            .ok_or(InvalidId { kind: "an event id", expected: "evt_ and 40 lower-case hex digits" })
    }

    fn read(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(Self::PREFIX)?;
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let (lead, rest) = hex.split_at_checked(Self::LEAD_HEX)?;
        let mut digest = [0; Self::DIGEST_BYTES];
        hex::decode_to_slice(rest, &mut digest).ok()?;
        let mut lead_bytes = [0; 8];
        hex::decode_to_slice(lead, &mut lead_bytes).ok()?;
        Some(Self { lead_id: LeadId::from_known(u64::from_be_bytes(lead_bytes))?, digest })
    }

    /// The lead that the event is about.
    pub const fn lead_id(self) -> LeadId {
        self.lead_id
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}{}", Self::PREFIX, self.lead_id.get(), hex::encode(self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lead_id_is_fifteen_or_more_digits_of_a_u64() {
        for good in ["123456789012345", "36795652870078329", "9223372036854775807"] {
            assert_eq!(LeadId::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "0",
            "4711",
            "12345678901234",
            "012345678901234567",
            "-123456789012345",
            "+123456789012345",
            "1234567890123456.0",
            "1.2e16",
            " 123456789012345",
            "l:123456789012345",
            "9223372036854775808",
            "18446744073709551616",
            "１２３４５６７８９０１２３４５",
        ] {
            assert!(LeadId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_test_buttons_lead_id_is_known_although_short() {
        assert_eq!(LeadId::parse("444444444444").unwrap(), LeadId::TEST);
    }

    #[test]
    fn the_event_id_is_fixed_for_ever() {
        let lead_id = LeadId::parse("1234567890123456").unwrap();
        let stage = StageName::parse("qualified").unwrap();
        let id = EventId::derive(lead_id, &stage, UnixSeconds::new(1_762_000_500));
        assert_eq!(id.to_string(), "evt_000462d53c8abac0e5d971555d0854d9b1059bd6");
    }

    #[test]
    fn a_text_that_was_not_given_out_is_no_event_id() {
        for bad in ["", "evt_", "evt_zz", "msg_000462d53c8abac0", "evt_é000462d53c8abac0"] {
            assert!(EventId::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_event_id_survives_being_written_and_read(
            lead in 100_000_000_000_000..u64::MAX, time in any::<i64>(), stage in "[a-z]{1,20}"
        ) {
            let lead_id = LeadId::from_known(lead).unwrap();
            let stage = StageName::parse(&stage).unwrap();
            let id = EventId::derive(lead_id, &stage, UnixSeconds::new(time));
            prop_assert_eq!(EventId::parse(&id.to_string()).unwrap(), id);
            prop_assert_eq!(id.lead_id(), lead_id);
        }

        #[test]
        fn other_stages_and_times_have_other_ids(a in 0..5_000i64, b in 0..5_000i64) {
            let lead_id = LeadId::from_u64(1_234_567_890_123_456).unwrap();
            let id = |stage: &str, time| {
                EventId::derive(lead_id, &StageName::parse(stage).unwrap(), UnixSeconds::new(time))
            };
            prop_assert_eq!(id("won", a) == id("won", b), a == b);
            prop_assert_ne!(id("won", a), id("lost", a));
        }
    }
}
