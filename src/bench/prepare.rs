//! Requests, made ahead of being sent.
//!
//! A delivery is a template in which only the digits of ids and times are put; what costs is its
//! signature.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::bench::ids::{LeadIds, Shuffled};
use crate::bench::{BenchError, Load};
use crate::domain::time::UnixSeconds;
use crate::meta::signature::{SIGNATURE_HEADER, sign};

const WEBHOOK_PATH: &str = "/webhooks/meta";
const UPDATE_PATH: &str = "/v1/stage-updates";
const UPDATES_PATH: &str = "/v1/stage-updates/batch";
/// How old a lead is when its delivery is made, in seconds: its raw-lead event is due at once.
const LEAD_AGE_S: i64 = 2;
/// How long ago a stage was reached when its update is made, in seconds: after its lead came.
const STAGE_AGE_S: i64 = 1;

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) request: Request<Full<Bytes>>,
    /// How many leads it tells of or asks for; of a list, the answer tells it.
    pub(super) leads: u64,
}

/// Makes the requests of a load, one after the other.
pub(super) struct Maker {
    head: Head,
    load: Made,
}

enum Made {
    Deliveries(Box<Deliveries>),
    LookUps {
        ids: LeadIds,
        leads: u64,
        random: Box<StdRng>,
    },
    Updates {
        ids: LeadIds,
        leads: u64,
        seed: u64,
        per_request: usize,
        place: u64,
    },
    /// The same again and again.
    Gets,
}

impl Maker {
    /// What makes the requests of a load on a server, with lead ids and chance by a seed.
    ///
    /// # Errors
    /// If the address or the key can't be written into a request.
    pub(super) fn new(server: &Url, load: &Load, seed: u64) -> Result<Self, BenchError> {
        let ids = LeadIds::new(seed);
        let (head, load) = match load {
            Load::Webhooks { app_secret, page_id, leads_per_post, first } => {
                let head =
                    Head::new(server, &Method::POST, WEBHOOK_PATH, None)?.at_path_of(server)?;
                let secret = app_secret.clone();
                let made = Deliveries::new(secret, *page_id, *leads_per_post, *first, ids);
                (head, Made::Deliveries(Box::new(made)))
            }
            Load::LookUps { api_key, leads } => {
                let head = Head::new(server, &Method::GET, "/v1/leads", Some(api_key))?;
                let random = Box::new(StdRng::seed_from_u64(seed));
                (head, Made::LookUps { ids, leads: *leads, random })
            }
            Load::Listings { api_key, limit, .. } => {
                let path = format!("/v1/leads?limit={limit}");
                (Head::new(server, &Method::GET, &path, Some(api_key))?, Made::Gets)
            }
            Load::StageUpdates { api_key, leads, per_request } => {
                let path = if *per_request == 1 { UPDATE_PATH } else { UPDATES_PATH };
                let head = Head::new(server, &Method::POST, path, Some(api_key))?;
                let per_request = *per_request;
                (head, Made::Updates { ids, leads: *leads, seed, per_request, place: 0 })
            }
            Load::Gets { path } => (Head::new(server, &Method::GET, path, None)?, Made::Gets),
        };
        Ok(Self { head, load })
    }

