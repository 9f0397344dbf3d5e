//! Webhooks as Meta would send them, signed.

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::domain::ids::{FormId, LeadId, PageId};
use crate::domain::time::UnixSeconds;
use crate::meta::signature::{SIGNATURE_HEADER, sign};

/// A lead to tell of.
#[derive(Clone, Copy, Debug)]
pub struct SampleLead {
    /// Its id.
    pub lead_id: LeadId,
    /// Its Page.
    pub page_id: PageId,
    /// Its form.
    pub form_id: FormId,
    /// When it was created.
    pub created_time: UnixSeconds,
}

/// How old a sample lead is, in seconds: a real webhook takes about as long to arrive.
pub const SAMPLE_AGE_S: i64 = 2;

/// A lead id of 16 digits made from a random number.
pub fn sample_lead_id(random: u64) -> LeadId {
    let number = 1_000_000_000_000_000 + random % 9_000_000_000_000_000;
    LeadId::from_u64(number).unwrap_or(LeadId::TEST)
}

/// The body of a delivery that tells of these leads, ids as strings as Meta writes them.
pub fn webhook_body(leads: &[SampleLead]) -> String {
    let entry = |lead: &SampleLead| -> Value {
        json!({"id": lead.page_id.to_string(), "time": lead.created_time.get(), "changes": [{
            "field": "leadgen",
            "value": {
                "leadgen_id": lead.lead_id.to_string(),
                "page_id": lead.page_id.to_string(),
                "form_id": lead.form_id.to_string(),
                "created_time": lead.created_time.get(),
            },
        }]})
    };
    let entries: Vec<Value> = leads.iter().map(entry).collect();
    json!({"object": "page", "entry": entries}).to_string()
}

/// Sends a body, signed, and answers with the status.
///
/// # Errors
/// If there was no answer.
pub async fn deliver(
    client: &reqwest::Client,
    address: &str,
    app_secret: &SecretString,
    body: String,
) -> Result<u16, reqwest::Error> {
    let request = client
        .post(address)
        .header("content-type", "application/json")
        .header(SIGNATURE_HEADER, sign(app_secret, body.as_bytes()))
        .body(body);
    Ok(request.send().await?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::webhook::read_webhook;

    #[test]
    fn what_is_sent_is_what_the_door_reads() {
        let lead = SampleLead {
            lead_id: sample_lead_id(u64::MAX),
            page_id: PageId::from_u64(300).unwrap(),
            form_id: FormId::from_u64(17).unwrap(),
            created_time: UnixSeconds::new(1_762_000_000),
        };
        let content = read_webhook(webhook_body(&[lead, lead]).as_bytes());
        assert_eq!(content.leads.len(), 2);
        assert_eq!(content.leads[0].lead_id, lead.lead_id);
        assert_eq!(content.leads[0].page_id, Some(lead.page_id));
        assert!(!content.leads[0].test);
    }

    #[test]
    fn sample_ids_have_sixteen_digits() {
        for random in [0, 1, 8_999_999_999_999_999, u64::MAX] {
            assert_eq!(sample_lead_id(random).to_string().len(), 16);
        }
    }
}
