//! Secrets and people's values, put into everything that a program reads, come out of it nowhere:
//! not in its log at the most talkative level, not in its metrics, not in an answer.

use leadloop::meta::signature::{SIGNATURE_HEADER, sign};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use super::program::{
    ACCESS_TOKEN, API_KEY, APP_SECRET, EMAIL, Place, Server, VERIFY_TOKEN, settings, within,
};

/// What only the program and its owner know, then what people told it, then what strangers try.
/// In small letters, as everything is looked at.
const CANARIES: [&str; 15] = [
    APP_SECRET,
    VERIFY_TOKEN,
    ACCESS_TOKEN,
    API_KEY,
    HOOK_SECRET,
    EMAIL,
    "canaryson",
    "4915100canary",
    "15100077777",
    "canary street",
    "canary-agent",
    "canary-key",
    "canary-token",
    "canary-secret",
    "canary-note",
];

/// What CRMs show: one in the address, one in a header, and one signs with it.
const HOOK_SECRET: &str = "canary-hook-secret";

/// The server, and all that it answered.
struct Watched {
    server: Server,
    client: Client,
    answers: String,
}

impl Watched {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server.url))
    }

    async fn send(&mut self, request: RequestBuilder) -> u16 {
        let response = within(request.send()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = within(response.text()).await.unwrap();
        self.answers.push_str(&format!("{status} {headers:?} {text}\n").to_lowercase());
        status
    }

    async fn webhook(&mut self, body: &str) -> u16 {
        let signature = sign(&APP_SECRET.into(), body.as_bytes());
        let request = self.request(Method::POST, "/webhooks/meta").body(body.to_owned());
        self.send(request.header(SIGNATURE_HEADER, signature)).await
    }

    async fn update(&mut self, path: &str, body: &Value) -> u16 {
        let request = self.request(Method::POST, path).bearer_auth(API_KEY).json(body);
        self.send(request).await
    }

    /// What strangers try with secrets of their own.
    async fn strangers(&mut self) {
        for path in ["/v1/leads", "/v1/canary-note", "/v1/leads?access_token=canary-token"] {
            let request = self.request(Method::GET, path).bearer_auth("canary-key");
            assert!(self.send(request).await >= 400);
        }
        let hub = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=";
        for (token, status) in [("canary-token", 403), (VERIFY_TOKEN, 200)] {
            let request = self.request(Method::GET, &format!("/webhooks/meta?{hub}{token}"));
            assert_eq!(self.send(request).await, status);
        }
        let body = json!({"object": "page", "note": "canary-note"}).to_string();
        for signature in [sign(&"canary-secret".into(), body.as_bytes()), "canary-key".into()] {
            let request = self.request(Method::POST, "/webhooks/meta").body(body.clone());
            assert_eq!(self.send(request.header(SIGNATURE_HEADER, signature)).await, 401);
        }
        for (path, value) in [
            ("/v1/hooks/path/canary-token-of-nobody", ""),
            ("/v1/hooks/header", "canary-token"),
            ("/v1/hooks/hmac", "canary-token"),
            ("/v1/hooks/canary-note/canary-token-of-nobody", ""),
        ] {
            let request = self.request(Method::POST, path).header("x-shown", value);
            assert_eq!(self.send(request.body(body.clone())).await, 401, "{path}");
        }
    }

    /// What CRMs send in their own formats, with the right secrets.
    async fn crms(&mut self, lead: &str) {
        let good = json!({"lead_id": lead, "stage": "in talks", "email": EMAIL}).to_string();
        let bad = json!({"lead_id": "canary-note", "stage": "won", "email": EMAIL}).to_string();
        let shown = format!("/v1/hooks/path/{HOOK_SECRET}");
        for (body, status) in
            [(&*good, 202), (&*bad, 422), ("{\"email\": canaryson", 422), ("[]", 200)]
        {
            let request = self.request(Method::POST, &shown).body(body.to_owned());
            assert_eq!(self.send(request).await, status, "{body}");
            let request = self.request(Method::POST, "/v1/hooks/header");
            let request = request.header("x-shown", HOOK_SECRET).body(body.to_owned());
            assert!([status, 200].contains(&self.send(request).await), "{body}");
            let signature = sign(&HOOK_SECRET.into(), body.as_bytes());
            let request = self.request(Method::POST, "/v1/hooks/hmac").body(body.to_owned());
            let answered = self.send(request.header("x-shown", signature)).await;
            assert!([status, 200].contains(&answered), "{answered}: {body}");
        }
        // What is not meant for it is refused before anybody looks at the secret, and not repeated.
        let wrong = [
            self.request(Method::GET, &shown),
            self.request(Method::POST, &format!("{shown}/more")),
            self.request(Method::POST, &format!("{shown}?note={HOOK_SECRET}")).body("{"),
            self.request(Method::POST, &shown).header("content-encoding", "gzip").body(good),
            // Nobody reads it to its end, so nothing else can come on its connection.
            self.request(Method::POST, &shown)
                .header("connection", "close")
                .body(" ".repeat(600 * 1024)),
        ];
        for request in wrong {
            let status = self.send(request).await;
            assert!((400..500).contains(&status), "{status}");
        }
    }

    /// What Meta and a CRM send, good and bad.
    async fn friends(&mut self, lead: &str) {
        let value = json!({"leadgen_id": "canary-note", "created_time": 1, "full_name": "Canaryson",
                           "email": EMAIL});
        let change = json!({"field": "leadgen", "value": value});
        let page = json!({"object": "page", "entry": [{"id": "1", "changes": [change]}]});
        for body in [page.to_string(), format!("{{\"email\": \"{EMAIL}\"")] {
            assert_eq!(self.webhook(&body).await, 200);
        }
        let customer = json!({
            "em": EMAIL, "ph": "+49 151 000 77777", "fn": "Canaryson", "ct": "Canary Street",
            "client_user_agent": "canary-agent", "external_id": "canary-note"
        });
        let good = json!({"lead_id": lead, "stage": "won", "customer": customer,
                          "idempotency_key": "canary-key"});
        assert_eq!(self.update("/v1/stage-updates", &good).await, 202);
        let with = |field: &str, value: Value| {
            let mut update = good.clone();
            update[field] = value;
            update
        };
        let left_out = json!({"em": "Canaryson", "ph": "4915100canary", "db": "canary-note",
                              "fbc": "canary-note", "client_ip_address": "canary-note"});
        let mut update = with("customer", left_out);
        update["idempotency_key"] = Value::Null;
        update["stage"] = json!("seen");
        assert_eq!(self.update("/v1/stage-updates", &update).await, 202);
        let bad = [
            with("stage", json!("lost")),
            with("lead_id", json!("canary-note")),
            with("event_time", json!("canary-note")),
            with("event_time", json!({"canary-note": EMAIL})),
            with("customer", json!(EMAIL)),
            with("customer", json!({"db": "canary-note", "em": [{"a": EMAIL}]})),
            with("customer", json!({"ct": "canary-note".repeat(100)})),
            with("custom_data", json!({"value": "canary-note", "currency": "EUR"})),
            with("custom_data", json!({"lead_event_source": "canary-note"})),
            with("idempotency_key", json!("canary-key".repeat(100))),
            json!([EMAIL]),
            json!(EMAIL),
        ];
        for update in &bad {
            let status = self.update("/v1/stage-updates", update).await;
            assert!((400..500).contains(&status), "{status}: {update}");
        }
        self.update("/v1/stage-updates/batch", &json!({ "updates": bad })).await;
        let broken = format!("{{\"lead_id\": \"{lead}\", \"customer\": {{\"em\": \"{EMAIL}\"");
        let request = self.request(Method::POST, "/v1/stage-updates").bearer_auth(API_KEY);
        assert_eq!(self.send(request.body(broken)).await, 400);
    }
}

