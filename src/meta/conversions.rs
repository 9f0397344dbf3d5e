//! The Conversions API: the body of a request, and the reading of its answer (META 3.1 to 3.3).
//!
//! What Meta silently discards can't be written here: `action_source` and the two markers of a CRM
//! event are always there (META 3.2). What an answer means is decided in `delivery::verdict`.

use std::collections::BTreeSet;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::domain::event::Event;

/// What all events of a request have in common.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Name of the CRM, Meta's `lead_event_source`.
    pub crm_name: &'a str,
    /// The partner's name for Meta, if one is set.
    pub partner_agent: Option<&'a str>,
    /// Shows the events under *Test events* as well; Meta counts them all the same (META 3.1).
    pub test_event_code: Option<&'a str>,
}

#[derive(Serialize)]
struct Request<'a> {
    data: Events<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_event_code: Option<&'a str>,
}

struct Events<'a>(&'a [&'a Event], &'a str);

#[derive(Serialize)]
struct WireEvent<'a> {
    event_name: &'a str,
    event_time: i64,
    event_id: String,
    action_source: &'static str,
    user_data: UserData<'a>,
    custom_data: CustomData<'a>,
}

struct UserData<'a>(&'a Event);

#[derive(Serialize)]
struct CustomData<'a> {
    event_source: &'static str,
    lead_event_source: &'a str,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for event in self.0 {
            let more = event.custom_data.as_deref().map(serde_json::from_str).transpose();
            list.serialize_element(&WireEvent {
                event_name: event.stage.as_str(),
                event_time: event.event_time.get(),
                event_id: event.id().to_string(),
                action_source: "system_generated",
                user_data: UserData(event),
                custom_data: CustomData {
                    event_source: "crm",
                    lead_event_source: self.1,
                    more: more.map_err(serde::ser::Error::custom)?.unwrap_or_default(),
                },
            })?;
        }
        list.end()
    }
}

impl Serialize for UserData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(lead_id) = self.0.lead_id.metas() {
            map.serialize_entry("lead_id", &lead_id.get())?;
        }
        for (name, values) in self.0.customer.iter() {
            match values {
                [value] => map.serialize_entry(name, value)?,
                values => map.serialize_entry(name, values)?,
            }
        }
        map.end()
    }
}

/// The body of a request that carries these events, in this order.
///
/// # Errors
/// If the stored `custom_data` of an event is no JSON object, which the door does not let in.
pub fn request_body(
    events: &[&Event],
    envelope: Envelope<'_>,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Request {
        data: Events(events, envelope.crm_name),
        partner_agent: envelope.partner_agent,
        test_event_code: envelope.test_event_code,
    })
}

/// What Meta answered, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub http_status: u16,
    /// How many events Meta says it received.
    pub events_received: Option<u64>,
    /// The error, which may come with any status (META 3.3).
    pub error: Option<GraphError>,
    /// Meta's trace id.
    pub fbtrace_id: Option<String>,
    /// How many seconds the headers ask to wait.
    pub wait_s: Option<u64>,
}

/// An error of the Graph API (META 3.6). Only its numbers are to be judged by: the texts come in
/// the language of whoever owns the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GraphError {
    /// Code.
    pub code: Option<i64>,
    /// Subcode.
    #[serde(rename = "error_subcode")]
    pub subcode: Option<i64>,
    /// Text for a developer.
    pub message: Option<String>,
    /// Whether Meta says that trying again helps.
    pub is_transient: Option<bool>,
    error_data: Option<Value>,
    fbtrace_id: Option<String>,
}

impl GraphError {
    /// Places in `data` that the error points at, if it does (`blame_field_specs`, META 3.1).
    ///
    /// The form is not documented: any text such as `data[3]...` counts, and it is a hint only.
    pub fn blamed(&self) -> BTreeSet<usize> {
        let Some(error_data) = &self.error_data else { return BTreeSet::new() };
        let text = error_data["blame_field_specs"].to_string();
        let place = |piece: &str| piece.split_once(']')?.0.parse().ok();
        text.split("data[").skip(1).filter_map(place).collect()
    }
}

#[derive(Deserialize, Default)]
struct WireAnswer {
    events_received: Option<u64>,
    fbtrace_id: Option<String>,
    error: Option<Value>,
}

