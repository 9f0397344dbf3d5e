//! Environment over `.env` over file over defaults, without a judgement on the values.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use crate::config::hooks::AuthTable;
use crate::config::{ConfigError, DEFAULT_FILE};
use crate::mapping::spec::MappingSpec;

/// A setting that is one value, with its name in the environment and its key in the file.
///
/// The file's key is the environment's name in lower case, without `leadloop_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name in the environment.
    pub env: &'static str,
    /// Whether it may be read from a file that `…_FILE` names, and is never shown.
    pub secret: bool,
}

/// Every setting that is one value.
pub const SETTINGS: [Setting; 23] = [
    Setting { env: "META_APP_SECRET", secret: true },
    Setting { env: "META_VERIFY_TOKEN", secret: true },
    Setting { env: "META_DATASET_ID", secret: false },
    Setting { env: "META_ACCESS_TOKEN", secret: true },
    Setting { env: "META_PAGE_ACCESS_TOKEN", secret: true },
    Setting { env: "CRM_NAME", secret: false },
    Setting { env: "META_API_VERSION", secret: false },
    Setting { env: "META_GRAPH_URL", secret: false },
    Setting { env: "META_TEST_EVENT_CODE", secret: false },
    Setting { env: "META_PARTNER_AGENT", secret: false },
    Setting { env: "LEADLOOP_RAW_STAGE", secret: false },
    Setting { env: "LEADLOOP_FUNNEL", secret: false },
    Setting { env: "LEADLOOP_FILL_SKIPPED", secret: false },
    Setting { env: "LEADLOOP_LISTEN", secret: false },
    Setting { env: "LEADLOOP_STORE", secret: true },
    Setting { env: "LEADLOOP_API_KEY", secret: true },
    Setting { env: "LEADLOOP_RETENTION_DAYS", secret: false },
    Setting { env: "LEADLOOP_READ_LEADS", secret: false },
    Setting { env: "LEADLOOP_BACKFILL_EVERY_S", secret: false },
    // Whoever has the address of a receiver may often write to it.
    Setting { env: "LEADLOOP_ALARM_URL", secret: true },
    Setting { env: "LEADLOOP_ALARM_SECRET", secret: true },
    Setting { env: "LEADLOOP_ALARM_KINDS", secret: false },
    Setting { env: "LEADLOOP_WEBHOOK_SILENCE_S", secret: false },
];

impl Setting {
    /// Key in the file.
    pub fn key(&self) -> String {
        self.env.trim_start_matches("LEADLOOP_").to_lowercase()
    }
}

/// All settings as they were written, and nothing about what they mean.
#[derive(Clone, Default)]
pub struct Layers {
    defaults: BTreeMap<&'static str, String>,
    values: BTreeMap<&'static str, String>,
    /// The tables of the file.
    pub tables: Tables,
}

/// The parts of the file that are lists.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    /// `[[datasets]]`
    pub datasets: Vec<DatasetTable>,
    /// `[[pages]]`
    pub pages: Vec<PageTable>,
    /// `[[sources]]`
    pub sources: Vec<SourceTable>,
    /// `[[api_keys]]`
    pub api_keys: Vec<ApiKeyTable>,
}

/// One of `[[datasets]]`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetTable {
    /// The dataset's id.
    pub id: String,
    /// Its token.
    pub access_token: Option<String>,
    /// File with its token.
    pub access_token_file: Option<String>,
    /// Name of the CRM.
    pub crm_name: Option<String>,
    /// Name of the raw-lead stage.
    pub raw_stage: Option<String>,
    /// Name of the partner.
    pub partner_agent: Option<String>,
    /// Code for *Test events*.
    pub test_event_code: Option<String>,
    /// The stages in order.
    pub funnel: Option<Vec<String>>,
    /// Whether skipped stages are filled in.
    pub fill_skipped: Option<bool>,
}

/// One of `[[pages]]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageTable {
    /// The Page's id.
    pub id: String,
    /// The dataset that its events go to.
    pub dataset: String,
    /// The token to read its leads with.
    pub access_token: Option<String>,
    /// File with that token.
    pub access_token_file: Option<String>,
}

/// One of `[[sources]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// The source's name.
    pub name: String,
    /// How far its clock may be off, in seconds.
    #[serde(default)]
    pub clock_tolerance_s: u32,
    /// Name of its time zone.
    pub time_zone: Option<String>,
    /// Country of its phone numbers, two letters.
    pub default_country: Option<String>,
    /// Whether unknown leads are refused.
    #[serde(default)]
    pub strict: bool,
    /// What is done when several leads fit: `newest` or `refuse`.
    pub ambiguous: Option<String>,
    /// What is done when no lead fits: `await` or `send`.
    pub unmatched: Option<String>,
    /// Where reports go whose lead is not known.
    pub dataset: Option<String>,
    /// Name of the mapping that its webhooks are read by.
    pub preset: Option<String>,
    /// What is mapped otherwise.
    pub mapping: Option<MappingSpec>,
    /// How its webhooks are let in.
    pub auth: Option<AuthTable>,
}

/// One of `[[api_keys]]`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyTable {
    /// The key's name.
    pub name: String,
    /// The key.
    pub key: Option<String>,
    /// File with the key.
    pub key_file: Option<String>,
    /// SHA-256 of the key in hex.
    pub key_sha256: Option<String>,
    /// Names of scopes.
    pub scopes: Vec<String>,
}

