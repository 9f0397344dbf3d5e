//! What fuzzing calls: one function for each kind of input that comes from outside.
//!
//! Each takes any bytes and panics if they break a promise. `fuzz/` calls them with the bytes that
//! coverage leads to, the tests below with a corpus and seeded mutations of it, so that neither
//! rots. No part of the program; it is compiled for tests and fuzzing only.

#![expect(clippy::missing_panics_doc, reason = "a panic is how they say that a promise is broken")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::config::{Config, Layers};
use crate::delivery::verdict::{Verdict, judge};
use crate::domain::customer::{Customer, LeftOut};
use crate::domain::event::Event;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::intake::{Decision, decide};
use crate::domain::lead::{Lead, ReportedLead};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::http::stage_body::{ReadUpdate, StageUpdateBody, read_update};
use crate::limits::{BATCH_UPDATES_MAX, EVENT_AGE_MAX_S};
use crate::mapping::payload::{Form, read};
use crate::mapping::preset::{PRESETS, preset};
use crate::mapping::spec::{MappingSpec, OtherStages};
use crate::mapping::{Mapping, Outcome};
use crate::meta::conversions::{Envelope, read_answer, request_body};
use crate::meta::signature::{SignatureVerifier, read_header, sign};
use crate::meta::usage::wait_s;
use crate::meta::webhook::{WebhookContent, read_webhook};
use crate::sandbox::checks::{check_request, not_counted};
use crate::store::records::read_as_every_kind;

/// A target: its name and what it calls.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("signature", signature),
    ("webhook", webhook),
    ("stage_update", stage_update),
    ("hook", hook),
    ("record", record),
    ("answer", answer),
];

/// When the leads of the corpus were created.
const CREATED: i64 = 1_762_000_000;
/// The largest number of 17 digits.
const LEAD_ID_MAX_TODAY: u64 = 99_999_999_999_999_999;
/// What the clock shows.
const NOW: UnixSeconds = UnixSeconds::new(CREATED + 1_000);

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
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
    let layers = Layers::read(&BTreeMap::new(), Some(file), &|_| Ok(String::new()));
    Config::from_layers(&layers.expect("the settings are well-formed")).expect("and complete")
});

/// Every preset, with the stages under the CRM's names.
static MAPPINGS: LazyLock<Vec<Mapping>> = LazyLock::new(|| {
    let presets = PRESETS.iter().filter_map(|(name, _)| preset(name));
    let keep = MappingSpec { other_stages: Some(OtherStages::Keep), ..MappingSpec::default() };
    let mappings = presets.map(|preset| Mapping::new(&keep.clone().over(preset)));
    mappings.collect::<Result<_, _>>().expect("the presets are complete but for stages")
});

/// A header, a line feed and a body: it is a signature only if it is the one that signs the body.
pub fn signature(input: &[u8]) {
    let (header, body) = split_line(input);
    let secret = "secret".into();
    let verifier = SignatureVerifier::new(&["old".into(), secret]);
    let right = ["old", "secret"].map(|secret| sign(&secret.into(), body));
    for right in &right {
        assert!(verifier.verify(right.as_bytes(), body), "the right signature is refused");
    }
    // The digits may be large or small, what stands before them may not.
    let is_right = |right: &String| {
        let (prefix, digits) = right.as_bytes().split_at("sha256=".len());
        header.strip_prefix(prefix).is_some_and(|shown| shown.eq_ignore_ascii_case(digits))
    };
    assert_eq!(verifier.verify(header, body), right.iter().any(is_right), "a wrong one is taken");
    assert!(read_header(header).is_none() || header.len() == right[0].len());
}

