//! What is looked at in the answers of each load, as little as will do.
//!
//! A batch of stage updates is answered 200 whatever becomes of its updates, so their verdicts are
//! counted; and the next page of a list stands in the answer.

use std::str;

use hyper::{Request, Uri};

use crate::bench::Load;
use crate::bench::report::Failure;

/// What is looked at, and how far a connection is with its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The status says it all.
    Status,
    /// The verdicts on the updates of a batch.
    Verdicts,
    /// A list, page after page, so many from the newest one on.
    Pages {
        /// Pages until it begins anew.
        pages: u64,
        /// Pages that were read.
        read: u64,
        /// Where it goes on; `None` at the beginning.
        cursor: Option<String>,
    },
}

/// What was in an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Leads that were done.
    pub(super) leads: u64,
    /// Statuses within the answer that are no success.
    pub(super) refused: Vec<u16>,
}

impl Reading {
    /// What is looked at in the answers of a load.
    pub(super) fn of(load: &Load) -> Self {
        match load {
            Load::StageUpdates { per_request, .. } if *per_request > 1 => Self::Verdicts,
            Load::Listings { pages, .. } => Self::Pages { pages: *pages, read: 0, cursor: None },
            _ => Self::Status,
        }
    }

    /// Aims a request at the next page.
    pub(super) fn aim<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Self::Pages { cursor: Some(cursor), .. } = self {
            let uri = format!("{}&cursor={cursor}", request.uri());
            *request.uri_mut() = Uri::try_from(uri).expect("the cursor was read as a part of one");
        }
        request
    }

    /// What is in the answer to a request for, or about, so many leads.
    pub(super) fn read(&mut self, leads: u64, body: &[u8]) -> Result<Content, Failure> {
        match self {
            Self::Status => Ok(Content { leads, refused: Vec::new() }),
            Self::Verdicts => {
                let body = str::from_utf8(body).map_err(|_| Failure::Nonsense)?;
                let (mut done, mut refused) = (0, Vec::new());
                for (at, key) in body.match_indices(r#""status":"#) {
                    let digits = body.get(at + key.len()..at + key.len() + 3);
                    match digits.and_then(|digits| digits.parse().ok()) {
                        Some(200..300) => done += 1,
                        Some(status) => refused.push(status),
                        None => return Err(Failure::Nonsense),
                    }
                }
                let all = done + refused.len() as u64 == leads;
                all.then_some(Content { leads: done, refused }).ok_or(Failure::Nonsense)
            }
            Self::Pages { pages, read, cursor } => {
                let body = str::from_utf8(body).map_err(|_| Failure::Nonsense)?;
                *read += 1;
                let next = next_cursor(body)?.filter(|_| *read < *pages);
                *cursor = next.map(str::to_owned);
                if cursor.is_none() {
                    *read = 0;
                }
                let leads = body.matches(r#""lead_id":"#).count() as u64;
                Ok(Content { leads, refused: Vec::new() })
            }
        }
    }
}

/// Where a list goes on. It stands behind the list.
fn next_cursor(body: &str) -> Result<Option<&str>, Failure> {
    let Some((_, rest)) = body.rsplit_once(r#""next_cursor":""#) else { return Ok(None) };
    let cursor = rest.split('"').next().unwrap_or_default();
    // What is an address by itself can be a part of one.
    let is_plain =
        cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    if is_plain { Ok(Some(cursor)) } else { Err(Failure::Nonsense) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdicts_of_a_batch_are_counted_and_none_may_be_missing() {
        let body = br#"{"results":[{"status":202,"stage":"a \"status\":500"},{"status":422,"code":"x"},{"status":200}]}"#;
        let read = |leads| Reading::Verdicts.read(leads, body);
        assert_eq!(read(3), Ok(Content { leads: 2, refused: vec![422] }));
        assert_eq!(read(4), Err(Failure::Nonsense));
        assert_eq!(Reading::Verdicts.read(1, br#"{"status":"fine"}"#), Err(Failure::Nonsense));
    }

    #[test]
    fn a_list_is_followed_for_some_pages_or_to_its_end_and_then_begun_anew() {
        let mut pages = Reading::Pages { pages: 3, read: 0, cursor: None };
        let uri = |pages: &Reading| {
            let mut request = Request::new(());
            *request.uri_mut() = "/v1/leads?limit=2".parse().unwrap();
            pages.aim(request).uri().to_string()
        };
        let more = br#"{"leads":[{"lead_id":"1"},{"lead_id":"2"}],"next_cursor":"abc"}"#;
        let last = br#"{"leads":[{"lead_id":"1"}],"next_cursor":null}"#;
        let (first, next) = ("/v1/leads?limit=2", "/v1/leads?limit=2&cursor=abc");
        for (answer, leads, then) in [
            (&more[..], 2, next),
            (&more[..], 2, next),
            (&more[..], 2, first),
            (&more[..], 2, next),
            (last, 1, first),
        ] {
            assert_eq!(pages.read(0, answer).unwrap().leads, leads);
            assert_eq!(uri(&pages), then);
        }
    }
}
