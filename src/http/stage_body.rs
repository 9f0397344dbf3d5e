//! Reading one stage update: from JSON as CRMs write it to a report that can be judged.
//!
//! Unknown fields are refused, because a misspelt `event_time` would silently mean *now*. Customer
//! values are hashed here and go no further in the clear.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Object, ObjectBuilder, Type};

use crate::config::Config;
use crate::domain::customer::{Customer, LeftOut, Origin};
use crate::domain::event::StageUpdate;
use crate::domain::ids::LeadId;
use crate::domain::matching::{CrmId, LeadReference};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::Timestamp;
use crate::http::customer_body::{read_customer, view};
use crate::http::error::{ApiError, Code};
use crate::http::time::{day_number, read_time};
use crate::limits::{CUSTOM_DATA_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::mapping::money::{is_amount, is_currency};

fn lead_id_schema() -> Object {
    let types = SchemaType::from_iter([Type::String, Type::Integer, Type::Null]);
    let schema = ObjectBuilder::new().schema_type(types).examples(["1234567890123456"]);
    let what = "Meta's id of the lead: digits, or an integer of at most 63 bits. Without it the \
                lead is found by `crm_id`, or by `em` and `ph` in `customer`.";
    schema.description(Some(what)).build()
}

fn crm_id_schema() -> Object {
    let types = SchemaType::from_iter([Type::String, Type::Integer, Type::Null]);
    let schema = ObjectBuilder::new().schema_type(types).examples(["4711"]);
    let what = "The CRM's own id of the record. Together with `lead_id` it is linked with the \
                lead, and is enough from then on.";
    schema.description(Some(what)).build()
}

fn event_time_schema() -> Object {
    let types = SchemaType::from_iter([Type::String, Type::Integer, Type::Null]);
    let schema = ObjectBuilder::new().schema_type(types).examples(["2025-11-01T12:35:00Z"]);
    let what = "When: Unix seconds, or RFC 3339 with an offset. Default: now.";
    schema.description(Some(what)).build()
}

/// A CRM's report that a lead reached a stage.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StageUpdateBody {
    /// Meta's id of the lead: a string, or an integer of at most 63 bits.
    #[schema(schema_with = lead_id_schema)]
    lead_id: Option<Value>,
    /// The CRM's own id of the record.
    #[schema(schema_with = crm_id_schema)]
    crm_id: Option<Value>,
    /// The stage that was reached, as it is called in Events Manager.
    #[schema(value_type = String, required = true, example = "qualified")]
    stage: Option<String>,
    /// When: Unix seconds, or RFC 3339 with an offset. Default: now.
    #[schema(schema_with = event_time_schema)]
    event_time: Option<Value>,
    /// Which CRM reports; decides on clock tolerance, time zone and strictness.
    source: Option<String>,
    /// Makes repeating this report safe even if it has no `event_time`.
    idempotency_key: Option<String>,
    /// Customer parameters by Meta's names, plain or already hashed; each a text or a list.
    #[schema(value_type = Option<Object>)]
    customer: Option<Map<String, Value>>,
    /// Further `custom_data`, such as `value` and `currency`.
    #[schema(value_type = Option<Object>)]
    custom_data: Option<Map<String, Value>>,
}

/// A stage update as it was read.
#[derive(Debug)]
pub struct ReadUpdate {
    /// What it says.
    pub update: StageUpdate,
    /// The customer values that are not sent.
    pub left_out: Vec<LeftOut>,
}

/// Reads a stage update that came at `now`.
///
/// # Errors
/// `invalid_request`, `invalid_lead_id`, `invalid_customer` or `customer_insufficient`, naming the
/// field.
pub fn read_update(
    body: StageUpdateBody,
    config: &Config,
    now: Timestamp,
) -> Result<ReadUpdate, ApiError> {
    let lead = LeadReference {
        lead_id: body.lead_id.as_ref().map(read_lead_id).transpose()?.flatten(),
        crm_id: body.crm_id.as_ref().map(read_crm_id).transpose()?.flatten(),
    };
    let stage = body.stage.ok_or_else(|| invalid("stage", "is missing"))?;
    let stage = StageName::parse(&stage).map_err(|error| invalid("stage", &error.to_string()))?;
    let source = match &body.source {
        Some(name) => SourceName::parse(name).map_err(|e| invalid("source", &e.to_string()))?,
        None => SourceName::unnamed_crm(),
    };
    if source == SourceName::leadloop() {
        return Err(invalid("source", "is leadloop's own, of stages that it fills in"));
    }
    let settings = config.source(&source);
    let event_time = body
        .event_time
        .filter(|time| !time.is_null())
        .map(|time| read_time(&time, settings.time_zone.as_ref()))
        .transpose()
        .map_err(|problem| invalid("event_time", &problem))?;
    let origin = Origin { default_country: settings.default_country, today: day_number(now) };
    let (customer, left_out) = read_customer(body.customer.unwrap_or_default(), &origin)?;
    check_reference(&lead, &customer, &left_out)?;
    let update = StageUpdate {
        lead,
        stage,
        event_time,
        came_at: None,
        source,
        idempotency_key: body.idempotency_key.map(read_idempotency_key).transpose()?,
        customer,
        custom_data: body.custom_data.map(read_custom_data).transpose()?.flatten(),
        policy: settings.policy,
    };
    Ok(ReadUpdate { update, left_out })
}