impl std::fmt::Debug for Layers {
    /// Names the settings that have a value, and shows none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").field("set", &self.values.keys()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DatasetTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatasetTable").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PageTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageTable").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ApiKeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeyTable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads a file that a setting points to; a parameter, so that tests need no files.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> std::io::Result<String>;

impl Layers {
    /// Puts the layers together. `environment` already has `.env` below it.
    ///
    /// # Errors
    /// An unknown key, a file that can't be read, or a setting given twice on one layer.
    pub fn read(
        environment: &BTreeMap<String, String>,
        file: Option<&str>,
        read_file: ReadFile<'_>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        layers.add_file(DEFAULT_FILE, read_file)?;
        layers.defaults = std::mem::take(&mut layers.values);
        if let Some(file) = file {
            layers.add_file(file, read_file)?;
        }
        for setting in SETTINGS {
            // A variable that is set to nothing is one that is not set.
            let value = |name: &str| environment.get(name).filter(|value| !value.is_empty());
            let names = (setting.env.to_owned(), format!("{}_FILE", setting.env));
            layers.add(setting, &names, (value(&names.0), value(&names.1)), read_file)?;
        }
        layers.tables.resolve_files(read_file)?;
        Ok(layers)
    }

    /// The value of a setting.
    pub fn get(&self, env: &str) -> Option<&str> {
        self.values.get(env).or_else(|| self.defaults.get(env)).map(String::as_str)
    }

    /// Gives a setting another default.
    pub fn default_to(&mut self, env: &'static str, value: impl Into<String>) {
        self.defaults.insert(env, value.into());
    }

    /// Gives a setting a value whatever it had.
    pub fn set(&mut self, env: &'static str, value: impl Into<String>) {
        self.values.insert(env, value.into());
    }

    fn add(
        &mut self,
        setting: Setting,
        names: &(String, String),
        (value, path): (Option<&String>, Option<&String>),
        read_file: ReadFile<'_>,
    ) -> Result<(), ConfigError> {
        let value = match (value, path) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new(&names.0, format!("is set, and {} too", names.1)));
            }
            (Some(value), None) => value.clone(),
            (None, Some(path)) if setting.secret => read_secret(&names.1, path, read_file)?,
            (None, Some(_)) => {
                return Err(ConfigError::new(&names.1, "only secrets are read from files"));
            }
            (None, None) => return Ok(()),
        };
        self.values.insert(setting.env, value);
        Ok(())
    }

    fn add_file(&mut self, text: &str, read_file: ReadFile<'_>) -> Result<(), ConfigError> {
        // The parser's error quotes the line, which may hold a secret: only its place is told.
        let mut table: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            ConfigError::new("leadloop.toml", format!("line {line}: {}", error.message()))
        })?;
        for setting in SETTINGS {
            let names = (setting.key(), format!("{}_file", setting.key()));
            let mut take = |name: &str| match table.remove(name) {
                None => Ok(None),
                Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
                Some(Value::Integer(number)) => Ok(Some(number.to_string())),
                Some(Value::Boolean(is_so)) => Ok(Some(is_so.to_string())),
                Some(_) => Err(ConfigError::new(name, "must be a text, an integer, true or false")),
            };
            let (value, path) = (take(&names.0)?, take(&names.1)?);
            self.add(setting, &names, (value.as_ref(), path.as_ref()), read_file)?;
        }
        let unknown =
            |key: &&String| !matches!(key.as_str(), "datasets" | "pages" | "sources" | "api_keys");
        if let Some(key) = table.keys().find(unknown) {
            return Err(ConfigError::new(key, "is no setting; see `leadloop config --default`"));
        }
        self.tables = Value::Table(table).try_into().map_err(|error: toml::de::Error| {
            ConfigError::new("leadloop.toml", error.message().to_owned())
        })?;
        Ok(())
    }
}

impl Tables {
    fn resolve_files(&mut self, read_file: ReadFile<'_>) -> Result<(), ConfigError> {
        for dataset in &mut self.datasets {
            let name = format!("access_token of dataset {}", dataset.id);
            resolve(
                &name,
                &mut dataset.access_token,
                dataset.access_token_file.as_ref(),
                read_file,
            )?;
        }
        for source in &mut self.sources {
            if let Some(auth) = &mut source.auth {
                let name = format!("auth.secret of source {}", source.name);
                resolve(&name, &mut auth.secret, auth.secret_file.as_ref(), read_file)?;
            }
        }
        for page in &mut self.pages {
            let name = format!("access_token of page {}", page.id);
            resolve(&name, &mut page.access_token, page.access_token_file.as_ref(), read_file)?;
        }
        for key in &mut self.api_keys {
            let name = format!("key of API key {}", key.name);
            resolve(&name, &mut key.key, key.key_file.as_ref(), read_file)?;
        }
        Ok(())
    }
}

fn resolve(
    name: &str,
    value: &mut Option<String>,
    path: Option<&String>,
    read_file: ReadFile<'_>,
) -> Result<(), ConfigError> {
    match (&value, path) {
        (Some(_), Some(_)) => Err(ConfigError::new(name, "is set twice, directly and as a file")),
        (None, Some(path)) => {
            *value = Some(read_secret(name, path, read_file)?);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn read_secret(name: &str, path: &str, read_file: ReadFile<'_>) -> Result<String, ConfigError> {
    let text = read_file(path)
        .map_err(|error| ConfigError::new(name, format!("{path} cannot be read: {error}")))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(ConfigError::new(name, format!("{path} is empty")));
    }
    Ok(text.to_owned())
}