fn canaries_in(text: &str) -> Vec<&'static str> {
    CANARIES.into_iter().filter(|canary| text.contains(canary)).collect()
}

#[tokio::test]
async fn no_secret_and_no_persons_value_comes_out_of_a_program_that_was_told_all_of_them() {
    let place = Place::new();
    // A stand-in that knows another token: Meta's refusal is a text, too.
    let meta = place.sandbox(&settings(&["META_ACCESS_TOKEN"], [("META_ACCESS_TOKEN", "x")])).await;
    let with = [
        ("META_GRAPH_URL", meta.url.as_str()),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_LOG", "trace"),
    ];
    let source = |name: &str, auth: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\npreset = \"generic\"\n[sources.auth]\n\
             kind = \"{name}\"\nsecret = \"{HOOK_SECRET}\"\n{auth}\n"
        )
    };
    let sources = [
        source("path", ""),
        source("header", "header = \"x-shown\""),
        source("hmac", "header = \"x-shown\"\nprefix = \"sha256=\""),
    ];
    place.write("leadloop.toml", &sources.concat());
    let server = place.serve(&settings(&[], with)).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let secret = [("META_APP_SECRET", APP_SECRET)];
    let sent = place.run(&["trigger", "--url", &webhook], &secret).await;
    let client = leadloop::client::http_client(&server.url).unwrap();
    let mut watched = Watched { server, client, answers: String::new() };
    watched.strangers().await;
    watched.friends(sent.stdout.trim()).await;
    watched.crms(sent.stdout.trim()).await;
    let log = watched.server.program.stderr.until(|log| log.contains("dataset paused")).await;
    for path in [
        "/v1/leads",
        "/v1/events",
        "/v1/datasets",
        "/metrics",
        "/readyz",
        "/healthz",
        "/v1/hooks/unmapped",
    ] {
        let request = watched.request(Method::GET, path).bearer_auth(API_KEY);
        assert_eq!(watched.send(request).await, 200, "{path}");
    }
    let ended = watched.server.stop().await;
    assert!(ended.stderr.len() > log.len() && log.contains("webhook received"));
    assert_eq!(canaries_in(&watched.answers), [""; 0], "in an answer: {}", watched.answers);
    // `{"email": canaryson`, and nothing of what is sealed along.
    assert!(ended.stderr.contains("source=path field=\"body\" bytes=19"), "{}", ended.stderr);
    // Each source's CRM was not let in, and is told of once in a while.
    for source in ["path", "header", "hmac"] {
        let refused = ended.stderr.lines().filter(|line| {
            line.contains("a CRM's webhook is refused") && line.contains(&format!("={source} "))
        });
        assert!((1..=4).contains(&refused.count()), "{source}: {}", ended.stderr);
    }
    let said = format!("{}{}", ended.stdout, ended.stderr).to_lowercase();
    assert_eq!(canaries_in(&said), [""; 0], "in the log: {said}");
}

#[test]
fn a_canary_that_comes_out_is_found() {
    assert_eq!(canaries_in(&format!("DEBUG key={API_KEY}")), [API_KEY]);
}