    /// The next one.
    pub(super) fn next(&mut self, now: UnixSeconds) -> Prepared {
        let head = &self.head;
        match &mut self.load {
            Made::Deliveries(deliveries) => deliveries.next(head, now),
            Made::LookUps { ids, leads, random } => {
                let id = ids.get(below(*leads, random.next_u64()));
                let request = head.below(&id.to_string());
                Prepared { request, leads: 1 }
            }
            Made::Updates { ids, leads, seed, per_request, place } => {
                let updates = (0..*per_request).map(|_| {
                    let (round, at) = (*place / *leads, *place % *leads);
                    *place += 1;
                    let number = Shuffled::new(*leads, seed.wrapping_add(round)).get(at);
                    let (id, event_time) = (ids.get(number), now + -STAGE_AGE_S);
                    let stage = round + 1;
                    format!(
                        r#"{{"lead_id":"{id}","stage":"bench {stage}","event_time":{event_time}}}"#
                    )
                });
                let updates: Vec<String> = updates.collect();
                let body = updates.join(",");
                let batch = *per_request > 1;
                let body = if batch { format!(r#"{{"updates":[{body}]}}"#) } else { body };
                Prepared { request: head.with(body.into()), leads: *per_request as u64 }
            }
            Made::Gets => Prepared { request: head.with(Bytes::new()), leads: 0 },
        }
    }
}

/// A number below a bound, from a random one.
fn below(bound: u64, random: u64) -> u64 {
    let product = u128::from(bound) * u128::from(random);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// What all requests of a run have in common.
struct Head(Request<Full<Bytes>>);

impl Head {
    fn new(
        server: &Url,
        method: &Method,
        path: &str,
        key: Option<&SecretString>,
    ) -> Result<Self, BenchError> {
        let no_host = || BenchError::Plan(format!("{server}: names no host"));
        let host = server.host_str().ok_or_else(no_host)?;
        let port = server.port().map_or_else(String::new, |port| format!(":{port}"));
        let mut request = Request::builder().method(method).uri(uri(server, path)?);
        request = request.header(header::HOST, format!("{host}{port}"));
        if *method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            let value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()));
            let refused = |_| BenchError::Plan("the API key can't be sent in a header".to_owned());
            let mut value = value.map_err(refused)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let wrong = |error| BenchError::Plan(format!("{server}: {error}"));
        Ok(Self(request.body(Full::default()).map_err(wrong)?))
    }

    /// The address itself, if it has a path: webhooks of other programs are somewhere else.
    fn at_path_of(mut self, server: &Url) -> Result<Self, BenchError> {
        if server.path() != "/" {
            *self.0.uri_mut() = uri(server, "")?;
        }
        Ok(self)
    }

    fn with(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = self.0.clone();
        *request.body_mut() = Full::new(body);
        request
    }

    fn below(&self, segment: &str) -> Request<Full<Bytes>> {
        let mut request = self.0.clone();
        let uri = format!("{}/{segment}", self.0.uri());
        *request.uri_mut() = uri.try_into().expect("digits can be a part of a path");
        request
    }
}

/// A path below the one of the server.
fn uri(server: &Url, path: &str) -> Result<Uri, BenchError> {
    let uri = format!("{}{path}", server.path().trim_end_matches('/'));
    let wrong = |error| BenchError::Plan(format!("{uri}: {error}"));
    Uri::try_from(uri.as_str()).map_err(wrong)
}

/// Deliveries of new leads, signed.
struct Deliveries {
    app_secret: SecretString,
    ids: LeadIds,
    next: u64,
    template: Template,
    created_time: Option<UnixSeconds>,
}

impl Deliveries {
    fn new(app_secret: SecretString, page_id: u64, leads: usize, first: u64, ids: LeadIds) -> Self {
        let template = Template::new(page_id, leads);
        Self { app_secret, ids, next: first, template, created_time: None }
    }

    fn next(&mut self, head: &Head, now: UnixSeconds) -> Prepared {
        let created_time = now + -LEAD_AGE_S;
        if self.created_time.replace(created_time) != Some(created_time) {
            self.template.put_time(created_time);
        }
        let (ids, first) = (self.ids, self.next);
        let numbers = first..first + self.template.lead_ids.len() as u64;
        self.next = numbers.end;
        self.template.put_ids(numbers.map(|number| ids.get(number).get()));
        let body = Bytes::copy_from_slice(&self.template.body);
        let signature = HeaderValue::try_from(sign(&self.app_secret, &body));
        let signature = signature.expect("hex digits can be a header");
        let mut request = head.with(body);
        request.headers_mut().insert(HeaderName::from_static(SIGNATURE_HEADER), signature);
        Prepared { request, leads: self.next - first }
    }
}

/// The body of a delivery, and where what differs stands in it.
struct Template {
    body: Vec<u8>,
    /// Where the ids of the leads begin.
    lead_ids: Vec<usize>,
    /// Where times in seconds begin.
    times: Vec<usize>,
}

impl Template {
    const ID: &str = "10000000000000000";
    const TIME: &str = "1000000000";

