//! What no mapping fits, in the order in which it came.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;

use crate::domain::event::short_digest;
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::{DB_SCAN_CHUNK, PAGE_SCAN_MAX, UNMAPPED_PER_SOURCE_MAX};
use crate::store::postgres::alarms;
use crate::store::postgres::error::Failure;
use crate::store::postgres::load::int;
use crate::store::postgres::rows::Int;
use crate::store::postgres::save::columns;
use crate::store::postgres::session::Session;
use crate::store::query::{Page, PageBuilder, PageRequest};
use crate::store::records::{corrupt, decode_unmapped, encode_unmapped};
use crate::store::unmapped::causes_of_expired;
use crate::store::{NumberedUnmapped, SetAside, Unmapped};

/// See [`crate::store::Store::set_aside`]; `first` is the number of the first, and each next one's
/// is a step greater.
pub(super) async fn set_aside(
    session: &mut Session,
    reports: &[Unmapped],
    (first, step): (u64, u64),
) -> Result<Vec<SetAside>, Failure> {
    let digests: Vec<Vec<u8>> = reports.iter().map(digest).collect();
    let query = sqlx::query("SELECT digest FROM unmapped WHERE digest = ANY($1)");
    let mut known = BTreeSet::new();
    for row in session.rows(query.bind(digests.clone())).await? {
        known.insert(row.try_get::<Vec<u8>, _>(0)?);
    }
    let query = sqlx::query("SELECT source, count(*) FROM unmapped GROUP BY source");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in session.rows(query).await? {
        let count = row.try_get::<Int, _>(1)?;
        counts.insert(row.try_get(0)?, usize::try_from(count).unwrap_or(usize::MAX));
    }
    let (mut outcomes, mut kept) = (Vec::new(), Vec::new());
    for (report, digest) in reports.iter().zip(digests) {
        let count = counts.entry(report.source.to_string()).or_default();
        outcomes.push(if known.contains(&digest) {
            SetAside::Known
        } else if *count >= UNMAPPED_PER_SOURCE_MAX {
            SetAside::Full
        } else {
            *count += 1;
            known.insert(digest.clone());
            kept.push((digest, report));
            SetAside::Kept
        });
    }
    if kept.is_empty() {
        return Ok(outcomes);
    }
    let causes = kept.iter().map(|(_, report)| (report.cause(), report.received_at));
    let causes: Vec<_> = causes.collect();
    let mut seqs = (0..).map(|count| (first + count * step).cast_signed());
    columns!(kept => digests, numbers, sources, times, records; (digest, report) =>
        digest, seqs.next(), report.source.to_string(), report.received_at.as_millis(),
        encode_unmapped(report)?);
    let query = sqlx::query(
        "INSERT INTO unmapped (digest, seq, source, received_at_ms, record) \
         SELECT * FROM UNNEST($1::bytea[], $2::int8[], $3::text[], $4::int8[], $5::bytea[])",
    );
    let query = query.bind(digests).bind(numbers).bind(sources).bind(times).bind(records);
    session.execute(query).await?;
    alarms::raise(session, causes).await?;
    Ok(outcomes)
}

/// What is the same is sealed to the same bytes; a CRM repeats what it got an error for.
fn digest(unmapped: &Unmapped) -> Vec<u8> {
    short_digest(&[unmapped.source.as_str().as_bytes(), &unmapped.sealed]).to_vec()
}

/// See [`crate::store::Store::list_unmapped`].
pub(super) async fn list(
    session: &mut Session,
    source: Option<&SourceName>,
    page: PageRequest,
) -> Result<Page<NumberedUnmapped>, Failure> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    let mut below = page.cursor.and_then(|cursor| Int::try_from(cursor).ok()).unwrap_or(Int::MAX);
    loop {
        let query = sqlx::query(
            "SELECT seq, record FROM unmapped WHERE seq < $1 AND ($2 IS NULL OR source = $2) \
             ORDER BY seq DESC LIMIT $3",
        );
        let query = query.bind(below).bind(source.map(SourceName::as_str));
        let rows = session.rows(query.bind(int(DB_SCAN_CHUNK))).await?;
        for row in &rows {
            below = row.try_get(0)?;
            let (seq, unmapped) = (below.cast_unsigned(), decode_unmapped(row.try_get(1)?)?);
            if !builder.offer(seq, Some(NumberedUnmapped { seq, unmapped })) {
                return Ok(builder.finish());
            }
        }
        if rows.len() < DB_SCAN_CHUNK {
            return Ok(builder.finish());
        }
    }
}

/// See [`crate::store::Store::end_unmapped`].
pub(super) async fn end(session: &mut Session, seq: u64) -> Result<bool, Failure> {
    let query = sqlx::query("DELETE FROM unmapped WHERE seq = $1").bind(seq.cast_signed());
    Ok(session.execute(query).await? > 0)
}

/// See [`crate::store::Store::remove_unmapped`].
pub(super) async fn remove(
    session: &mut Session,
    before: Timestamp,
    now: Timestamp,
) -> Result<BTreeMap<SourceName, u64>, Failure> {
    let query = sqlx::query("DELETE FROM unmapped WHERE received_at_ms < $1 RETURNING source");
    let mut removed = BTreeMap::new();
    for row in session.rows(query.bind(before.as_millis())).await? {
        let source = SourceName::parse(row.try_get(0)?).map_err(|_| corrupt("source"))?;
        *removed.entry(source).or_default() += 1;
    }
    if !removed.is_empty() {
        let causes = causes_of_expired(&removed).map(|cause| (cause, now));
        alarms::raise(session, causes.collect()).await?;
    }
    Ok(removed)
}
