//! What no mapping fits, in the order in which it came.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::domain::event::{KeyDigest, short_digest};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::{PAGE_SCAN_MAX, UNMAPPED_PER_SOURCE_MAX};
use crate::store::query::{Page, PageBuilder, PageRequest};
use crate::store::records::{decode_unmapped, encode_unmapped};
use crate::store::redb::alarms;
use crate::store::redb::remove::keep_seq;
use crate::store::redb::tables::Tables;
use crate::store::redb::writer::Unit;
use crate::store::unmapped::causes_of_expired;
use crate::store::{NumberedUnmapped, SetAside, StoreError, Unmapped};

/// See [`crate::store::Store::set_aside`].
pub(super) fn set_aside(
    unit: &mut Unit<'_>,
    unmapped: &[Unmapped],
) -> Result<Vec<SetAside>, StoreError> {
    // Counted once for each source, since a payload may hold a thousand.
    let mut counts = BTreeMap::new();
    unmapped.iter().map(|unmapped| keep(unit, unmapped, &mut counts)).collect()
}

fn keep<'a>(
    unit: &mut Unit<'_>,
    unmapped: &'a Unmapped,
    counts: &mut BTreeMap<&'a str, usize>,
) -> Result<SetAside, StoreError> {
    let source = unmapped.source.as_str();
    let digest = digest(unmapped);
    // A CRM repeats what it got an error for; it is kept once.
    if unit.tables.unmapped_index.get(&digest)?.is_some() {
        return Ok(SetAside::Known);
    }
    let count = match counts.entry(source) {
        Entry::Occupied(count) => count.into_mut(),
        Entry::Vacant(count) => {
            let rows = unit.tables.unmapped_sources.range((source, 0)..=(source, u64::MAX))?;
            count.insert(rows.count())
        }
    };
    if *count >= UNMAPPED_PER_SOURCE_MAX {
        return Ok(SetAside::Full);
    }
    *count += 1;
    let seq = unit.seq();
    unit.tables.unmapped_index.insert(&digest, seq);
    unit.tables.unmapped_sources.insert((source, seq), ());
    unit.tables.unmapped.insert(seq, encode_unmapped(unmapped)?.as_slice());
    alarms::raise(unit, [unmapped.cause()], unmapped.received_at)?;
    Ok(SetAside::Kept)
}

/// See [`crate::store::Store::list_unmapped`].
pub(super) fn list(
    view: &Tables<'_>,
    source: Option<&SourceName>,
    page: PageRequest,
) -> Result<Page<NumberedUnmapped>, StoreError> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for row in view.unmapped.range(..page.cursor.unwrap_or(u64::MAX))?.rev() {
        let (seq, bytes) = row?;
        let (seq, unmapped) = (seq.value(), decode_unmapped(bytes.value())?);
        let is_asked_for = source.is_none_or(|source| *source == unmapped.source);
        if !builder.offer(seq, is_asked_for.then_some(NumberedUnmapped { seq, unmapped })) {
            break;
        }
    }
    Ok(builder.finish())
}

/// See [`crate::store::Store::end_unmapped`].
pub(super) fn end(unit: &mut Unit<'_>, seq: u64) -> Result<bool, StoreError> {
    Ok(take(unit, seq)?.is_some())
}

fn take(unit: &mut Unit<'_>, seq: u64) -> Result<Option<Unmapped>, StoreError> {
    let bytes = unit.tables.unmapped.remove(seq)?;
    let unmapped = bytes.map(|bytes| decode_unmapped(bytes.value())).transpose()?;
    if let Some(unmapped) = &unmapped {
        unit.tables.unmapped_index.remove(&digest(unmapped))?;
        unit.tables.unmapped_sources.remove((unmapped.source.as_str(), seq))?;
        keep_seq(unit);
    }
    Ok(unmapped)
}

/// The numbers of what came before a moment.
pub(super) fn find_old(view: &Tables<'_>, before: Timestamp) -> Result<Vec<u64>, StoreError> {
    let mut old = Vec::new();
    for row in view.unmapped.all()? {
        let (seq, bytes) = row?;
        // A clock that was set back left younger ones before it.
        if decode_unmapped(bytes.value())?.received_at < before {
            old.push(seq.value());
        }
    }
    Ok(old)
}

/// See [`crate::store::Store::remove_unmapped`].
pub(super) fn remove(
    unit: &mut Unit<'_>,
    old: &[u64],
    now: Timestamp,
) -> Result<BTreeMap<SourceName, u64>, StoreError> {
    let mut removed = BTreeMap::new();
    for seq in old {
        if let Some(unmapped) = take(unit, *seq)? {
            *removed.entry(unmapped.source).or_default() += 1;
        }
    }
    alarms::raise(unit, causes_of_expired(&removed), now)?;
    Ok(removed)
}

/// What is the same is sealed to the same bytes.
pub(super) fn digest(unmapped: &Unmapped) -> KeyDigest {
    short_digest(&[unmapped.source.as_str().as_bytes(), &unmapped.sealed])
}
