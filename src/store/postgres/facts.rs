//! What is about no lead: marks of forms, API keys, and quarantine.

use sqlx::Row as _;

use crate::domain::ids::FormId;
use crate::domain::mark::FormMark;
use crate::domain::time::Timestamp;
use crate::store::ApiKeyDigest;
use crate::store::postgres::error::Failure;
use crate::store::postgres::session::Session;
use crate::store::records::corrupt;
use crate::store::records::mark::{decode_mark, encode_mark};

/// See [`crate::store::Store::form_mark`].
pub(super) async fn form_mark(session: &mut Session, form_id: FormId) -> Result<FormMark, Failure> {
    let query = sqlx::query("SELECT record FROM form_marks WHERE form_id = $1");
    let rows = session.rows(query.bind(form_id.get().cast_signed())).await?;
    let Some(row) = rows.first() else { return Ok(FormMark::default()) };
    Ok(decode_mark(row.try_get(0)?)?)
}

/// See [`crate::store::Store::set_form_mark`].
pub(super) async fn set_form_mark(
    session: &mut Session,
    form_id: FormId,
    mark: &FormMark,
) -> Result<(), Failure> {
    let query = sqlx::query(
        "INSERT INTO form_marks (form_id, record) VALUES ($1, $2) \
         ON CONFLICT (form_id) DO UPDATE SET record = excluded.record",
    );
    let query = query.bind(form_id.get().cast_signed()).bind(encode_mark(mark)?);
    session.execute(query).await.map(drop)
}

/// See [`crate::store::Store::api_keys`].
pub(super) async fn api_keys(session: &mut Session) -> Result<Vec<ApiKeyDigest>, Failure> {
    let rows = session.rows(sqlx::query("SELECT digest FROM api_keys")).await?;
    let digests = rows.iter().map(|row| {
        let digest: Vec<u8> = row.try_get(0)?;
        Ok(ApiKeyDigest::try_from(digest).map_err(|_| corrupt("digest"))?)
    });
    digests.collect()
}

/// See [`crate::store::Store::add_api_key`].
pub(super) async fn add_api_key(
    session: &mut Session,
    digest: ApiKeyDigest,
) -> Result<(), Failure> {
    let query = sqlx::query("INSERT INTO api_keys (digest) VALUES ($1) ON CONFLICT DO NOTHING");
    session.execute(query.bind(digest.to_vec())).await.map(drop)
}

/// Forgets what is in quarantine since before a moment; how much that was.
pub(super) async fn remove_quarantined(
    session: &mut Session,
    before: Timestamp,
) -> Result<u64, Failure> {
    let query = sqlx::query("DELETE FROM quarantine WHERE received_at_ms < $1");
    session.execute(query.bind(before.as_millis())).await
}
