//! Reading `customer` of a stage update: hashed at once, and what is left out is reported.
//!
//! A value that Meta could not match costs nothing but itself. What has the wrong form, or is too
//! large, is refused with the update: that is a mistake of a program, and not of a person.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::domain::customer::{Customer, LeftOut, LeftOutReason, Origin, Parameter};
use crate::http::error::{ApiError, Code};
use crate::http::stage_body::invalid;

/// A value that was left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftOutView {
    /// Where it stood.
    #[schema(example = "customer.ph")]
    field: String,
    /// Why: `no_value`, `digest_of_nothing`, `impossible_value`, `country_code_missing` for a phone
    /// number, or `currency_missing` for a value.
    #[schema(example = "impossible_value")]
    reason: &'static str,
}

impl From<LeftOut> for LeftOutView {
    fn from(left_out: LeftOut) -> Self {
        Self { field: field_of(left_out.parameter), reason: left_out.reason.name() }
    }
}

/// Left-out values as a problem shows them.
pub(super) fn view(left_out: &[LeftOut]) -> Value {
    left_out.iter().copied().map(|it| json!(LeftOutView::from(it))).collect()
}

/// Reads customer parameters by Meta's names, and tells which of their values are left out.
///
/// # Errors
/// `invalid_request` for an unknown parameter or a value that is no text, `invalid_customer` for
/// one that is too long, and for too many.
pub fn read_customer(
    parameters: Map<String, Value>,
    origin: &Origin,
) -> Result<(Customer, Vec<LeftOut>), ApiError> {
    let mut values = Vec::new();
    for (name, value) in parameters {
        let parameter = Parameter::from_name(&name)
            .ok_or_else(|| invalid("customer", &format!("{name} is no parameter of Meta's")))?;
        let texts = match value {
            Value::Null => continue,
            Value::Array(texts) => texts,
            text => vec![text],
        };
        for text in texts {
            let text = match text {
                Value::String(text) => text,
                Value::Number(number) if number.is_u64() => number.to_string(),
                _ => return Err(invalid("customer", &format!("{name} must be text"))),
            };
            values.push((parameter, text));
        }
    }
    // The country decides how others are read.
    values.sort_by_key(|(parameter, _)| *parameter);
    let mut customer = Customer::default();
    let mut left_out = BTreeSet::new();
    for (parameter, text) in values {
        match customer.add(parameter, &text, origin) {
            Ok(()) => {}
            Err(LeftOut { reason: LeftOutReason::TooLarge, .. }) => {
                return Err(too_large(parameter));
            }
            Err(reason) => drop(left_out.insert(reason)),
        }
    }
    Ok((customer, left_out.into_iter().collect()))
}

fn field_of(parameter: Parameter) -> String {
    format!("customer.{}", parameter.name())
}

fn too_large(parameter: Parameter) -> ApiError {
    let field = field_of(parameter);
    let detail = format!("{field} has too many values, or one that is too long");
    ApiError::new(Code::InvalidCustomer, detail).with("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CUSTOMER_VALUES_MAX;

    fn read(customer: Value) -> Result<(Customer, Vec<Value>), Value> {
        let Value::Object(parameters) = customer else { panic!("{customer}") };
        let (customer, left_out) =
            read_customer(parameters, &Origin::default()).map_err(|error| error.to_json())?;
        let shown = left_out.into_iter().map(|left_out| json!(LeftOutView::from(left_out)));
        Ok((customer, shown.collect()))
    }

    #[test]
    fn values_come_as_text_number_or_list_and_leave_hashed() {
        let (customer, left_out) = read(json!({
            "email": ["A@x.org", "b@x.org"], "phone": "+4915112345678", "zp": 50_667, "ln": null
        }))
        .unwrap();
        let counts: Vec<_> = customer.iter().map(|(name, values)| (name, values.len())).collect();
        assert_eq!(counts, [("em", 2), ("ph", 1), ("zp", 1)]);
        assert!(customer.iter().flat_map(|(_, values)| values).all(|value| value.len() == 64));
        assert_eq!(left_out, [json!(null); 0]);
    }

    #[test]
    fn what_is_left_out_is_named_once_and_the_rest_stays() {
        let (customer, left_out) = read(json!({
            "phone": ["+12", "+13", "0151 12345678"], "email": ["", "a@x.org"], "ct": "n/a"
        }))
        .unwrap();
        assert_eq!(customer.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["em"]);
        let expected = [
            json!({"field": "customer.em", "reason": "no_value"}),
            json!({"field": "customer.ph", "reason": "impossible_value"}),
            json!({"field": "customer.ph", "reason": "country_code_missing"}),
            json!({"field": "customer.ct", "reason": "no_value"}),
        ];
        assert_eq!(left_out, expected);
    }

    #[test]
    fn a_country_decides_wherever_it_stands() {
        let text = r#"{"st": "Texas", "zp": "75001-1234", "country": "US"}"#;
        let (far, _) = read(serde_json::from_str(text).unwrap()).unwrap();
        let (near, _) = read(json!({"country": "us", "st": "tx", "zp": "75001"})).unwrap();
        assert_eq!(far, near);
    }

    #[test]
    fn a_wrong_form_and_too_much_are_refused_by_name() {
        let many: Vec<String> = (0..=CUSTOMER_VALUES_MAX).map(|n| format!("{n}@x.org")).collect();
        for (customer, code, word) in [
            (json!({"fax": "1"}), "invalid_request", "fax"),
            (json!({"em": {"a": 1}}), "invalid_request", "em"),
            (json!({"em": [["a@x.org"]]}), "invalid_request", "em"),
            (json!({"zp": 1.5}), "invalid_request", "zp"),
            (json!({"em": many}), "invalid_customer", "customer.em"),
            (json!({"ct": "x".repeat(2_000)}), "invalid_customer", "customer.ct"),
        ] {
            let problem = read(customer).unwrap_err();
            assert_eq!(problem["code"], code);
            assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
        }
    }

    #[test]
    fn each_reason_that_an_answer_can_have_is_in_the_documents() {
        let page = include_str!("../../docs/API.md");
        for reason in LeftOutReason::ALL {
            let told = reason != LeftOutReason::TooLarge;
            assert_eq!(page.contains(&format!("`{}`", reason.name())), told, "{}", reason.name());
        }
    }
}
