//! Settings: typed, checked, with their secrets wrapped.
//!
//! [`layers`] puts environment, `.env`, file and defaults on top of each other; `check` turns the
//! result into a [`Config`] or names the setting that is missing or contradicts another. A
//! [`Config`] is complete: nothing later asks whether a setting is there. Reading the environment
//! and finding files is left to the command line.

pub mod alarms;
mod check;
pub mod hooks;
pub mod layers;
pub mod reading;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use secrecy::SecretString;

use crate::config::hooks::Hook;
use crate::domain::customer::Country;
use crate::domain::event::SourcePolicy;
use crate::domain::funnel::Funnel;
use crate::domain::ids::DatasetId;
use crate::domain::routing::Routing;
use crate::domain::stage::{SourceName, StageName};

pub use crate::config::alarms::AlarmSettings;
pub use crate::config::layers::Layers;
pub use crate::config::reading::{PageToken, ReadingSettings};
pub use crate::config::store::StoreAddress;

/// The file that documents every setting is where the defaults come from.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// Why the program can't start with these settings; one sentence that names the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    /// The setting, as the environment or the file calls it.
    pub setting: String,
    /// What is wrong with it and what it should be.
    pub problem: String,
}

impl ConfigError {
    /// An error about a setting.
    pub fn new(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into() }
    }
}

/// All settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the store is.
    pub store: StoreAddress,
    /// The secrets that webhooks may be signed with.
    pub app_secrets: Vec<SecretString>,
    /// What Meta has to say in the handshake.
    pub verify_token: SecretString,
    /// Address and version of the Graph API, such as `https://graph.facebook.com/v24.0`.
    pub graph_base: String,
    /// The datasets that events may go to.
    pub datasets: BTreeMap<DatasetId, Dataset>,
    /// Which of them a Page's events go to.
    pub routing: Routing,
    /// Name of the raw-lead stage where no dataset says otherwise.
    pub raw_stage: StageName,
    /// The CRMs that are configured by name.
    pub sources: BTreeMap<SourceName, Source>,
    /// The keys of the API.
    pub api_keys: Vec<ApiKey>,
    /// For how many days a lead is kept of which nothing more is heard; `None` for ever.
    pub retention_days: Option<u32>,
    /// Who is told of alarms, and of which.
    pub alarms: AlarmSettings,
    /// How leads are read from the Graph API.
    pub reading: ReadingSettings,
}

impl Config {
    /// Name of the raw-lead stage for leads of a dataset, or of none yet.
    pub fn raw_stage_for(&self, dataset_id: Option<DatasetId>) -> &StageName {
        let dataset = dataset_id.and_then(|id| self.datasets.get(&id));
        dataset.map_or(&self.raw_stage, |dataset| &dataset.raw_stage)
    }

    /// Settings of a source; the usual ones if it is not configured.
    pub fn source(&self, name: &SourceName) -> Source {
        self.sources.get(name).cloned().unwrap_or_default()
    }

    /// Whether events stay on this machine, where a stand-in for Meta takes them.
    pub fn sends_to_this_machine(&self) -> bool {
        reqwest::Url::parse(&self.graph_base).is_ok_and(|url| check::is_this_machine(&url))
    }

    /// Checks the layers and makes settings of them.
    ///
    /// # Errors
    /// The first setting that is missing, malformed or contradicts another.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        check::check(layers)
    }
}

/// A dataset that events are sent to.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its id.
    pub id: DatasetId,
    /// The token to send with.
    pub access_token: SecretString,
    /// Meta's `lead_event_source`.
    pub crm_name: String,
    /// Name of its raw-lead stage.
    pub raw_stage: StageName,
    /// Its stages in order, if they were told.
    pub funnel: Option<Funnel>,
    /// Meta's `partner_agent`.
    pub partner_agent: Option<String>,
    /// Meta's `test_event_code`; a warning wherever it is set.
    pub test_event_code: Option<String>,
}

/// A CRM that reports stages.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// How its reports are judged.
    pub policy: SourcePolicy,
    /// The zone of its times that come without an offset; without one they are refused.
    pub time_zone: Option<TimeZone>,
    /// The country of its phone numbers that do not name theirs; without one they are left out.
    pub default_country: Option<Country>,
    /// How its own webhooks are let in and read, if they are.
    pub hook: Option<Arc<Hook>>,
}

/// A key of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name, for logs.
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Look leads and events up.
    Read,
    /// Report stages.
    Write,
    /// Everything, re-queueing included.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// The scope's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl ApiKey {
    /// Whether the key may do what needs this scope.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}
