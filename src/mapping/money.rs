//! Value and currency of a stage: taken as Meta takes them, or left out and told.
//!
//! A stage is worth more than its value, so one that is written as people write it (`1.234,56`)
//! does not hold the stage up. It is not guessed at either: `1.234` may be either of two numbers.

use serde_json::Value;

use crate::mapping::field::text;

/// Something of a report that is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name in an answer.
    pub field: &'static str,
    /// Why: `impossible_value`, or `currency_missing` for a value.
    pub reason: &'static str,
}

/// Whether Meta takes it as a `value`: a number, also as text.
pub fn is_amount(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::String(text) => text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => false,
    }
}

/// Whether it has the form of a `currency`: three letters (ISO 4217).
pub fn is_currency(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// Value and currency as they are sent: both, or neither, since Meta refuses a value alone (META
/// 3.2). What is there and not sent is told.
pub(super) fn money(
    value: Option<Value>,
    currency: Option<Value>,
) -> Result<Option<(Value, Value)>, LeftOut> {
    let Some(value) = value else { return Ok(None) };
    let plain = if value.is_number() { Some(value) } else { text(&value).ok().flatten() };
    let Some(value) = plain.filter(is_amount) else {
        return Err(LeftOut { field: "custom_data.value", reason: "impossible_value" });
    };
    let Some(currency) = currency else {
        return Err(LeftOut { field: "custom_data.value", reason: "currency_missing" });
    };
    match text(&currency).ok().flatten().filter(is_currency) {
        Some(currency) => Ok(Some((value, currency))),
        None => Err(LeftOut { field: "custom_data.currency", reason: "impossible_value" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_sent_with_its_currency_or_told_to_be_left_out() {
        let left_out = |field, reason| Err(LeftOut { field, reason });
        let value = |reason| left_out("custom_data.value", reason);
        let currency = left_out("custom_data.currency", "impossible_value");
        for (amount, code, wanted) in [
            (json!(9.5), json!("EUR"), Ok(Some((json!(9.5), json!("EUR"))))),
            (json!(" 9.5 "), json!(" eur "), Ok(Some((json!("9.5"), json!("eur"))))),
            (Value::Null, json!("Euro"), Ok(None)),
            (json!("1.234,56"), json!("EUR"), value("impossible_value")),
            (json!("9 €"), json!("EUR"), value("impossible_value")),
            (json!("inf"), json!("EUR"), value("impossible_value")),
            (json!({"amount": 9}), json!("EUR"), value("impossible_value")),
            (json!(9), Value::Null, value("currency_missing")),
            (json!(9), json!("Euro"), currency.clone()),
            (json!(9), json!("€"), currency.clone()),
            (json!(9), json!(978), currency.clone()),
            (json!(9), json!(["EUR"]), currency.clone()),
        ] {
            let there = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
            assert_eq!(money(there(&amount), there(&code)), wanted, "{amount} {code}");
        }
    }
}
