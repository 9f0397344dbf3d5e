//! `leadloop trigger`: one signed sample webhook to any address.

use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::{SANDBOX_APP_SECRET, layers};
use crate::client::http_client;
use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::domain::ids::{FormId, LeadId, PageId};
use crate::domain::time::UnixSeconds;
use crate::sandbox::trigger::{SAMPLE_AGE_S, SampleLead, deliver, sample_lead_id, webhook_body};

/// Options of `trigger`.
///
/// The signature is made with `META_APP_SECRET`, or with the stand-in's secret if that is not set.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to send it
    #[arg(long, default_value = "http://127.0.0.1:8080/webhooks/meta", value_name = "URL")]
    url: String,
    /// Id of the lead; a new one by default
    #[arg(long, value_parser = LeadId::parse, value_name = "ID")]
    lead_id: Option<LeadId>,
    /// Id of the Page
    #[arg(long, default_value = "1000000001", value_parser = PageId::parse, value_name = "ID")]
    page_id: PageId,
    /// Id of the form
    #[arg(long, default_value = "1000000002", value_parser = FormId::parse, value_name = "ID")]
    form_id: FormId,
    /// When the lead was created, in Unix seconds; two seconds ago by default
    #[arg(long, value_name = "SECONDS")]
    created_time: Option<i64>,
    /// How many leads to send in one webhook, 1 to 1000
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000),
        value_name = "NUMBER"
    )]
    leads: u16,
}

/// Sends it, and prints the ids of the leads when the webhook has answered 200.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let mut layers = layers(global)?;
    layers.default_to("META_APP_SECRET", SANDBOX_APP_SECRET);
    let secrets = layers.get("META_APP_SECRET").unwrap_or_default();
    let app_secret = secrets.split(',').next().unwrap_or_default().trim().into();
    let now = SystemClock.now().seconds();
    let created_time = args.created_time.map_or(now + -SAMPLE_AGE_S, UnixSeconds::new);
    let sample = |lead_id| SampleLead {
        lead_id,
        page_id: args.page_id,
        form_id: args.form_id,
        created_time,
    };
    let more = usize::from(args.leads) - usize::from(args.lead_id.is_some());
    let new = (0..more).map(|_| sample_lead_id(SystemRandom.next_u64()));
    let leads: Vec<SampleLead> = args.lead_id.into_iter().chain(new).map(sample).collect();
    let client = http_client(&args.url)?;
    let status = deliver(&client, &args.url, &app_secret, webhook_body(&leads)).await?;
    if status != 200 {
        let hint = if status == 401 { ": META_APP_SECRET is not the server's" } else { "" };
        return Err(Failure::new(Exit::Failure, format!("the webhook answered {status}{hint}")));
    }
    let ids: Vec<String> = leads.iter().map(|lead| lead.lead_id.to_string()).collect();
    print(&format!("{}\n", ids.join("\n")))
}