    fn new(page_id: u64, leads: usize) -> Self {
        let (id, time, page_id) = (Self::ID, Self::TIME, page_id.to_string());
        let mut body = [r#"{"object":"page","entry":[{"id":""#, &page_id, r#"","time":"#].concat();
        let mut times = vec![body.len()];
        body += &[time, r#","changes":["#].concat();
        let mut lead_ids = Vec::with_capacity(leads);
        for number in 0..leads {
            body += if number > 0 { "," } else { "" };
            body += r#"{"value":{"adgroup_id":"120210000000000001","ad_id":"120210000000000002","#;
            body += r#""form_id":"1000000002","leadgen_id":""#;
            lead_ids.push(body.len());
            body += &[id, r#"","created_time":"#].concat();
            times.push(body.len());
            body += &[time, r#","page_id":""#, &page_id, r#""},"field":"leadgen"}"#].concat();
        }
        body += "]}]}";
        Self { body: body.into_bytes(), lead_ids, times }
    }

    fn put_time(&mut self, time: UnixSeconds) {
        let time = u64::try_from(time.get()).unwrap_or(0);
        for at in &self.times {
            put_digits(&mut self.body[*at..at + Self::TIME.len()], time);
        }
    }

    fn put_ids(&mut self, ids: impl Iterator<Item = u64>) {
        for (at, id) in self.lead_ids.iter().zip(ids) {
            put_digits(&mut self.body[*at..at + Self::ID.len()], id);
        }
    }
}

/// Fills a place with the last digits of a number.
fn put_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::meta::signature::SignatureVerifier;
    use crate::meta::webhook::read_webhook;
    use http_body_util::BodyExt;
    use serde_json::Value;

    const NOW: UnixSeconds = UnixSeconds::new(1_762_000_000);

    fn maker(server: &str, load: &Load) -> Maker {
        Maker::new(&server.parse().unwrap(), load, 7).unwrap()
    }

    async fn body(prepared: Prepared) -> Bytes {
        prepared.request.into_body().collect().await.unwrap().to_bytes()
    }

    fn webhooks(leads_per_post: usize) -> Load {
        let app_secret = "secret".into();
        Load::Webhooks { app_secret, page_id: 300, leads_per_post, first: 5 }
    }

    #[tokio::test]
    async fn each_delivery_is_what_the_door_takes_and_tells_of_leads_nobody_told_of() {
        let verifier = SignatureVerifier::new(&["secret".into()]);
        let mut maker = maker("http://here:80", &webhooks(3));
        let mut told = Vec::new();
        for second in [0, 0, 1] {
            let prepared = maker.next(NOW + second);
            assert_eq!(prepared.leads, 3);
            assert_eq!(prepared.request.uri(), "/webhooks/meta");
            assert_eq!(prepared.request.headers()[header::HOST], "here");
            let signature = prepared.request.headers()[SIGNATURE_HEADER].clone();
            let body = body(prepared).await;
            assert!(verifier.verify(signature.as_bytes(), &body));
            let content = read_webhook(&body);
            assert_eq!((content.unreadable.len(), content.ignored), (0, 0));
            for lead in content.leads {
                assert_eq!(lead.page_id.unwrap().get(), 300);
                assert_eq!(lead.created_time, NOW + second + -LEAD_AGE_S);
                told.push(lead.lead_id);
            }
        }
        let ids = LeadIds::new(7);
        assert!(told.into_iter().eq((5..14).map(|number| ids.get(number))));
    }

    #[tokio::test]
    async fn deliveries_are_as_long_as_those_of_meta() {
        let one = body(maker("http://here", &webhooks(1)).next(NOW)).await;
        assert!((250..320).contains(&one.len()), "{}", one.len());
        let many = body(maker("http://here", &webhooks(1_000)).next(NOW)).await;
        assert!((190_000..260_000).contains(&many.len()), "{}", many.len());
    }

    #[tokio::test]
    async fn every_lead_reaches_a_stage_before_one_reaches_another() {
        let load = Load::StageUpdates { api_key: "key".into(), leads: 6, per_request: 4 };
        let mut maker = maker("http://here/below/", &load);
        let mut reached = BTreeSet::new();
        for _ in 0..3 {
            let prepared = maker.next(NOW);
            assert_eq!(prepared.request.uri(), "/below/v1/stage-updates/batch");
            assert_eq!(prepared.request.headers()[header::AUTHORIZATION], "Bearer key");
            let body: Value = serde_json::from_slice(&body(prepared).await).unwrap();
            for update in body["updates"].as_array().unwrap() {
                let text = |name: &str| update[name].as_str().unwrap().to_owned();
                assert_eq!(update["event_time"], NOW.get() - STAGE_AGE_S);
                reached.insert((text("stage"), text("lead_id")));
            }
        }
        let ids = LeadIds::new(7);
        let all = ["bench 1", "bench 2"].into_iter().flat_map(|stage| {
            (0..6).map(move |number| (stage.to_owned(), ids.get(number).to_string()))
        });
        assert_eq!(reached, all.collect());
    }

    #[test]
    fn only_leads_that_were_loaded_are_looked_up() {
        let mut maker = maker("http://here", &Load::LookUps { api_key: "key".into(), leads: 3 });
        let asked: BTreeSet<String> =
            (0..100).map(|_| maker.next(NOW).request.uri().to_string()).collect();
        let ids = LeadIds::new(7);
        assert_eq!(asked, (0..3).map(|number| format!("/v1/leads/{}", ids.get(number))).collect());
    }

    #[test]
    fn webhooks_go_where_the_address_says_if_it_has_a_path() {
        let mut there = maker("http://here:9000/hooks/meta?x=1", &webhooks(1));
        assert_eq!(there.next(NOW).request.uri(), "/hooks/meta");
        let mut list = maker("http://here", &Load::Gets { path: "/noop?a=b".into() });
        assert_eq!(list.next(NOW).request.uri(), "/noop?a=b");
    }

    #[test]
    fn a_key_that_no_header_can_hold_is_refused_and_not_shown() {
        let load = Load::LookUps { api_key: "hush\n".into(), leads: 1 };
        let error = Maker::new(&"http://here".parse().unwrap(), &load, 1).err().unwrap();
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}
