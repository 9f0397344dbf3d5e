//! How long Meta asks to wait, from the headers of an answer (META 3.6).

use serde::Deserialize;
use serde_json::{Map, Value};

/// Seconds that the headers ask to wait; the longest of them, if any asks.
///
/// `header` gives the value of a header by its lower-case name. What can't be read asks nothing.
pub fn wait_s<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<u64> {
    let retry_after = header("retry-after").and_then(|value| value.trim().parse().ok());
    let business = header("x-business-use-case-usage").and_then(business_wait_s);
    let account = header("x-ad-account-usage").and_then(account_wait_s);
    [retry_after, business, account].into_iter().flatten().filter(|wait_s| *wait_s > 0).max()
}

/// How much of the budget of calls for leads is used, in per cent, if a header says so.
pub fn used_percent<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<u64> {
    let business = header("x-business-use-case-usage").map(usages).unwrap_or_default();
    let leadgen = business.into_iter().filter(|usage| usage["type"] == "leadgen");
    let app = header("x-app-usage").and_then(|value| serde_json::from_str(value).ok());
    let shares = ["call_count", "total_time", "total_cputime"];
    let share = |usage: Value| shares.iter().filter_map(|name| usage[name].as_u64()).max();
    leadgen.chain(app).filter_map(share).max()
}

#[derive(Deserialize)]
struct BusinessUsage {
    /// Minutes.
    #[serde(default)]
    estimated_time_to_regain_access: u64,
}

/// The usages of all businesses.
fn usages(value: &str) -> Vec<Value> {
    let businesses: Map<String, Value> = serde_json::from_str(value).unwrap_or_default();
    let usages = businesses.into_iter().flat_map(|(_, usages)| match usages {
        Value::Array(usages) => usages,
        other => vec![other],
    });
    usages.collect()
}

fn business_wait_s(value: &str) -> Option<u64> {
    let usages = usages(value).into_iter();
    let minutes = usages.filter_map(|usage| serde_json::from_value::<BusinessUsage>(usage).ok());
    minutes.map(|usage| usage.estimated_time_to_regain_access.saturating_mul(60)).max()
}

#[derive(Deserialize)]
struct AccountUsage {
    #[serde(default)]
    acc_id_util_pct: f64,
    /// Seconds.
    #[serde(default)]
    reset_time_duration: u64,
}

fn account_wait_s(value: &str) -> Option<u64> {
    let usage: AccountUsage = serde_json::from_str(value).ok()?;
    (usage.acc_id_util_pct >= 100.0).then_some(usage.reset_time_duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&str, &'static str)]) -> Option<u64> {
        wait_s(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn the_longest_wait_that_is_asked_for_counts() {
        let business = r#"{"1":[{"type":"ads","estimated_time_to_regain_access":0}],
            "2":[{"type":"leadgen","call_count":100,"estimated_time_to_regain_access":3}]}"#;
        assert_eq!(wait(&[("x-business-use-case-usage", business)]), Some(180));
        assert_eq!(
            wait(&[("retry-after", "600"), ("x-business-use-case-usage", business)]),
            Some(600)
        );
        let full = r#"{"acc_id_util_pct":100.0,"reset_time_duration":40}"#;
        assert_eq!(wait(&[("x-ad-account-usage", full)]), Some(40));
    }

    #[test]
    fn the_largest_share_of_the_budget_for_leads_counts() {
        let used = |header: &str, value: &'static str| {
            used_percent(|name| (name == header).then_some(value))
        };
        let business = r#"{"1":[{"type":"leadgen","call_count":85,"total_time":90}],
            "2":[{"type":"ads_insights","call_count":99}]}"#;
        assert_eq!(used("x-business-use-case-usage", business), Some(90));
        assert_eq!(used("x-app-usage", r#"{"call_count":28,"total_cputime":3}"#), Some(28));
        assert_eq!(used("x-app-usage", "[]"), None);
        assert_eq!(used("x-business-use-case-usage", "much"), None);
    }

    #[test]
    fn headers_that_ask_nothing_or_make_no_sense_are_no_wait() {
        let idle = r#"{"acc_id_util_pct":9.5,"reset_time_duration":40}"#;
        for headers in [
            &[][..],
            &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")],
            &[("retry-after", "-1")],
            &[("x-ad-account-usage", idle)],
            &[("x-business-use-case-usage", "[]")],
            &[("x-business-use-case-usage", r#"{"1":[{"estimated_time_to_regain_access":-3}]}"#)],
        ] {
            assert_eq!(wait(headers), None, "{headers:?}");
        }
    }
}
