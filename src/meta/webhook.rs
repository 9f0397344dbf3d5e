//! Reading a webhook body: leads out of entries and changes, and the rest named (META 1.3, 1.5).
//!
//! The body is read in layers, so that one piece that can't be read spoils nothing beside it. Such
//! a piece is handed back as it was received. Other fields of a Page, `leadgen_update` among them,
//! are none of our business and only counted. The signature is checked before this is called.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::{AdId, FormId, LeadId, PageId};
use crate::domain::lead::ReportedLead;
use crate::domain::time::UnixSeconds;
use crate::meta::wire_id::{WireId, lenient};

/// What a webhook body holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WebhookContent {
    /// The leads, in the order of the body.
    pub leads: Vec<ReportedLead>,
    /// Pieces that were signed but can't be read.
    pub unreadable: Vec<Unreadable>,
    /// Changes that are not about new leads.
    pub ignored: usize,
}

/// A piece that can't be read, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The reason, in words.
    pub reason: String,
    /// The piece as it was received.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Body<'a> {
    object: &'a str,
    #[serde(borrow, default)]
    entry: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    changes: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    changed_fields: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Change<'a> {
    field: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LeadgenValue<'a> {
    leadgen_id: WireId,
    created_time: WireId,
    // Nonsense in one of these does not cost the lead.
    #[serde(borrow)]
    page_id: Option<&'a RawValue>,
    #[serde(borrow)]
    form_id: Option<&'a RawValue>,
    #[serde(borrow)]
    ad_id: Option<&'a RawValue>,
}

/// Reads a body whose signature was right.
pub fn read_webhook(body: &[u8]) -> WebhookContent {
    let mut content = WebhookContent::default();
    match serde_json::from_slice::<Body<'_>>(body) {
        Err(error) => content.reject(format!("not a webhook body: {error}"), body),
        Ok(Body { object: "page", entry }) => {
            for entry in entry {
                content.read_entry(entry);
            }
        }
        Ok(_) => content.ignored += 1,
    }
    content
}

impl WebhookContent {
    fn reject(&mut self, reason: String, payload: &[u8]) {
        self.unreadable.push(Unreadable { reason, payload: payload.to_vec() });
    }

    fn read_entry(&mut self, raw: &RawValue) {
        let entry = match serde_json::from_str::<Entry<'_>>(raw.get()) {
            Ok(entry) => entry,
            Err(error) => {
                return self.reject(format!("not an entry: {error}"), raw.get().as_bytes());
            }
        };
        let changed = entry.changed_fields.map_or("", RawValue::get);
        if entry.changes.is_empty() && changed.contains("\"leadgen\"") {
            let reason = "the lead id is missing: switch on \"Include Values\" in the app's \
                          webhook settings, then read the lead by hand";
            return self.reject(reason.to_owned(), raw.get().as_bytes());
        }
        for change in &entry.changes {
            match read_change(lenient(entry.id), change) {
                Ok(Some(lead)) => self.leads.push(lead),
                Ok(None) => self.ignored += 1,
                Err(reason) => self.reject(reason, change.get().as_bytes()),
            }
        }
    }
}

