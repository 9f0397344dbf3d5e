//! Forms as the Graph API shows them: their Page, and what each question asks for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::{FormId, PageId};
use crate::meta::graph::{Paging, Unreadable};
use crate::meta::wire_id::{WireId, lenient};

/// A form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its id.
    pub id: FormId,
    /// Its Page.
    pub page_id: Option<PageId>,
    /// Whether Meta says that nobody ever filled it in.
    pub is_empty: bool,
    /// What each question asks for (`EMAIL`, `CUSTOM`), by its key. Keys are made by whoever made
    /// the form, in their language; only types can be relied on.
    pub questions: BTreeMap<String, String>,
}

/// One page of the forms of a Page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormPage {
    /// Those that could be read.
    pub forms: Vec<Form>,
    /// How many could not.
    pub unreadable: usize,
    /// Where the next page begins; empty if there is one and Meta does not say where.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct WireForm<'a> {
    id: WireId,
    #[serde(borrow)]
    page_id: Option<&'a RawValue>,
    leads_count: Option<u64>,
    #[serde(default)]
    questions: Vec<WireQuestion>,
}

#[derive(Deserialize)]
struct WireQuestion {
    key: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Reads a form.
///
/// # Errors
/// If it is none.
pub fn read_form(body: &[u8]) -> Result<Form, Unreadable> {
    let wire: WireForm<'_> = serde_json::from_slice(body).map_err(|_| Unreadable("not a form"))?;
    let questions = wire.questions.into_iter();
    Ok(Form {
        id: FormId::from_u64(wire.id.0).ok_or(Unreadable("the form's id"))?,
        page_id: lenient(wire.page_id).and_then(|id| PageId::from_u64(id.0)),
        is_empty: wire.leads_count == Some(0),
        questions: questions.filter_map(|question| Some((question.key?, question.kind?))).collect(),
    })
}

/// Reads a page of forms.
///
/// # Errors
/// If it is no page of forms.
pub fn read_forms(body: &[u8]) -> Result<FormPage, Unreadable> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
        #[serde(default)]
        paging: Paging,
    }
    let Page { data, paging } =
        serde_json::from_slice(body).map_err(|_| Unreadable("not a page of forms"))?;
    let mut page = FormPage { next: paging.next_cursor(), ..FormPage::default() };
    for raw in data {
        match read_form(raw.get().as_bytes()) {
            Ok(form) => page.forms.push(form),
            Err(_) => page.unreadable += 1,
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = r#"{"id":"17","page_id":"300","leads_count":3,"questions":[
        {"key":"correo_electr\u00f3nico","type":"EMAIL","label":"Correo","id":"9"},
        {"key":"presupuesto","type":"CUSTOM"},{"type":"EMAIL"}]}"#;

    #[test]
    fn a_form_tells_its_page_and_the_type_of_each_question() {
        let form = read_form(FORM.as_bytes()).unwrap();
        assert_eq!((form.id.get(), form.page_id), (17, PageId::from_u64(300)));
        assert_eq!(form.questions["correo_electrónico"], "EMAIL");
        assert_eq!(form.questions.len(), 2);
        assert!(!form.is_empty);
    }

    #[test]
    fn only_a_form_that_meta_says_is_empty_counts_as_empty() {
        let is_empty = |body: &str| read_form(body.as_bytes()).unwrap().is_empty;
        assert!(is_empty(r#"{"id":"17","leads_count":0}"#));
        assert!(!is_empty(r#"{"id":"17"}"#));
    }

    #[test]
    fn a_form_that_cannot_be_read_is_counted_beside_the_others() {
        let body = format!(
            r#"{{"data":[{FORM},{{"id":"x"}}],"paging":{{"next":"n","cursors":{{"after":"B"}}}}}}"#
        );
        let page = read_forms(body.as_bytes()).unwrap();
        assert_eq!((page.forms.len(), page.unreadable, page.next.as_deref()), (1, 1, Some("B")));
        assert!(read_forms(b"[]").is_err());
    }
}
