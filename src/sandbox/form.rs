//! Forms that were filled in, as the Graph API shows them to whoever holds a Page's token.
//!
//! Every form has the same four questions, one of them with a key in another language, as they
//! occur. The people are made up from the lead's id.

use serde_json::{Value, json};

use crate::domain::ids::{AdId, FormId, PageId};
use crate::domain::time::Timestamp;
use crate::sandbox::trigger::SampleLead;

/// A form that was filled in.
#[derive(Clone, Copy, Debug)]
pub struct FilledForm {
    /// The lead that it made.
    pub lead: SampleLead,
    /// The ad that it was reached by.
    pub ad_id: Option<AdId>,
    /// From when on it can be read: a webhook may be faster than Meta's own storage (META 2).
    pub readable_from: Timestamp,
    /// Whether it is shown in a way that nobody can read.
    pub garbled: bool,
}

impl FilledForm {
    /// A lead that can be read at once and was reached by no ad.
    pub fn of(lead: SampleLead) -> Self {
        Self { lead, ad_id: None, readable_from: Timestamp::from_millis(0), garbled: false }
    }

    /// The e-mail address that the person wrote.
    pub fn email(&self) -> String {
        format!("lead.{}@forms.example", self.lead.lead_id)
    }

    /// The phone number that the person wrote.
    pub fn phone(&self) -> String {
        format!("+49151{:08}", self.lead.lead_id.get() % 100_000_000)
    }

    /// The lead with these of its fields.
    pub(super) fn node(&self, fields: &str) -> Value {
        let at = jiff::Timestamp::from_second(self.lead.created_time.get()).unwrap_or_default();
        let mut node = json!({
            "id": self.lead.lead_id.to_string(),
            "created_time": at.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string(),
            "form_id": self.lead.form_id.to_string(),
            "field_data": [
                {"name": "correo_electrónico", "values": [self.email()]},
                {"name": "full_name", "values": ["Erika Muster"]},
                {"name": "phone_number", "values": [self.phone()]},
                {"name": "presupuesto", "values": ["1.000 €"]},
            ],
        });
        if self.garbled {
            node["id"] = json!("garbled");
        }
        if let Some(ad_id) = self.ad_id {
            node["ad_id"] = json!(ad_id.to_string());
        }
        only(node, fields)
    }
}

/// A form with these of its fields.
pub(super) fn form_node(form_id: FormId, page_id: PageId, leads: usize, fields: &str) -> Value {
    let question = |key, kind| json!({"id": "1", "key": key, "type": kind, "label": key});
    let node = json!({
        "id": form_id.to_string(),
        "page_id": page_id.to_string(),
        "name": "Stand-in for a form",
        "leads_count": leads,
        "questions": [
            question("correo_electrónico", "EMAIL"),
            question("full_name", "FULL_NAME"),
            question("phone_number", "PHONE"),
            question("presupuesto", "CUSTOM"),
        ],
    });
    only(node, fields)
}

/// What is asked for, and the id, which always comes along.
fn only(node: Value, fields: &str) -> Value {
    let mut names: Vec<&str> = vec!["id"];
    // What stands in braces is about the parts of a field.
    let mut rest = fields;
    while let Some(at) = rest.find(['{', ',']) {
        names.push(&rest[..at]);
        let opens = rest[at..].starts_with('{');
        let end = if opens { rest[at..].find('}').map_or(rest.len(), |end| at + end) } else { at };
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    names.push(rest);
    let Value::Object(node) = node else { return node };
    Value::Object(node.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::LeadId;
    use crate::domain::time::UnixSeconds;
    use crate::meta::graph::{contact_of, read_form, read_lead};

    #[test]
    fn what_is_shown_is_what_the_reader_reads() {
        let filled = FilledForm {
            ad_id: AdId::from_u64(55),
            ..FilledForm::of(SampleLead {
                lead_id: LeadId::from_u64(1_234_567_890_123_456).unwrap(),
                page_id: PageId::from_u64(300).unwrap(),
                form_id: FormId::from_u64(17).unwrap(),
                created_time: UnixSeconds::new(1_762_000_000),
            })
        };
        let SampleLead { page_id, form_id, .. } = filled.lead;
        let node = filled.node("id,created_time,form_id,ad_id,field_data").to_string();
        let lead = read_lead(node.as_bytes()).unwrap();
        assert_eq!((lead.created_time, lead.ad_id), (filled.lead.created_time, filled.ad_id));
        let node = form_node(form_id, page_id, 1, "id,page_id,leads_count,questions{key,type}");
        let form = read_form(node.to_string().as_bytes()).unwrap();
        let names: Vec<_> = contact_of(&lead.field_data, &form).iter().map(|it| it.0).collect();
        assert_eq!(names, ["em", "fn", "ln", "ph"]);
    }

    #[test]
    fn only_what_is_asked_for_is_shown() {
        let node = json!({"id": "1", "a": 2, "b": 3, "c": 4});
        assert_eq!(only(node.clone(), "a{x,y},c"), json!({"id": "1", "a": 2, "c": 4}));
        assert_eq!(only(node.clone(), "b,c{x}"), json!({"id": "1", "b": 3, "c": 4}));
        assert_eq!(only(node, ""), json!({"id": "1"}));
    }
}