/// The lead of a change; `None` if the change is about something else.
fn read_change(entry_id: Option<WireId>, raw: &RawValue) -> Result<Option<ReportedLead>, String> {
    let change: Change<'_> =
        serde_json::from_str(raw.get()).map_err(|error| format!("not a change: {error}"))?;
    if change.field != "leadgen" {
        return Ok(None);
    }
    let value = change.value.ok_or("a leadgen change without a value")?;
    let value: LeadgenValue<'_> = serde_json::from_str(value.get())
        .map_err(|error| format!("not a leadgen value: {error}"))?;
    let lead_id = LeadId::from_u64(value.leadgen_id.0)
        .ok_or("leadgen_id is out of range: 15 to 17 digits are expected")?;
    let created_time = i64::try_from(value.created_time.0)
        .ok()
        .and_then(UnixSeconds::plausible)
        .ok_or("created_time is out of range: Unix seconds are expected")?;
    let page_id = lenient(value.page_id).filter(|id| id.0 > 0).or(entry_id);
    // Meta's Test button sends its own lead id from an entry with the id 0.
    let test = lead_id == LeadId::TEST || entry_id.is_some_and(|id| id.0 == 0);
    Ok(Some(ReportedLead {
        lead_id,
        page_id: page_id.and_then(|id| PageId::from_u64(id.0)),
        form_id: lenient(value.form_id).and_then(|id| FormId::from_u64(id.0)),
        ad_id: lenient(value.ad_id).and_then(|id| AdId::from_u64(id.0)),
        created_time,
        test,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(body: &Value) -> WebhookContent {
        read_webhook(body.to_string().as_bytes())
    }

    fn change(value: &Value) -> Value {
        json!({"object": "page", "entry": [{"id": "300", "time": 1, "changes": [
            {"field": "leadgen", "value": value}
        ]}]})
    }

    fn good() -> Value {
        json!({"leadgen_id": "233370042045345", "page_id": "300", "form_id": "17",
               "created_time": 1_630_087_926})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut change = good();
        change[field] = value;
        change
    }

    fn ids(content: &WebhookContent) -> Vec<u64> {
        content.leads.iter().map(|lead| lead.lead_id.get()).collect()
    }

    #[test]
    fn a_real_capture_is_a_lead() {
        let body = br#"{"object":"page","entry":[{"id":"138124712925158","time":1630087927,"changes":[{"value":{"form_id":"172036835026334","leadgen_id":"233370042045345","created_time":1630087926,"page_id":"138124712925158"},"field":"leadgen"}]}]}"#;
        let content = read_webhook(body);
        assert_eq!(
            content.leads,
            [ReportedLead {
                lead_id: LeadId::parse("233370042045345").unwrap(),
                page_id: PageId::from_u64(138_124_712_925_158),
                form_id: FormId::from_u64(172_036_835_026_334),
                ad_id: None,
                created_time: UnixSeconds::new(1_630_087_926),
                test: false,
            }]
        );
        assert_eq!((content.unreadable.len(), content.ignored), (0, 0));
    }

    #[test]
    fn seventeen_digits_come_through_as_string_and_as_integer() {
        for id in [json!("36795652870078329"), json!(36_795_652_870_078_329_u64)] {
            let content = read(&change(&with("leadgen_id", id)));
            assert_eq!(ids(&content), [36_795_652_870_078_329]);
        }
    }

    #[test]
    fn every_change_of_every_entry_counts_and_strangers_between_them_do_not_matter() {
        let body = json!({"object": "page", "x": 1, "entry": [
            {"id": "300", "changes": [
                {"field": "feed", "value": {"item": "post"}},
                {"value": with("leadgen_id", json!(100_000_000_000_001_u64)), "field": "leadgen"},
                {"field": "leadgen_update", "value": {"leadgen_id": 987_654_321, "updated_time": "1704067200"}},
                {"field": "leadgen", "value": with("leadgen_id", json!("100000000000002"))}]},
            {"id": "301", "messaging": [{}]},
            {"id": 302, "changes": [
                {"field": "leadgen", "value": with("leadgen_id", json!("100000000000003"))}]}
        ]});
        let content = read(&body);
        assert_eq!(ids(&content), [100_000_000_000_001, 100_000_000_000_002, 100_000_000_000_003]);
        assert_eq!((content.unreadable.len(), content.ignored), (0, 2));
    }

    #[test]
    fn what_cannot_be_read_is_kept_as_received_and_spoils_nothing_beside_it() {
        let bad = [
            with("leadgen_id", json!("99999999999999999999")),
            with("leadgen_id", json!("4711")),
            with("leadgen_id", json!(1.5e15)),
            with("leadgen_id", json!(-5)),
            with("leadgen_id", json!(null)),
            with("created_time", json!(null)),
            with("created_time", json!(1_630_087_926_000_u64)),
            with("created_time", json!("yesterday")),
            json!("a string"),
            json!(null),
        ];
        for value in bad {
            let mut body = change(&value);
            let good = json!({"field": "leadgen", "value": good()});
            body["entry"][0]["changes"].as_array_mut().unwrap().push(good);
            let content = read(&body);
            assert_eq!(ids(&content), [233_370_042_045_345], "{value}");
            let kept: Value = serde_json::from_slice(&content.unreadable[0].payload).unwrap();
            assert_eq!(kept, body["entry"][0]["changes"][0]);
        }
    }

    #[test]
    fn a_missing_created_time_is_quarantined() {
        let content = read(&change(&json!({"leadgen_id": "233370042045345", "page_id": "300"})));
        assert_eq!((content.leads.len(), content.unreadable.len()), (0, 1));
        assert!(content.unreadable[0].reason.contains("created_time"));
    }

    #[test]
    fn an_entry_without_values_says_what_to_switch_on() {
        let body =
            json!({"object": "page", "entry": [{"id": "300", "changed_fields": ["leadgen"]}]});
        let content = read(&body);
        assert!(content.unreadable[0].reason.contains("Include Values"));
    }

    #[test]
    fn the_test_button_makes_a_test_lead() {
        let body = json!({"object": "page", "entry": [{"id": "0", "time": 1_700_000_000, "changes": [
            {"field": "leadgen", "value": {"ad_id": "444444444", "form_id": "444444444444",
             "leadgen_id": "444444444444", "created_time": 1_700_000_000, "page_id": "444444444444",
             "adgroup_id": "44444444444"}}]}]});
        let content = read(&body);
        assert_eq!(content.leads[0].lead_id, LeadId::TEST);
        assert!(content.leads[0].test);
        assert!(!read(&change(&good())).leads[0].test);
    }

    #[test]
    fn a_page_that_is_not_named_is_the_entrys_and_a_strange_ad_costs_nothing() {
        let mut value = with("ad_id", json!({"deep": [1]}));
        value.as_object_mut().unwrap().remove("page_id");
        let lead = read(&change(&value)).leads.remove(0);
        assert_eq!((lead.page_id, lead.ad_id), (PageId::from_u64(300), None));
        let mut odd = change(&with("form_id", json!("")));
        odd["entry"][0]["id"] = json!("");
        odd["entry"][0]["changes"][0]["value"]["page_id"] = json!(["x"]);
        let lead = read(&odd).leads.remove(0);
        assert_eq!((lead.page_id, lead.form_id), (None, None), "the lead is not lost for it");
        let lead = read(&change(&with("ad_id", json!(0)))).leads.remove(0);
        assert_eq!(lead.ad_id, None, "old captures write 0 for organic leads");
    }

    #[test]
    fn another_object_is_ignored_and_junk_is_kept() {
        assert_eq!(read(&json!({"object": "instagram", "entry": []})).ignored, 1);
        for junk in [
            &b"not json"[..],
            b"",
            b"[]",
            b"{}",
            b"\xff\xfe",
            b"{\"object\":\"page\",\"entry\":{}}",
        ] {
            let content = read_webhook(junk);
            assert_eq!(content.unreadable[0].payload, junk);
            assert!(content.leads.is_empty());
        }
        let content = read(&json!({"object": "page", "entry": [1, good()]}));
        assert_eq!((content.leads.len(), content.unreadable.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = read_webhook(&body);
        }

        #[test]
        fn a_cut_body_makes_no_lead_up(cut in 0..300usize) {
            let body = change(&good()).to_string();
            let cut = cut.min(body.len() - 1);
            prop_assert!(read_webhook(&body.as_bytes()[..cut]).leads.is_empty());
        }
    }
}
