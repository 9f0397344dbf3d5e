//! What all lists share: reading limits, cursors and filters from a query.

use crate::http::error::{ApiError, Code};
use crate::limits::{PAGE_DEFAULT, PAGE_MAX, QUERY_VALUE_BYTES_MAX};
use crate::store::query::PageRequest;

/// Reads an optional parameter; an empty one counts as absent.
pub(super) fn read_with<T>(
    name: &str,
    value: Option<&str>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let result = if value.len() > QUERY_VALUE_BYTES_MAX {
        Err("is too long".to_owned())
    } else {
        read(value)
    };
    result.map(Some).map_err(|problem| {
        ApiError::new(Code::InvalidRequest, format!("{name}: {problem}")).with("field", name)
    })
}

/// Reads which page is asked for.
pub(super) fn page_request(
    limit: Option<&str>,
    cursor: Option<&str>,
) -> Result<PageRequest, ApiError> {
    let limit = read_with("limit", limit, |text| {
        let number = text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
        number.ok_or_else(|| format!("must be 1 to {PAGE_MAX}"))
    })?;
    let cursor = read_with("cursor", cursor, |text| {
        let number = text.strip_prefix('c').and_then(|hex| u64::from_str_radix(hex, 16).ok());
        number.ok_or_else(|| "must be the next_cursor of a page".to_owned())
    })?;
    Ok(PageRequest { cursor, limit: limit.unwrap_or(PAGE_DEFAULT) })
}

/// Writes a cursor; callers are not to look inside.
pub(super) fn show_cursor(cursor: Option<u64>) -> Option<String> {
    cursor.map(|row| format!("c{row:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back() {
        let shown = show_cursor(Some(48_879)).unwrap();
        assert_eq!(page_request(None, Some(&shown)).unwrap().cursor, Some(48_879));
        assert_eq!(page_request(None, None).unwrap(), PageRequest { cursor: None, limit: 50 });
    }

    #[test]
    fn limits_outside_one_to_two_hundred_and_made_up_cursors_are_refused() {
        for limit in ["0", "201", "-1", "ten", "1e2"] {
            assert!(page_request(Some(limit), None).is_err(), "{limit}");
        }
        for cursor in ["1", "cz", "c", "c11111111111111111"] {
            assert!(page_request(None, Some(cursor)).is_err(), "{cursor}");
        }
        assert!(page_request(Some("200"), None).is_ok());
    }
}
