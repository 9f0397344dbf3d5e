//! Reading leads from the Graph API: what is asked, and what the answers say (META 2).
//!
//! A [`GraphQuery`] is an address without host and version. Answers are turned into values of ours
//! at once; the address of a next page, which holds the token, is never followed: its cursor is
//! enough. What people wrote into a form is shown by no `Debug` and by no error.

mod contact;
mod form;
mod lead;

use serde::Deserialize;
use serde_json::json;

use crate::domain::ids::{FormId, LeadId, PageId};
use crate::domain::time::UnixSeconds;
use crate::limits::{READ_FORMS_PER_PAGE, READ_LEADS_PER_PAGE};

pub use crate::meta::graph::contact::contact_of;
pub use crate::meta::graph::form::{Form, FormPage, read_form, read_forms};
pub use crate::meta::graph::lead::{
    FieldData, GraphLead, LeadPage, UnreadableLead, read_lead, read_leads,
};

const LEAD_FIELDS: &str = "id,created_time,form_id,ad_id,field_data";
const FORM_FIELDS: &str = "id,page_id,leads_count,questions{key,type}";

/// A question for the Graph API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphQuery {
    /// What it is about, for logs and metrics.
    pub what: &'static str,
    /// The address below the version.
    pub path: String,
    /// The parameters.
    pub parameters: Vec<(&'static str, String)>,
}

impl GraphQuery {
    /// A lead.
    pub fn lead(lead_id: LeadId) -> Self {
        Self::new("lead", lead_id.to_string(), vec![("fields", LEAD_FIELDS.to_owned())])
    }

    /// A form with its questions.
    pub fn form(form_id: FormId) -> Self {
        Self::new("form", form_id.to_string(), vec![("fields", FORM_FIELDS.to_owned())])
    }

    /// The forms of a Page, or of the Page that the token is of.
    pub fn forms(page_id: Option<PageId>, after: Option<&str>) -> Self {
        let parameters =
            vec![("fields", FORM_FIELDS.to_owned()), ("limit", READ_FORMS_PER_PAGE.to_string())];
        let page = page_or_me(page_id);
        Self::new("forms", format!("{page}/leadgen_forms"), parameters).after(after)
    }

    /// The leads of a form that were created since a second, that one included.
    pub fn leads(form_id: FormId, since: UnixSeconds, after: Option<&str>) -> Self {
        let filter = json!([{
            "field": "time_created",
            "operator": "GREATER_THAN_OR_EQUAL",
            "value": since.get(),
        }]);
        let parameters = vec![
            ("fields", LEAD_FIELDS.to_owned()),
            ("limit", READ_LEADS_PER_PAGE.to_string()),
            ("filtering", filter.to_string()),
        ];
        Self::new("leads", format!("{form_id}/leads"), parameters).after(after)
    }

    /// The apps that a Page, or the token's Page, sends webhooks to.
    pub fn subscribed_apps(page_id: Option<PageId>) -> Self {
        let page = page_or_me(page_id);
        Self::new("subscribed_apps", format!("{page}/subscribed_apps"), Vec::new())
    }

    fn new(what: &'static str, path: String, parameters: Vec<(&'static str, String)>) -> Self {
        Self { what, path, parameters }
    }

    fn after(mut self, cursor: Option<&str>) -> Self {
        self.parameters.extend(cursor.map(|cursor| ("after", cursor.to_owned())));
        self
    }
}

/// Meta takes `me` for the Page of a Page token.
fn page_or_me(page_id: Option<PageId>) -> String {
    page_id.map_or_else(|| "me".to_owned(), |page_id| page_id.to_string())
}

/// An answer that says something else than was asked for. It names the place and no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Graph API's answer makes no sense: {0}")]
pub struct Unreadable(&'static str);

#[derive(Default, Deserialize)]
struct Paging {
    #[serde(default)]
    cursors: Cursors,
    next: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Cursors {
    after: Option<String>,
}

impl Paging {
    /// The cursor of the next page, empty if there is a page and no cursor; the last page has a
    /// cursor, too, and no `next`.
    fn next_cursor(self) -> Option<String> {
        self.next.map(|_| self.cursors.after.unwrap_or_default())
    }
}

/// Whether an answer of `subscribed_apps` names an app that gets leads.
///
/// # Errors
/// If it is not such an answer.
pub fn is_subscribed(body: &[u8]) -> Result<bool, Unreadable> {
    #[derive(Deserialize)]
    struct Apps {
        data: Vec<App>,
    }
    #[derive(Deserialize)]
    struct App {
        #[serde(default)]
        subscribed_fields: Vec<String>,
    }
    let apps: Apps = serde_json::from_slice(body).map_err(|_| Unreadable("not a list of apps"))?;
    Ok(apps.data.iter().any(|app| app.subscribed_fields.iter().any(|field| field == "leadgen")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_an_address_with_its_parameters_and_no_token() {
        let form_id = FormId::from_u64(17).unwrap();
        let query = GraphQuery::leads(form_id, UnixSeconds::new(1_761_945_743), Some("QVFI"));
        assert_eq!(query.path, "17/leads");
        let filter =
            r#"[{"field":"time_created","operator":"GREATER_THAN_OR_EQUAL","value":1761945743}]"#;
        assert_eq!(
            query.parameters,
            [
                ("fields", LEAD_FIELDS.to_owned()),
                ("limit", READ_LEADS_PER_PAGE.to_string()),
                ("filtering", filter.to_owned()),
                ("after", "QVFI".to_owned()),
            ]
        );
        assert_eq!(GraphQuery::lead(LeadId::TEST).path, "444444444444");
        assert_eq!(GraphQuery::form(form_id).path, "17");
        assert_eq!(GraphQuery::forms(None, None).path, "me/leadgen_forms");
        let page_id = PageId::from_u64(300);
        assert_eq!(GraphQuery::subscribed_apps(page_id).path, "300/subscribed_apps");
    }

    #[test]
    fn an_app_that_gets_leads_is_told_from_one_that_gets_others() {
        let apps = |fields: &str| {
            is_subscribed(
                format!(r#"{{"data":[{{"id":"1","subscribed_fields":{fields}}}]}}"#).as_bytes(),
            )
        };
        assert_eq!(apps(r#"["feed","leadgen"]"#), Ok(true));
        assert_eq!(apps(r#"["feed"]"#), Ok(false));
        assert_eq!(is_subscribed(br#"{"data":[]}"#), Ok(false));
        assert!(is_subscribed(b"{}").is_err());
    }
}
