//! Marks: how far the leads of a form have been read.

use super::support::second;
use crate::domain::ids::FormId;
use crate::domain::mark::{FormMark, Pass};
use crate::store::Store;

on_every_store![a_mark_is_kept_for_each_form_as_it_was_set_last];

async fn a_mark_is_kept_for_each_form_as_it_was_set_last(store: &dyn Store) {
    let [form, other] = [17, 18].map(|id| FormId::from_u64(id).unwrap());
    assert_eq!(store.form_mark(form).await.unwrap(), FormMark::default());
    let pass = Pass {
        after: Some("QVFI".into()),
        newest: Some(second(5)),
        failed: Some(second(4)),
        ..Pass::since(second(1))
    };
    for mark in [
        FormMark { read_until: None, pass: Some(pass.clone()) },
        FormMark { read_until: Some(second(3)), pass: None },
        FormMark { read_until: Some(second(3)), pass: Some(pass) },
    ] {
        store.set_form_mark(form, mark.clone()).await.unwrap();
        assert_eq!(store.form_mark(form).await.unwrap(), mark);
    }
    assert_eq!(store.form_mark(other).await.unwrap(), FormMark::default());
}
