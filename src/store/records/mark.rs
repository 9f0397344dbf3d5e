//! How marks are written as bytes, in the form of all records.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::mark::{FormMark, Pass};
use crate::domain::time::UnixSeconds;
use crate::store::StoreError;
use crate::store::records::{decode, encode};

#[derive(Serialize, Deserialize)]
struct MarkRecord<'a> {
    read_until: Option<i64>,
    #[serde(borrow)]
    pass: Option<PassRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
struct PassRecord<'a> {
    since: i64,
    #[serde(borrow)]
    after: Option<Cow<'a, str>>,
    newest: Option<i64>,
    failed: Option<i64>,
}

/// Writes a mark.
pub(in crate::store) fn encode_mark(mark: &FormMark) -> Result<Vec<u8>, StoreError> {
    let pass = |pass: &Pass| PassRecord {
        since: pass.since.get(),
        after: pass.after.clone().map(Cow::Owned),
        newest: pass.newest.map(UnixSeconds::get),
        failed: pass.failed.map(UnixSeconds::get),
    };
    encode(&MarkRecord {
        read_until: mark.read_until.map(UnixSeconds::get),
        pass: mark.pass.as_ref().map(pass),
    })
}

/// Reads a mark.
pub(in crate::store) fn decode_mark(bytes: &[u8]) -> Result<FormMark, StoreError> {
    let record: MarkRecord<'_> = decode(bytes, "form mark")?;
    let pass = |pass: PassRecord<'_>| Pass {
        since: UnixSeconds::new(pass.since),
        after: pass.after.map(Cow::into_owned),
        newest: pass.newest.map(UnixSeconds::new),
        failed: pass.failed.map(UnixSeconds::new),
    };
    Ok(FormMark {
        read_until: record.read_until.map(UnixSeconds::new),
        pass: record.pass.map(pass),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn version_1_of_a_mark_has_these_bytes_for_ever() {
        let pass = Pass {
            since: UnixSeconds::new(1),
            after: Some("QVFI".into()),
            newest: Some(UnixSeconds::new(3)),
            failed: None,
        };
        let mark = FormMark { read_until: Some(UnixSeconds::new(1_762_000_000)), pass: Some(pass) };
        for (mark, golden) in
            [(FormMark::default(), "010000"), (mark, "010180f2af900d0102010451564649010600")]
        {
            let bytes = encode_mark(&mark).unwrap();
            assert_eq!(hex::encode(&bytes), golden);
            assert_eq!(decode_mark(&bytes).unwrap(), mark);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_a_panic(bytes: Vec<u8>) {
            let _ = decode_mark(&bytes);
        }
    }
}
