//! `leadloop mapping`: what a CRM's payload is understood as, without a server; and what a server
//! keeps that no mapping fits.

use std::fmt::Write as _;
use std::io::Read;
use std::path::PathBuf;

use clap::Subcommand;
use jiff::tz::TimeZone;
use reqwest::Method;
use serde_json::{Map, Value};

use crate::cli::Global;
use crate::cli::api::{Paging, Server};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::clock::{Clock, SystemClock};
use crate::config::hooks::merged;
use crate::config::{Config, Layers};
use crate::domain::customer::LeftOut;
use crate::domain::stage::SourceName;
use crate::http::stage_body::read_update;
use crate::limits::HOOK_BODY_BYTES_MAX;
use crate::mapping::payload::{Form, read};
use crate::mapping::spec::{MappingSpec, OtherStages};
use crate::mapping::{Mapping, Outcome, Reading};

/// Options of `mapping`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show field by field how a payload would be understood; nothing is sent
    ///
    /// For each record of the payload: each field with the path that gave it, the stage update
    /// that it comes to, or why it comes to none. What is about a person is shown as
    /// `(hashed)`. No server is asked, so whether the lead is known, and its time good, is not
    /// said. A preset alone has no table of stages; then the stage is shown as the CRM calls
    /// it. The exit code is 1 if a record can't be mapped.
    Test {
        #[command(flatten)]
        which: Which,
        /// What the CRM calls the payload, where its look says nothing
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
        /// The payload as the CRM sends it: JSON, a form (`name=value&…`) or XML; `-` for stdin
        #[arg(value_name = "FILE")]
        payload: PathBuf,
    },
    /// Print the mapping in force, preset and own settings together
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// List what the server got and no mapping fits
    ///
    /// Field, path and time of each, without the payload. It is kept for seven days. The answer of
    /// the server is printed as JSON. The API key is taken from `LEADLOOP_API_KEY` of the settings,
    /// and has to be one for `admin`.
    Unmapped {
        #[command(flatten)]
        paging: Paging,
        #[command(flatten)]
        server: Server,
    },
    /// Let the server drop something that it kept and that is not to be replayed, for good
    Drop {
        /// Its `id` in the list
        id: u64,
        /// Confirm that it is to be dropped
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Let the server map what it kept of a source again
    ///
    /// Mend the mapping and restart the server first. What can be mapped now is taken in and not
    /// kept any more; without a time of its own it is of when it came. The answer of the server is
    /// printed as JSON.
    Replay {
        /// The source
        #[arg(long, value_name = "NAME")]
        source: String,
        #[command(flatten)]
        server: Server,
    },
}

/// Which mapping.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The mapping of this source of the settings
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// A mapping that leadloop knows, without anything of the settings
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
}

/// Said of a stage that no table could be asked for.
const NO_STAGES: &str = "     the stage is as the CRM calls it: no table of stages is configured, \
                         which a source needs\n";

/// A mapping with what is needed to judge its results.
struct Chosen {
    spec: MappingSpec,
    source: SourceName,
    zone: Option<TimeZone>,
    config: Config,
}

/// Prints how a payload is understood, a mapping, or the server's answer.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Show { which } => {
            let spec = choose(global, &which)?.spec;
            print(&toml::to_string(&spec).map_err(|error| failure(&error))?)
        }
        Action::Test { which, content_type, payload } => {
            let content_type = content_type.map(|name| name.to_lowercase());
            test(choose(global, &which)?, content_type.as_deref(), &payload)
        }
        Action::Unmapped { paging, server } => {
            server.print(global, Method::GET, "/v1/hooks/unmapped", &paging.query()).await
        }
        Action::Drop { id, server, .. } => {
            let path = format!("/v1/hooks/unmapped/{id}");
            server.print(global, Method::DELETE, &path, &[]).await
        }
        Action::Replay { source, server } => {
            let source: String = form_urlencoded::byte_serialize(source.as_bytes()).collect();
            // A blank is a plus in a form, and not in a path.
            let path = format!("/v1/hooks/{}/replay", source.replace('+', "%20"));
            server.print(global, Method::POST, &path, &[]).await
        }
    }
}

fn choose(global: &Global, which: &Which) -> Result<Chosen, Failure> {
    let mut layers = match which.source {
        Some(_) => layers(global)?,
        None => Layers::read(&std::collections::BTreeMap::new(), None, &|_| Ok(String::new()))?,
    };
    let name = which.source.as_deref().or(which.preset.as_deref()).unwrap_or_default();
    let source = SourceName::parse(name).map_err(|error| failure(&error))?;
    let spec = if let Some(preset) = &which.preset {
        merged(Some(preset), None)
    } else {
        let table = layers.tables.sources.iter().find(|table| table.name == source.as_str());
        let table = table.ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no source {source} is configured"))
        })?;
        merged(table.preset.as_deref(), table.mapping.as_ref())
    };
    // What has nothing to do with mappings may be missing.
    for name in ["META_APP_SECRET", "META_VERIFY_TOKEN", "META_ACCESS_TOKEN"] {
        layers.default_to(name, "not-needed");
    }
    layers.default_to("META_DATASET_ID", "1");
    let config = Config::from_layers(&layers)?;
    let zone = config.source(&source).time_zone;
    let spec = spec.map_err(|problem| Failure::new(Exit::Config, problem))?;
    Ok(Chosen { spec, source, zone, config })
}