/// A signed webhook body: nothing in it is lost, and Meta takes every event that comes of it.
pub fn webhook(body: &[u8]) {
    let content = read_webhook(body);
    for piece in &content.unreadable {
        let payload = piece.payload.as_slice();
        let found = payload.is_empty() || body.windows(payload.len()).any(|part| part == payload);
        assert!(found, "a piece is not kept as it was received");
    }
    check_count(body, &content);
    for reported in content.leads {
        let created_time = reported.created_time;
        let raw_stage = StageName::parse("initial_lead").expect("it is a stage's name");
        let dataset_id = DatasetId::from_u64(1);
        let source = SourceName::webhook();
        let lead = Lead::new(reported.clone(), source, dataset_id, raw_stage, NOW.timestamp());
        let too_old = NOW - created_time > EVENT_AGE_MAX_S;
        let raw_event = lead.raw_event();
        assert_eq!(raw_event.is_some(), !reported.test && !too_old);
        if let Some(event) = raw_event {
            meta_counts(&event, created_time);
        }
    }
}

/// Every change of every entry is a lead, or kept, or about something else; an entry that can't be
/// read is kept as one piece.
fn check_count(body: &[u8], content: &WebhookContent) {
    let pieces = content.leads.len() + content.unreadable.len() + content.ignored;
    assert!(pieces > 0 || content.leads.is_empty());
    let whole = content.unreadable.iter().any(|piece| piece.payload == body);
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    if whole || value["object"] != "page" {
        assert_eq!((pieces, content.leads.len()), (1, 0), "a body is one piece or a Page's");
        return;
    }
    let entries = value["entry"].as_array().map(Vec::as_slice).unwrap_or_default();
    let changes = |entry: &Value| entry["changes"].as_array().map_or(0, Vec::len);
    let least: usize = entries.iter().map(|entry| changes(entry).min(1)).sum();
    let most: usize = entries.iter().map(|entry| changes(entry).max(1)).sum();
    assert!(
        (least..=most).contains(&pieces),
        "a change is lost or made up: {pieces}, not {least} to {most}"
    );
    if content.unreadable.is_empty() {
        assert_eq!(pieces, entries.iter().map(changes).sum::<usize>(), "a change is lost");
    }
}

/// The body of a stage update: it is refused in words, or Meta takes the event that it becomes.
pub fn stage_update(body: &[u8]) {
    let Ok(body) = serde_json::from_slice::<StageUpdateBody>(body) else { return };
    let now = NOW.timestamp();
    let ReadUpdate { update, left_out } = match read_update(body, &CONFIG, now) {
        Ok(read) => read,
        Err(problem) => {
            let status = problem.code().status();
            assert!(status.is_client_error(), "{status}");
            return;
        }
    };
    check_customer(&update.customer, &left_out);
    let lead_id = update.lead.lead_id;
    let lead_id = lead_id.unwrap_or_else(|| update.own_id());
    // Somebody whose lead is not known, and of whom Meta would be told nothing, waits for it.
    if lead_id.is_own() && !update.customer.is_sendable_alone() {
        return;
    }
    let reported = ReportedLead {
        lead_id,
        page_id: None,
        form_id: None,
        ad_id: None,
        created_time: UnixSeconds::new(CREATED),
        test: lead_id == LeadId::TEST,
    };
    let stage = StageName::parse("initial_lead").expect("it is a stage's name");
    let lead = Lead::new(reported, SourceName::webhook(), DatasetId::from_u64(1), stage, now);
    let siblings: Vec<Event> = lead.raw_event().into_iter().collect();
    if let Ok(Decision::New { reported_time, event_time, .. }) =
        decide(&update, Some(&lead), &siblings, now)
    {
        let fingerprint = update.fingerprint();
        assert_eq!(fingerprint, update.clone().fingerprint());
        let event = update.into_event(lead_id, reported_time, event_time, now);
        meta_counts(&event, lead.reported.created_time);
    }
}

/// A person's values are digests of something, and a parameter that is not there was not given or
/// is reported.
fn check_customer(customer: &Customer, left_out: &[LeftOut]) {
    assert!(left_out.is_sorted() && left_out.len() <= 4 * 15, "{left_out:?}");
    for (name, values) in customer.iter() {
        assert!(!values.is_empty(), "{name}");
        // The digests of "" and of "null", which CRMs really send.
        let of_nothing = |value: &String| {
            value.is_empty() || value.starts_with("e3b0c442") || value.starts_with("74234e98")
        };
        assert!(!values.iter().any(of_nothing), "{name} matches nobody");
    }
}

