//! Leads as the Graph API shows them, one or a page of them.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::{AdId, FormId, LeadId, PageId};
use crate::domain::lead::ReportedLead;
use crate::domain::time::UnixSeconds;
use crate::meta::graph::{Paging, Unreadable};
use crate::meta::wire_id::{WireId, lenient};

/// A lead as Meta has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphLead {
    /// Its id.
    pub lead_id: LeadId,
    /// Its form.
    pub form_id: Option<FormId>,
    /// The ad; absent for organic leads.
    pub ad_id: Option<AdId>,
    /// When the form was submitted.
    pub created_time: UnixSeconds,
    /// What the person wrote.
    pub field_data: Vec<FieldData>,
}

impl GraphLead {
    /// The same as a webhook would have reported it. Meta shows the Page at the form only.
    pub fn reported(&self, page_id: Option<PageId>) -> ReportedLead {
        ReportedLead {
            lead_id: self.lead_id,
            page_id,
            form_id: self.form_id,
            ad_id: self.ad_id,
            created_time: self.created_time,
            test: self.lead_id == LeadId::TEST,
        }
    }
}

/// The answer to one question of a form.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct FieldData {
    /// The question's key.
    pub name: String,
    /// What was chosen or written.
    #[serde(default)]
    pub values: Vec<String>,
}

impl fmt::Debug for FieldData {
    /// Shows that there is an answer: it is a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FieldData(..)")
    }
}

/// What can be told of a lead that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableLead {
    /// Its id.
    pub lead_id: Option<LeadId>,
    /// When it was created.
    pub created_time: Option<UnixSeconds>,
}

/// One page of the leads of a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadPage {
    /// Those that could be read.
    pub leads: Vec<GraphLead>,
    /// Those that could not be read.
    pub unreadable: Vec<UnreadableLead>,
    /// Where the next page begins; empty if there is one and Meta does not say where.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct WireLead<'a> {
    id: WireId,
    #[serde(borrow)]
    created_time: &'a RawValue,
    // Nonsense in one of these does not cost the lead.
    #[serde(borrow)]
    form_id: Option<&'a RawValue>,
    #[serde(borrow)]
    ad_id: Option<&'a RawValue>,
    #[serde(borrow)]
    field_data: Option<&'a RawValue>,
}

/// Reads a lead.
///
/// # Errors
/// If it is none.
pub fn read_lead(body: &[u8]) -> Result<GraphLead, Unreadable> {
    let wire: WireLead<'_> = serde_json::from_slice(body).map_err(|_| Unreadable("not a lead"))?;
    let lead_id = LeadId::from_u64(wire.id.0).ok_or(Unreadable("the lead's id"))?;
    let created_time = read_time(wire.created_time).ok_or(Unreadable("created_time"))?;
    let fields = wire.field_data.and_then(|fields| serde_json::from_str(fields.get()).ok());
    Ok(GraphLead {
        lead_id,
        form_id: lenient(wire.form_id).and_then(|id| FormId::from_u64(id.0)),
        ad_id: lenient(wire.ad_id).and_then(|id| AdId::from_u64(id.0)),
        created_time,
        field_data: fields.unwrap_or_default(),
    })
}

/// Reads a page of leads; one that can't be read spoils none beside it.
///
/// # Errors
/// If it is no page of leads.
pub fn read_leads(body: &[u8]) -> Result<LeadPage, Unreadable> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
        #[serde(default)]
        paging: Paging,
    }
    #[derive(Default, Deserialize)]
    struct Rest<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        #[serde(borrow)]
        created_time: Option<&'a RawValue>,
    }
    let Page { data, paging } =
        serde_json::from_slice(body).map_err(|_| Unreadable("not a page of leads"))?;
    let mut page = LeadPage { next: paging.next_cursor(), ..LeadPage::default() };
    for raw in data {
        if let Ok(lead) = read_lead(raw.get().as_bytes()) {
            page.leads.push(lead);
        } else {
            let rest = serde_json::from_str::<Rest<'_>>(raw.get()).unwrap_or_default();
            page.unreadable.push(UnreadableLead {
                lead_id: lenient(rest.id).and_then(|id| LeadId::from_u64(id.0)),
                created_time: rest.created_time.and_then(read_time),
            });
        }
    }
    Ok(page)
}

