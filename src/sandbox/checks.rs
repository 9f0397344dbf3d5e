//! What Meta checks of a request, as a pure function, and what it silently does not count.
//!
//! One bad event refuses the whole request, and the answer does not say which it was (META 3.1).
//! Where Meta's tolerance is unknown there is none here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::ids::LeadId;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{EVENT_AGE_MAX_S, SEND_BATCH_MAX};

/// Why a request is refused: code, subcode, and a text that nobody should rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Meta's code.
    pub code: i64,
    /// Meta's subcode.
    pub subcode: Option<i64>,
    /// What is wrong, for a reader.
    pub message: &'static str,
}

const fn refuse<T>(subcode: i64, message: &'static str) -> Result<T, Refused> {
    Err(Refused { code: 100, subcode: Some(subcode), message })
}

const ACTION_SOURCES: [&str; 9] = [
    "email",
    "website",
    "app",
    "phone_call",
    "chat",
    "physical_store",
    "system_generated",
    "business_messaging",
    "other",
];
const HASHED: [&str; 11] =
    ["em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id"];
const UNHASHED: [&str; 4] = ["fbc", "fbp", "client_ip_address", "client_user_agent"];
/// An event whose customer parameters all lie within one of these is too broad (META 3.7).
const TOO_BROAD: [&[&str]; 4] = [
    &["ct", "country", "st", "zp", "ge", "client_user_agent"],
    &["db", "client_user_agent"],
    &["fn", "ge"],
    &["ln", "ge"],
];

/// The events of a request, if all of them are good.
///
/// # Errors
/// The first thing that is wrong with the first bad event.
pub fn check_request(
    body: &Value,
    now: Timestamp,
    is_deleted: impl Fn(LeadId) -> bool,
) -> Result<Vec<Value>, Refused> {
    let no_subcode = |message| Err(Refused { code: 100, subcode: None, message });
    let Some(events) = body["data"].as_array() else {
        return no_subcode("data must be a list of events");
    };
    if events.is_empty() || events.len() > SEND_BATCH_MAX {
        return no_subcode("data must have 1 to 1000 events");
    }
    for event in events {
        check_event(event, now, &is_deleted)?;
    }
    Ok(events.clone())
}

fn check_event(
    event: &Value,
    now: Timestamp,
    is_deleted: &impl Fn(LeadId) -> bool,
) -> Result<(), Refused> {
    if event["event_name"].as_str().is_none_or(str::is_empty) {
        return refuse(2_804_019, "event_name is missing");
    }
    let Some(event_time) = event["event_time"].as_i64() else {
        return refuse(2_804_019, "event_time must be an integer");
    };
    let age_ms = now.millis_since(UnixSeconds::new(event_time).timestamp());
    if age_ms > EVENT_AGE_MAX_S * 1_000 {
        return refuse(2_804_003, "Event Timestamp Too Old");
    }
    if age_ms < 0 {
        return refuse(2_804_004, "Event Timestamp In The Future");
    }
    let source = event["action_source"].as_str().unwrap_or_default();
    if !ACTION_SOURCES.contains(&source) {
        return refuse(2_804_019, "action_source is missing or unknown");
    }
    check_user_data(&event["user_data"], is_deleted)?;
    let custom = &event["custom_data"];
    if !custom["value"].is_null() && custom["currency"].is_null() {
        return refuse(2_804_023, "a value needs a currency");
    }
    Ok(())
}

fn check_user_data(user: &Value, is_deleted: &impl Fn(LeadId) -> bool) -> Result<(), Refused> {
    if !user["lead_id"].is_null() {
        return match lead_id(&user["lead_id"]) {
            Some(lead_id) if !is_deleted(lead_id) => check_digests(user),
            _ => refuse(2_804_036, "One or more lead IDs are invalid or were deleted"),
        };
    }
    check_digests(user)?;
    let known = |name: &&str| !user[*name].is_null();
    let given: Vec<_> = HASHED.iter().chain(&UNHASHED).copied().filter(|n| known(n)).collect();
    if TOO_BROAD.iter().any(|broad| given.iter().all(|name| broad.contains(name))) {
        return refuse(2_804_050, "customer information is missing or too broad");
    }
    Ok(())
}

/// Reads 15 to 17 digits, as an integer or a string (META 3.2); never a float.
fn lead_id(value: &Value) -> Option<LeadId> {
    let digits = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64()?.to_string(),
        _ => return None,
    };
    if (15..=17).contains(&digits.len()) { LeadId::parse(&digits).ok() } else { None }
}