/// A CRM's payload in any form: every preset refuses it in words, or makes an update of it that
/// keeps the promises of [`stage_update`].
pub fn hook(payload: &[u8]) {
    for form in [Form::Json, Form::Urlencoded, Form::Xml] {
        let Ok(payload) = read(form, payload) else { continue };
        for mapping in MAPPINGS.iter() {
            let Ok(records) = mapping.records(&payload) else { continue };
            assert!(records.len() <= BATCH_UPDATES_MAX, "more records than a batch has");
            for record in records {
                if let Outcome::Update(update) = mapping.read(record, None).outcome {
                    let body = Value::Object(update).to_string();
                    let known = serde_json::from_str::<StageUpdateBody>(&body);
                    assert!(known.is_ok(), "the API does not know {body}");
                    stage_update(body.as_bytes());
                }
            }
        }
    }
}

/// Sees that the strict stand-in for Meta takes the event when it is due, and counts it.
fn meta_counts(event: &Event, created_time: UnixSeconds) {
    // Longer ids than Meta's are today are let in, and the stand-in has no tolerance.
    if event.lead_id.get() > LEAD_ID_MAX_TODAY {
        return;
    }
    let envelope = Envelope { crm_name: "CRM", partner_agent: None, test_event_code: None };
    let body = request_body(&[event], envelope).expect("what was let in can be written");
    let body: Value = serde_json::from_slice(&body).expect("what is written can be read");
    let sent_at: Timestamp = NOW.max(event.event_time).timestamp();
    let taken = check_request(&body, sent_at, |_| false);
    let taken = taken.unwrap_or_else(|refused| panic!("Meta refuses {body}: {refused:?}"));
    let leads: BTreeMap<LeadId, UnixSeconds> = [(event.lead_id, created_time)].into();
    assert_eq!(not_counted(&taken[0], &leads), [""; 0], "Meta does not count {body}");
}

/// A stored record: what can be read is written again as something that reads the same.
pub fn record(bytes: &[u8]) {
    read_as_every_kind(bytes);
}

/// A status, three lines of headers and a body: only a plain success is taken for one.
pub fn answer(input: &[u8]) {
    let (status, rest) = split_line(input);
    let (retry_after, rest) = split_line(rest);
    let (business, rest) = split_line(rest);
    let (account, body) = split_line(rest);
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let status = text(status).and_then(|status| status.parse().ok()).unwrap_or(200);
    let mut answer = read_answer(status, body);
    answer.wait_s = wait_s(|name| match name {
        "retry-after" => text(retry_after),
        "x-business-use-case-usage" => text(business),
        "x-ad-account-usage" => text(account),
        _ => None,
    });
    let blamed = answer.error.as_ref().map(|error| error.blamed().len()).unwrap_or_default();
    assert!(blamed <= body.len());
    let faultless = status == 200 && answer.error.is_none() && answer.events_received == Some(2);
    let delivered = judge(&Ok(answer), 2) == Verdict::Delivered;
    assert_eq!(delivered, faultless, "{status}: {}", String::from_utf8_lossy(body));
}