/// A time as the Graph API writes it: `2015-02-28T08:49:14+0000`, an offset without a colon.
fn read_time(raw: &RawValue) -> Option<UnixSeconds> {
    let text: String = serde_json::from_str(raw.get()).ok()?;
    let read = jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%z", &text);
    let time = read.and_then(|time| time.to_timestamp()).or_else(|_| text.parse()).ok()?;
    UnixSeconds::plausible(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({
            "id": "36795652870078329",
            "created_time": "2025-11-01T12:26:40+0000",
            "form_id": "17",
            "ad_id": "55",
            "field_data": [{"name": "correo_electrónico", "values": ["joe@example.com"]}],
        })
    }

    fn read(value: &Value) -> Result<GraphLead, Unreadable> {
        read_lead(value.to_string().as_bytes())
    }

    #[test]
    fn a_lead_is_read_as_a_webhook_would_have_reported_it() {
        let lead = read(&good()).unwrap();
        let page_id = PageId::from_u64(300);
        let reported = lead.reported(page_id);
        assert_eq!(reported.lead_id.get(), 36_795_652_870_078_329);
        assert_eq!((reported.page_id, reported.form_id), (page_id, FormId::from_u64(17)));
        assert_eq!((reported.ad_id, reported.test), (AdId::from_u64(55), false));
        assert_eq!(reported.created_time.get(), 1_762_000_000);
        assert_eq!(lead.field_data[0].values, ["joe@example.com"]);
    }

    #[test]
    fn times_are_read_in_each_form_of_an_offset() {
        for (text, seconds) in [
            ("2015-02-28T08:49:14+0000", Some(1_425_113_354)),
            ("2015-02-28T09:49:14+0100", Some(1_425_113_354)),
            ("2015-02-28T08:49:14+00:00", Some(1_425_113_354)),
            ("2015-02-28T08:49:14Z", Some(1_425_113_354)),
            ("2015-02-28T08:49:14", None),
            ("1970-01-01T00:00:01+0000", None),
            ("yesterday", None),
        ] {
            let mut lead = good();
            lead["created_time"] = json!(text);
            let created = read(&lead).ok().map(|lead| lead.created_time.get());
            assert_eq!(created, seconds, "{text}");
        }
    }

    #[test]
    fn nonsense_in_what_is_not_needed_does_not_cost_the_lead() {
        let mut lead = good();
        for (field, nonsense) in [
            ("form_id", json!("a form")),
            ("ad_id", json!(-1)),
            ("field_data", json!({"email": "x"})),
        ] {
            lead[field] = nonsense;
            assert!(read(&lead).is_ok(), "{field}");
        }
        for field in ["id", "created_time"] {
            let mut lead = good();
            lead[field] = json!(12.5);
            assert!(read(&lead).is_err(), "{field}");
        }
        assert!(read_lead(b"<html>").is_err());
    }

    #[test]
    fn a_page_of_leads_keeps_the_good_ones_and_counts_the_others_with_their_time() {
        let mut nameless = good();
        nameless["id"] = json!("none");
        let body = json!({
            "data": [good(), nameless, {"id": "36795652870078330"}, 5],
            "paging": {
                "cursors": {"before": "A", "after": "B"},
                "next": "https://graph.facebook.com/v24.0/17/leads?access_token=hush&after=B",
            },
        });
        let page = read_leads(body.to_string().as_bytes()).unwrap();
        assert_eq!(page.leads.len(), 1);
        let dated = UnixSeconds::new(1_762_000_000);
        let known = page.unreadable.iter().map(|it| (it.lead_id.map(LeadId::get), it.created_time));
        let expected = [(None, Some(dated)), (Some(36_795_652_870_078_330), None), (None, None)];
        assert_eq!(known.collect::<Vec<_>>(), expected);
        assert_eq!(page.next.as_deref(), Some("B"));
    }

    #[test]
    fn a_next_page_without_a_cursor_is_not_taken_for_the_end() {
        for cursors in ["{}", r#"{"after":null}"#, r#"{"after":""}"#] {
            let body = format!(r#"{{"data":[],"paging":{{"cursors":{cursors},"next":"https"}}}}"#);
            let page = read_leads(body.as_bytes()).unwrap();
            assert_eq!(page.next.as_deref(), Some(""), "{cursors}");
        }
    }

    #[test]
    fn the_last_page_has_a_cursor_and_no_next() {
        let last = read_leads(br#"{"data":[],"paging":{"cursors":{"after":"B"}}}"#).unwrap();
        assert_eq!(last, LeadPage::default());
        assert_eq!(read_leads(br#"{"data":[]}"#), Ok(LeadPage::default()));
        assert!(read_leads(br#"{"error":{}}"#).is_err());
    }

    #[test]
    fn nobody_sees_what_a_person_wrote() {
        let lead = read(&good()).unwrap();
        assert!(!format!("{lead:?}").contains("joe"));
    }
}