/// A field that can't be read.
pub(super) fn invalid(field: &str, problem: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {problem}")).with("field", field)
}

/// Whether an update says whom it is about, so that a lead can be found, or Meta can find somebody.
fn check_reference(
    lead: &LeadReference,
    customer: &Customer,
    left_out: &[LeftOut],
) -> Result<(), ApiError> {
    if lead.lead_id.is_some() || lead.crm_id.is_some() || customer.is_sendable_alone() {
        return Ok(());
    }
    if customer.is_empty() && left_out.is_empty() {
        let problem = "is missing; name the lead by lead_id, by crm_id, or by an e-mail address \
                       or phone number in customer";
        return Err(invalid("lead_id", problem));
    }
    let detail = "without lead_id and crm_id, customer needs more than this: Meta refuses events \
                  that say only where somebody lives, when they were born, or a name and a gender";
    let error = ApiError::new(Code::CustomerInsufficient, detail).with("field", "customer");
    Err(error.with("left_out", view(left_out)))
}

fn read_crm_id(value: &Value) -> Result<Option<CrmId>, ApiError> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return Err(invalid("crm_id", "must be a text or an integer")),
    };
    CrmId::parse(&text).map(Some).map_err(|error| invalid("crm_id", &error.to_string()))
}

fn read_lead_id(value: &Value) -> Result<Option<LeadId>, ApiError> {
    let lead_id = match value {
        Value::Null => return Ok(None),
        Value::String(text) => LeadId::parse(text.trim()).ok(),
        // A number that JSON can only hold as a float has lost digits already.
        Value::Number(number) => number.as_u64().and_then(LeadId::from_u64),
        _ => None,
    };
    lead_id.map(Some).ok_or_else(|| {
        let detail = "lead_id must be Meta's leadgen_id of 15 to 17 digits, as a string or an \
                      integer; a CRM's own record id is none";
        ApiError::new(Code::InvalidLeadId, detail).with("field", "lead_id")
    })
}

fn read_idempotency_key(key: String) -> Result<Box<str>, ApiError> {
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let problem = format!("must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(invalid("idempotency_key", &problem));
    }
    Ok(key.into())
}

