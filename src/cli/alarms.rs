//! `leadloop alarms`: what waits for the receiver of alarms, and whether it can be reached.

use clap::ValueEnum;
use reqwest::Method;

use crate::alarm::message::Message;
use crate::alarm::post::{Post, Posted};
use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::clock::{Clock, SystemClock, SystemRandom};
use crate::config::AlarmSettings;
use crate::limits::ALARM_TIMEOUT;

/// Options of `alarms`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to do instead of listing
    action: Option<Action>,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// Send a test message to the configured receiver
    Test,
}

/// Prints the server's answer as JSON, or what the receiver said of a test message.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    match args.action {
        None => args.server.print(global, Method::GET, "/v1/alarms", &[]).await,
        Some(Action::Test) => test(global).await,
    }
}

async fn test(global: &Global) -> Result<(), Failure> {
    let settings = AlarmSettings::from_layers(&layers(global)?)?;
    let receiver = settings.receiver.ok_or_else(|| {
        Failure::new(Exit::Config, "LEADLOOP_ALARM_URL: is missing: who is told of alarms")
    })?;
    let now = SystemClock.now();
    let message = Message::test(&SystemRandom, now).map_err(anyhow::Error::from)?;
    let origin = receiver.origin();
    match Post::new(&receiver, ALARM_TIMEOUT)?.post(&message, now).await {
        Posted::Taken => print(&format!("{origin} took the test message {}\n", message.id)),
        Posted::Refused(status) => {
            Err(Failure::new(Exit::Failure, format!("{origin} answered {status}")))
        }
        Posted::NoAnswer(why) => Err(Failure::new(Exit::Unavailable, format!("{origin}: {why}"))),
    }
}