/// Reads an answer; what is not JSON leaves only the status.
pub fn read_answer(http_status: u16, body: &[u8]) -> Answer {
    let wire: WireAnswer = serde_json::from_slice(body).unwrap_or_default();
    // An error that has another shape than the documented one is an error all the same.
    let error = wire.error.filter(|error| !error.is_null()).map(|error| {
        serde_json::from_value::<GraphError>(error.clone()).unwrap_or_else(|_| GraphError {
            message: Some(error.to_string()),
            ..Default::default()
        })
    });
    let fbtrace_id =
        wire.fbtrace_id.or_else(|| error.as_ref().and_then(|error| error.fbtrace_id.clone()));
    let events_received = wire.events_received;
    Answer { http_status, events_received, error, fbtrace_id, wait_s: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::customer::{Customer, Origin, Parameter};
    use crate::domain::ids::LeadId;
    use crate::domain::stage::{SourceName, StageName};
    use crate::domain::time::{Timestamp, UnixSeconds};
    use serde_json::json;

    const PLAIN: Envelope<'_> =
        Envelope { crm_name: "Codex CRM", partner_agent: None, test_event_code: None };

    fn event() -> Event {
        Event {
            lead_id: LeadId::from_u64(36_795_652_870_078_329).unwrap(),
            reported_lead: LeadId::from_u64(36_795_652_870_078_329).unwrap(),
            source_dataset: None,
            stage: StageName::parse("initial_lead").unwrap(),
            reported_time: UnixSeconds::new(1_762_000_001),
            event_time: UnixSeconds::new(1_762_000_001),
            source: SourceName::webhook(),
            received_at: Timestamp::from_millis(0),
            customer: Customer::default(),
            custom_data: None,
        }
    }

    fn written(event: &Event, envelope: Envelope<'_>) -> Value {
        serde_json::from_slice(&request_body(&[event], envelope).unwrap()).unwrap()
    }

    #[test]
    fn a_raw_lead_event_is_written_exactly_as_promised() {
        let body = String::from_utf8(request_body(&[&event()], PLAIN).unwrap()).unwrap();
        let event_id = event().id();
        assert_eq!(
            body,
            format!(
                r#"{{"data":[{{"event_name":"initial_lead","event_time":1762000001,"event_id":"{event_id}","action_source":"system_generated","user_data":{{"lead_id":36795652870078329}},"custom_data":{{"event_source":"crm","lead_event_source":"Codex CRM"}}}}]}}"#
            )
        );
    }

    #[test]
    fn partner_and_test_code_stand_at_the_top() {
        let envelope =
            Envelope { partner_agent: Some("agent"), test_event_code: Some("TEST1"), ..PLAIN };
        let body = written(&event(), envelope);
        assert_eq!(
            (&body["partner_agent"], &body["test_event_code"]),
            (&json!("agent"), &json!("TEST1"))
        );
    }

    #[test]
    fn customer_and_custom_data_go_along() {
        let origin = Origin::default();
        let mut event = event();
        event.customer.add(Parameter::Em, &"a".repeat(64), &origin).unwrap();
        event.customer.add(Parameter::Em, &"b".repeat(64), &origin).unwrap();
        event.customer.add(Parameter::Fbc, "fb.1.2.X", &origin).unwrap();
        event.custom_data = Some(r#"{"currency":"EUR","value":12.5}"#.into());
        let body = written(&event, PLAIN);
        assert_eq!(body["data"][0]["user_data"]["em"], json!(["a".repeat(64), "b".repeat(64)]));
        assert_eq!(body["data"][0]["user_data"]["fbc"], json!("fb.1.2.X"));
        assert_eq!(
            body["data"][0]["custom_data"],
            json!({"event_source": "crm", "lead_event_source": "Codex CRM", "currency": "EUR", "value": 12.5})
        );
    }

    #[test]
    fn answers_are_read_whatever_they_are() {
        let good = read_answer(200, br#"{"events_received":2,"messages":[],"fbtrace_id":"A1"}"#);
        assert_eq!((good.events_received, good.fbtrace_id.as_deref()), (Some(2), Some("A1")));
        let refused = read_answer(
            400,
            br#"{"error":{"message":"m","code":100,"error_subcode":2804003,"fbtrace_id":"A2"}}"#,
        );
        let error = refused.error.unwrap();
        assert_eq!((error.code, error.subcode), (Some(100), Some(2_804_003)));
        assert_eq!(refused.fbtrace_id.as_deref(), Some("A2"));
        let odd = read_answer(200, br#"{"error":"boom","events_received":1}"#);
        assert_eq!(odd.error.unwrap().message.as_deref(), Some("\"boom\""));
        assert_eq!(read_answer(200, br#"{"error":null,"events_received":1}"#).error, None);
        let blaming = read_answer(
            400,
            br#"{"error":{"code":100,"error_data":{"blame_field_specs":[["data[3][event_time]"],["data[11]"]]}}}"#,
        );
        assert_eq!(blaming.error.unwrap().blamed(), BTreeSet::from([3, 11]));
        let html = read_answer(502, b"<html>Bad Gateway</html>");
        assert_eq!((html.http_status, html.events_received, html.error), (502, None, None));
    }
}