fn test(mut chosen: Chosen, content_type: Option<&str>, path: &PathBuf) -> Result<(), Failure> {
    let spec = &mut chosen.spec;
    // A preset can't know an account's stages; a source without them would not start.
    let has_no_stages = spec.stages.is_none() && spec.other_stages.is_none();
    if has_no_stages {
        spec.other_stages = Some(OtherStages::Keep);
    }
    let mapping = Mapping::new(&chosen.spec)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    let payload = payload(path)?;
    let form = Form::of(content_type, &payload);
    let payload = read(form, &payload).map_err(|error| failure(&error))?;
    let records = mapping.records(&payload).map_err(|error| failure(&error))?;
    let (mut text, mut unmappable) = (String::new(), 0);
    for (n, record) in records.iter().enumerate() {
        let reading = mapping.read(record, chosen.zone.as_ref());
        let _ = writeln!(text, "record {} of {}", n + 1, records.len());
        text.push_str(&fields(&mapping, &reading));
        let is_update = matches!(reading.outcome, Outcome::Update(_));
        match outcome(&chosen, reading) {
            Ok(words) => text.push_str(&words),
            Err(words) => {
                unmappable += 1;
                text.push_str(&words);
            }
        }
        if has_no_stages && is_update {
            text.push_str(NO_STAGES);
        }
    }
    if records.is_empty() {
        text.push_str("no record: what is there is an empty list\n");
    }
    print(&text)?;
    if unmappable > 0 {
        return Err(failure(&format!("{unmappable} of {} records can't be mapped", records.len())));
    }
    Ok(())
}

fn payload(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    let result = if path.as_os_str() == "-" {
        std::io::stdin().take(HOOK_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut payload)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(HOOK_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut payload))
    };
    result.map_err(|error| failure(&format!("{}: {error}", path.display())))?;
    if payload.len() > HOOK_BODY_BYTES_MAX {
        return Err(failure(&format!("a payload has at most {HOOK_BODY_BYTES_MAX} bytes")));
    }
    Ok(payload)
}

/// A line for each field: where it was found, and what.
fn fields(mapping: &Mapping, reading: &Reading) -> String {
    let mut text = String::new();
    let is_update = matches!(reading.outcome, Outcome::Update(_));
    for (name, places) in mapping.fields() {
        let _ = match reading.found.iter().find(|found| found.field == name) {
            Some(found) if is_personal(&name) => {
                writeln!(text, "  {name:<20} (hashed)  from {}", found.path)
            }
            Some(found) => writeln!(text, "  {name:<20} {}  from {}", found.value, found.path),
            // After something that can't be mapped, the rest was not looked for.
            None if !is_update => Ok(()),
            None => writeln!(text, "  {name:<20} -  not at {places}"),
        };
    }
    text
}

fn is_personal(field: &str) -> bool {
    field.starts_with("customer.")
}

/// What becomes of a record, in words; an error if it can't be mapped.
fn outcome(chosen: &Chosen, reading: Reading) -> Result<String, String> {
    let mut update = match reading.outcome {
        Outcome::NotAStageChange(path) => {
            return Ok(format!("  => not a change of a stage, by {path}\n"));
        }
        Outcome::Unmappable(error) => return Err(format!("  => can't be mapped: {error}\n")),
        Outcome::Update(update) => update,
    };
    update.insert("source".into(), chosen.source.as_str().into());
    let shown = Value::Object(without_persons(&update));
    let body = serde_json::from_value(Value::Object(update)).map_err(|error| error.to_string());
    let judged = body.and_then(|body| {
        read_update(body, &chosen.config, SystemClock.now())
            .map_err(|error| error.to_json()["detail"].as_str().unwrap_or_default().to_owned())
    });
    match judged {
        Ok(read) => {
            let mut text = format!("  => {shown}\n");
            for LeftOut { parameter, reason } in read.left_out {
                let (name, why) = (parameter.name(), reason.name());
                let _ = writeln!(text, "     customer.{name} would be left out: {why}");
            }
            if let Some(left_out) = reading.left_out {
                let _ = writeln!(
                    text,
                    "     {} would be left out: {}",
                    left_out.field, left_out.reason
                );
            }
            Ok(text)
        }
        Err(why) => Err(format!("  => {shown}\n     would be refused: {why}\n")),
    }
}

fn without_persons(update: &Map<String, Value>) -> Map<String, Value> {
    let mut shown = update.clone();
    if let Some(Value::Object(customer)) = shown.get_mut("customer") {
        customer.values_mut().for_each(|value| *value = "(hashed)".into());
    }
    shown
}

fn failure(error: &impl ToString) -> Failure {
    Failure::new(Exit::Failure, error.to_string())
}