/// Further `custom_data` as the text of a JSON object with sorted keys; none if it is empty.
fn read_custom_data(mut data: Map<String, Value>) -> Result<Option<Box<str>>, ApiError> {
    let wrong = |problem: &str| Err(invalid("custom_data", problem));
    match data.remove("event_source") {
        None => {}
        Some(Value::String(text)) if text == "crm" => {}
        Some(_) => return wrong("event_source is always \"crm\""),
    }
    if data.contains_key("lead_event_source") {
        return wrong("lead_event_source is set by leadloop from CRM_NAME");
    }
    match (data.get("value"), data.get("currency")) {
        (Some(value), _) if !is_amount(value) => return wrong("value must be a number"),
        (_, Some(currency)) if !is_currency(currency) => {
            return wrong("currency must be an ISO 4217 code of three letters");
        }
        // Meta refuses a value without a currency, and the whole batch with it (META 3.2).
        (Some(_), None) => return wrong("value needs a currency"),
        _ => {}
    }
    if data.is_empty() {
        return Ok(None);
    }
    let text = Value::Object(data).to_string();
    if text.len() > CUSTOM_DATA_BYTES_MAX {
        return wrong(&format!("is over {CUSTOM_DATA_BYTES_MAX} bytes"));
    }
    Ok(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::domain::time::UnixSeconds;
    use serde_json::json;
    use std::collections::BTreeMap;

    const NOW: UnixSeconds = UnixSeconds::new(1_762_000_000);

    fn config() -> Config {
        let file = r#"
            meta_app_secret = "s"
            meta_verify_token = "t"
            meta_dataset_id = "1"
            meta_access_token = "a"
            [[sources]]
            name = "berlin"
            time_zone = "Europe/Berlin"
            clock_tolerance_s = 60
            default_country = "DE"
        "#;
        let read_file = |_: &str| Ok(String::new());
        Config::from_layers(&Layers::read(&BTreeMap::new(), Some(file), &read_file).unwrap())
            .unwrap()
    }

    fn read(body: Value) -> Result<StageUpdate, Value> {
        let body = serde_json::from_value(body).map_err(|error| json!(error.to_string()))?;
        let read = read_update(body, &config(), NOW.timestamp());
        read.map(|read| read.update).map_err(|error| error.to_json())
    }

    #[test]
    fn nobody_reports_in_our_own_name() {
        assert!(with("source", json!("leadloop ")).is_err());
        assert!(with("source", json!("leadloop-crm")).is_ok());
    }

    fn with(field: &str, value: Value) -> Result<StageUpdate, Value> {
        let mut body = json!({"lead_id": "1234567890123456", "stage": "won"});
        body[field] = value;
        read(body)
    }

    #[test]
    fn a_lead_id_is_a_string_or_an_integer_and_never_a_float() {
        let lead_id = LeadId::from_u64(36_795_652_870_078_329).unwrap();
        for good in [json!("36795652870078329"), json!(36_795_652_870_078_329_u64)] {
            assert_eq!(with("lead_id", good).unwrap().lead, LeadReference::from(lead_id));
        }
        for bad in [
            json!(36_795_652_870_078_329.0),
            json!(1.5),
            json!(-1_234_567_890_123_456_i64),
            json!(4711),
            json!("4711"),
            json!("abc"),
            json!(""),
            json!([1]),
            json!("99999999999999999999999"),
        ] {
            assert_eq!(
                with("lead_id", bad.clone()).unwrap_err()["code"],
                "invalid_lead_id",
                "{bad}"
            );
        }
    }

    #[test]
    fn an_integer_too_large_for_64_bits_is_refused_and_not_rounded() {
        let text = r#"{"lead_id": 123456789012345678901234567890, "stage": "won"}"#;
        let body = serde_json::from_str(text).unwrap();
        let problem = read_update(body, &config(), NOW.timestamp()).unwrap_err();
        assert_eq!(problem.code(), Code::InvalidLeadId);
    }

    #[test]
    fn missing_and_misspelt_fields_are_named() {
        for (body, word) in [
            (json!({"stage": "won"}), "lead_id"),
            (json!({"lead_id": "1234567890123456"}), "stage"),
            (json!({"lead_id": "1234567890123456", "stage": "won", "eventtime": 1}), "eventtime"),
        ] {
            assert!(read(body).unwrap_err().to_string().contains(word), "{word}");
        }
    }

    #[test]
    fn times_are_read_in_the_zone_of_their_source() {
        let mut body = json!({"lead_id": "1234567890123456", "stage": "won",
                              "event_time": "2025-11-01T13:26:40", "source": "berlin"});
        let update = read(body.clone()).unwrap();
        assert_eq!(update.event_time.unwrap().get(), 1_762_000_000);
        assert_eq!(update.policy.clock_tolerance_s, 60);
        body["source"] = json!("elsewhere");
        assert_eq!(read(body).unwrap_err()["field"], "event_time");
        assert_eq!(with("event_time", json!(null)).unwrap().event_time, None);
    }

    #[test]
    fn milliseconds_are_refused_in_words() {
        let problem = with("event_time", json!(1_762_000_000_000_i64)).unwrap_err();
        assert_eq!(problem["code"], "invalid_request");
        assert!(problem["detail"].as_str().unwrap().contains("milliseconds"));
    }

    #[test]
    fn customer_values_are_read_as_their_source_writes_them_and_told_apart_by_the_day() {
        let mut body = json!({"lead_id": "1234567890123456", "stage": "won", "source": "berlin",
                              "customer": {"ph": "0151 12345678", "db": "20251101"}});
        let read = |body: &Value| {
            let body = serde_json::from_value(body.clone()).unwrap();
            read_update(body, &config(), NOW.timestamp()).unwrap()
        };
        let here = read(&body);
        let names: Vec<_> = here.update.customer.iter().map(|(name, _)| name).collect();
        assert_eq!((names, here.left_out), (vec!["db", "ph"], vec![]));
        body["source"] = json!("elsewhere");
        body["customer"]["db"] = json!("20251102");
        let there = read(&body);
        assert!(there.update.customer.is_empty());
        assert_eq!(there.left_out.len(), 2);
    }

    #[test]
    fn custom_data_keeps_to_what_meta_takes() {
        for good in [
            json!({"value": 12.5, "currency": "EUR"}),
            json!({"value": "12.50", "currency": "eur", "deal": {"id": 7}}),
            json!({"currency": "EUR", "event_source": "crm"}),
        ] {
            assert!(with("custom_data", good).unwrap().custom_data.is_some());
        }
        assert_eq!(with("custom_data", json!({})).unwrap().custom_data, None);
        for bad in [
            json!({"value": 12.5}),
            json!({"value": "much", "currency": "EUR"}),
            json!({"value": "inf", "currency": "EUR"}),
            json!({"value": 1, "currency": "Euro"}),
            json!({"event_source": "web"}),
            json!({"lead_event_source": "mine"}),
            json!({"note": "x".repeat(CUSTOM_DATA_BYTES_MAX)}),
        ] {
            assert_eq!(
                with("custom_data", bad.clone()).unwrap_err()["field"],
                "custom_data",
                "{bad}"
            );
        }
    }

    #[test]
    fn an_idempotency_key_has_a_length() {
        assert!(with("idempotency_key", json!("k")).is_ok());
        assert!(with("idempotency_key", json!("")).is_err());
        assert!(with("idempotency_key", json!("k".repeat(256))).is_err());
    }
}
