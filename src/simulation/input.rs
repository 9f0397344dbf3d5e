//! What a run is fed with: ids by number, webhooks, settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::{Config, Layers};
use crate::domain::ids::{DatasetId, LeadId};

/// When every run begins.
pub(super) const BEGIN: i64 = 1_762_000_000;
/// A Page that no dataset is ever configured for.
pub(super) const UNKNOWN_PAGE: u64 = 399;
/// The secret that Meta signs with.
pub(super) const SECRET: &str = "app-secret";
/// The admin's key.
pub(super) const KEY: &str = "admin-key-of-the-simulation";
const FIRST_LEAD: u64 = 1_234_567_890_000_000;

/// The lead of a number.
pub(super) fn lead_id(number: u64) -> LeadId {
    LeadId::from_u64(FIRST_LEAD + number).unwrap()
}

/// The dataset of a number; the Page 300 and its number belongs to it.
pub(super) fn dataset_id(number: u64) -> DatasetId {
    DatasetId::from_u64(700 + number).unwrap()
}

/// A change of a webhook that tells of a lead.
pub(super) fn lead_change(lead_id: LeadId, page: u64, created_s: i64) -> Value {
    json!({"field": "leadgen", "value": {
        "leadgen_id": lead_id.to_string(),
        "page_id": page.to_string(),
        "form_id": 17,
        "created_time": created_s,
    }})
}

/// The body of a webhook with these changes.
pub(super) fn webhook_of(changes: &[Value]) -> String {
    json!({"object": "page", "entry": [{"id": "301", "changes": changes}]}).to_string()
}

/// The settings with these datasets, each with the Page of its number.
pub(super) fn config(datasets: &BTreeSet<u64>) -> Config {
    let mut file = format!(
        "meta_app_secret = \"{SECRET}\"\nmeta_verify_token = \"token\"\n\
         api_key = \"{KEY}\"\n\
         [[sources]]\nname = \"minutes\"\nclock_tolerance_s = 60\n\
         [[sources]]\nname = \"strict\"\nstrict = true\n"
    );
    for number in datasets {
        let _ = write!(
            file,
            "[[datasets]]\nid = \"70{number}\"\naccess_token = \"token{number}\"\n\
             [[pages]]\nid = \"30{number}\"\ndataset = \"70{number}\"\n"
        );
    }
    let layers = Layers::read(&BTreeMap::new(), Some(&file), &|_| Ok(String::new())).unwrap();
    Config::from_layers(&layers).unwrap()
}
