//! How the stand-in misbehaves when it is told to.

use serde::Deserialize;
use serde_json::{Value, json};

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An error of the Graph API; nothing is taken.
    Error {
        /// HTTP status.
        #[serde(default = "bad_request")]
        http_status: u16,
        /// Code.
        code: i64,
        /// Subcode.
        subcode: Option<i64>,
        /// What it says of itself.
        #[serde(default)]
        is_transient: bool,
    },
    /// Too many calls (80004), with the header that says for how many minutes; nothing is taken.
    Throttle {
        /// How long to wait.
        minutes: u64,
    },
    /// A 200 that says it received one event less; nothing is taken.
    Short,
    /// A 200 with an error inside; nothing is taken.
    ErrorInside,
    /// A 200 that is no JSON; nothing is taken.
    Garbage,
    /// The connection breaks before anything is taken.
    Cut,
    /// Everything is taken, and the connection breaks before the answer: the answer is lost.
    TakeAndCut,
    /// The request is never answered; nothing is taken.
    Hang,
}

const fn bad_request() -> u16 {
    400
}

/// An error in the shape of the Graph API (META 3.6).
pub fn graph_error(code: i64, subcode: Option<i64>, is_transient: bool, message: &str) -> Value {
    let mut error = json!({
        "message": message,
        "type": if code == 190 { "OAuthException" } else { "GraphMethodException" },
        "code": code,
        "is_transient": is_transient,
        "fbtrace_id": "Sandbox",
    });
    if let Some(subcode) = subcode {
        error["error_subcode"] = json!(subcode);
    }
    json!({ "error": error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_by_their_kind() {
        let read = |value: Value| serde_json::from_value::<Fault>(value);
        assert_eq!(read(json!({"kind": "take_and_cut"})).unwrap(), Fault::TakeAndCut);
        assert_eq!(
            read(json!({"kind": "error", "code": 190, "http_status": 401})).unwrap(),
            Fault::Error { http_status: 401, code: 190, subcode: None, is_transient: false }
        );
        assert!(read(json!({"kind": "sulk"})).is_err());
    }

    #[test]
    fn an_error_has_the_shape_of_the_graph_api() {
        let error = graph_error(100, Some(2_804_003), false, "Too old");
        assert_eq!(
            (&error["error"]["code"], &error["error"]["error_subcode"]),
            (&json!(100), &json!(2_804_003))
        );
    }
}