fn check_digests(user: &Value) -> Result<(), Refused> {
    for name in HASHED {
        let values = match &user[name] {
            Value::Null => continue,
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        let is_digest = |value: &Value| {
            value.as_str().is_some_and(|text| {
                text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        };
        if values.is_empty() || !values.iter().all(is_digest) {
            return refuse(2_804_019, "a customer parameter is not hashed");
        }
    }
    let is_wrong = |value: &Value| !value.is_null() && value.as_str().is_none_or(str::is_empty);
    if UNHASHED.iter().any(|name| is_wrong(&user[*name])) {
        return refuse(2_804_019, "a customer parameter must be one text");
    }
    Ok(())
}

/// Why Meta would take the event and leave it out of Conversion Leads, saying nothing (META 3.2,
/// 6). `leads` has the creation times that are known.
pub fn not_counted(event: &Value, leads: &BTreeMap<LeadId, UnixSeconds>) -> Vec<String> {
    let mut reasons = Vec::new();
    let custom = &event["custom_data"];
    if custom["event_source"] != "crm" {
        reasons.push("custom_data.event_source is not \"crm\"".to_owned());
    }
    if custom["lead_event_source"].as_str().is_none_or(str::is_empty) {
        reasons.push("custom_data.lead_event_source is missing".to_owned());
    }
    if event["action_source"] != "system_generated" {
        reasons.push("action_source is not \"system_generated\"".to_owned());
    }
    let created = lead_id(&event["user_data"]["lead_id"]).and_then(|id| leads.get(&id));
    if let (Some(created), Some(event_time)) = (created, event["event_time"].as_i64())
        && event_time <= created.get()
    {
        reasons.push(format!("event_time {event_time} is not after the lead's {created}"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::customer::Customer;
    use serde_json::json;

    const NOW: i64 = 1_762_000_000;

    fn event() -> Value {
        json!({"event_name": "won", "event_time": NOW - 10, "event_id": "e",
               "action_source": "system_generated", "user_data": {"lead_id": 1_234_567_890_123_456_u64},
               "custom_data": {"event_source": "crm", "lead_event_source": "CRM"}})
    }

    fn subcode_of(events: &[Value]) -> Option<i64> {
        let now = UnixSeconds::new(NOW).timestamp();
        let deleted = LeadId::parse("999999999999999").unwrap();
        let checked = check_request(&json!({"data": events}), now, |id| id == deleted);
        checked.err().map(|refused| refused.subcode.unwrap_or(0))
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut event = event();
        *event.pointer_mut(pointer).unwrap() = value;
        event
    }

    #[test]
    fn good_events_are_taken() {
        assert_eq!(subcode_of(&[event(), event()]), None);
        let text = with("/user_data", json!({"lead_id": "12345678901234567"}));
        assert_eq!(subcode_of(&[text]), None);
        let hashed = with("/user_data", json!({"em": ["a".repeat(64)]}));
        assert_eq!(subcode_of(&[hashed]), None);
    }

    #[test]
    fn each_fault_has_metas_subcode_and_takes_the_whole_batch_down() {
        for (pointer, value, subcode) in [
            ("/event_time", json!(NOW - EVENT_AGE_MAX_S - 1), 2_804_003),
            ("/event_time", json!(NOW + 1), 2_804_004),
            ("/event_time", json!(NOW * 1_000), 2_804_004),
            ("/event_time", json!("soon"), 2_804_019),
            ("/event_name", json!(""), 2_804_019),
            ("/action_source", json!("crm"), 2_804_019),
            ("/user_data", json!({}), 2_804_050),
            ("/user_data", json!({"ge": "a".repeat(64), "fn": "a".repeat(64)}), 2_804_050),
            ("/user_data", json!({"em": "john@example.com"}), 2_804_019),
            ("/user_data", json!({"em": []}), 2_804_019),
            ("/user_data", json!({"fbc": ["fb.1.2.X"]}), 2_804_019),
            ("/user_data", json!({"ct": "a".repeat(64), "country": "a".repeat(64)}), 2_804_050),
            ("/user_data", json!({"db": "a".repeat(64), "client_user_agent": "x"}), 2_804_050),
            ("/user_data/lead_id", json!(null), 2_804_050),
            ("/user_data/lead_id", json!(4711), 2_804_036),
            ("/user_data/lead_id", json!(1.234_567_890_123_456_7e16), 2_804_036),
            ("/user_data/lead_id", json!(123_456_789_012_345_678_u64), 2_804_036),
            ("/user_data/lead_id", json!("999999999999999"), 2_804_036),
            ("/custom_data", json!({"value": 1}), 2_804_023),
        ] {
            let bad = with(pointer, value.clone());
            assert_eq!(subcode_of(&[event(), bad, event()]), Some(subcode), "{pointer} {value}");
        }
    }

    #[test]
    fn what_we_send_without_a_lead_is_what_meta_takes_without_one() {
        let names = HASHED.iter().chain(&UNHASHED).copied().collect::<Vec<_>>();
        for chosen in 0..1_u32 << names.len() {
            let given = names.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
            let given = given.map(|(_, name)| ((*name).to_owned(), vec!["a".repeat(64)]));
            let given: Vec<_> = given.collect();
            let user: serde_json::Map<_, _> =
                given.iter().map(|(name, values)| (name.clone(), json!(values[0]))).collect();
            let taken = check_user_data(&Value::Object(user.clone()), &|_| false);
            let sendable = Customer::from_stored(given).is_sendable_alone();
            assert_eq!(taken.is_ok(), sendable, "{user:?}");
        }
    }

    #[test]
    fn a_request_has_one_to_a_thousand_events() {
        assert_eq!(subcode_of(&[]), Some(0));
        assert_eq!(subcode_of(&vec![event(); 1_000]), None);
        assert_eq!(subcode_of(&vec![event(); 1_001]), Some(0));
    }

    #[test]
    fn what_meta_silently_leaves_out_is_named() {
        let leads = BTreeMap::from([(
            LeadId::parse("1234567890123456").unwrap(),
            UnixSeconds::new(NOW - 10),
        )]);
        assert_eq!(not_counted(&event(), &BTreeMap::new()), Vec::<String>::new());
        assert_eq!(not_counted(&event(), &leads).len(), 1, "at the lead's creation");
        assert_eq!(not_counted(&with("/custom_data", json!({})), &BTreeMap::new()).len(), 2);
        let web = with("/action_source", json!("website"));
        assert_eq!(not_counted(&web, &BTreeMap::new()).len(), 1);
    }
}