/// The first line without its end, and what follows.
fn split_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};
    use std::path::Path;

    /// Mutations of each seed; `LEADLOOP_MUTATIONS` sets another number.
    const MUTATIONS: u64 = 300;
    /// Most changes to a seed before it is tried.
    const CHANGES_MAX: usize = 6;
    /// What readers may stumble over.
    const TOKENS: [&[u8]; 16] = [
        b"null",
        b"0",
        b"-1",
        b"1e99",
        b"18446744073709551616",
        b"\"\"",
        b"[",
        b"{}",
        b"}",
        b",",
        b"\\ud800",
        b"\\u0000",
        b"\xff",
        b"\n",
        b"sha256=",
        b"2025-11-01T12:26:40Z",
    ];

    /// The seeds of a target, by the names of their files.
    fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        let mut seeds: Vec<(String, Vec<u8>)> =
            files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
        seeds.sort();
        assert!(seeds.len() >= 3, "{}", folder.display());
        seeds
    }

    /// Changes bytes somewhere: overwritten, left out, said twice, or replaced by a token.
    fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
        for _ in 0..random.random_range(1..=CHANGES_MAX) {
            let from = random.random_range(0..=bytes.len());
            let to = bytes.len().min(from + random.random_range(0..16));
            match random.random_range(0..4) {
                0 => random.fill_bytes(&mut bytes[from..to]),
                1 => drop(bytes.drain(from..to)),
                2 => bytes.extend_from_within(from..to),
                _ => {
                    let token = TOKENS[random.random_range(0..TOKENS.len())];
                    bytes.splice(from..to, token.iter().copied());
                }
            }
        }
    }

    #[test]
    fn the_seeds_and_what_comes_of_changing_them_keep_every_promise() {
        let mutations = std::env::var_os("LEADLOOP_MUTATIONS");
        let mutations =
            mutations.map_or(MUTATIONS, |number| number.to_str().unwrap().parse().unwrap());
        for (name, target) in TARGETS {
            for (file, seed) in seeds(name) {
                target(&seed);
                for number in 0..mutations {
                    let mut random = StdRng::seed_from_u64(number);
                    let mut input = seed.clone();
                    mutate(&mut input, &mut random);
                    let run = std::panic::catch_unwind(|| target(&input));
                    assert!(run.is_ok(), "{file}, mutation {number}: {}", input.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn the_seeds_reach_what_they_are_for() {
        let leads = seeds("webhook").iter().map(|(_, seed)| read_webhook(seed).leads.len()).sum();
        assert!((5..).contains::<usize>(&leads), "{leads} leads");
        let updates = seeds("stage_update").into_iter().filter(|(_, seed)| {
            let body = serde_json::from_slice::<StageUpdateBody>(seed);
            body.is_ok_and(|body| read_update(body, &CONFIG, NOW.timestamp()).is_ok())
        });
        assert!(updates.count() >= 3);
        let mapped = seeds("hook").into_iter().filter(|(_, seed)| {
            let json = read(Form::Json, seed).or_else(|_| read(Form::Xml, seed));
            json.is_ok_and(|payload| {
                MAPPINGS.iter().any(|mapping| {
                    let records = mapping.records(&payload).unwrap_or_default();
                    let mut read = records.iter().map(|record| mapping.read(record, None).outcome);
                    read.any(|outcome| matches!(outcome, Outcome::Update(_)))
                })
            })
        });
        assert!(mapped.count() >= 10);
        let right = sign(&"secret".into(), b"{}") + "\n{}";
        assert!(seeds("signature").iter().any(|(_, seed)| seed == right.as_bytes()));
    }

    #[test]
    fn each_target_has_a_program_that_fuzzes_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            let path = format!("fuzz_targets/{name}.rs");
            assert!(manifest.contains(&format!("path = \"{path}\"")), "{path}");
            let program = std::fs::read_to_string(folder.join(&path)).unwrap();
            assert!(program.contains(&format!("leadloop::fuzz::{name}(input)")), "{path}");
        }
    }

    // ---- Controls: the promises can be broken -------------------------------------------------

    fn body() -> Vec<u8> {
        let (_, seed) =
            seeds("webhook").into_iter().find(|(file, _)| file.ends_with("page")).unwrap();
        seed
    }

    #[test]
    #[should_panic(expected = "a change is lost")]
    fn a_lost_change_is_noticed() {
        let body = body();
        let mut content = read_webhook(&body);
        content.leads.pop().unwrap();
        check_count(&body, &content);
    }

    #[test]
    #[should_panic(expected = "Meta does not count")]
    fn an_event_at_the_creation_of_its_lead_is_noticed() {
        let reported = read_webhook(&body()).leads.remove(0);
        let created_time = reported.created_time;
        let stage = StageName::parse("initial_lead").unwrap();
        let lead = Lead::new(reported, SourceName::webhook(), None, stage, NOW.timestamp());
        let event = Event { event_time: created_time, ..lead.raw_event().unwrap() };
        meta_counts(&event, created_time);
    }
}
