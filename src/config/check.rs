//! From settings as they were written to settings that can be worked with.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::config::alarms::AlarmSettings;
use crate::config::hooks::hook;
use crate::config::layers::{ApiKeyTable, DatasetTable, PageTable, SourceTable};
use crate::config::{
    ApiKey, Config, ConfigError, Dataset, Layers, ReadingSettings, Scope, Source, StoreAddress,
};
use crate::domain::customer::Country;
use crate::domain::event::SourcePolicy;
use crate::domain::funnel::Funnel;
use crate::domain::ids::{DatasetId, InvalidId, PageId};
use crate::domain::matching::Ambiguity;
use crate::domain::routing::Routing;
use crate::domain::stage::{SourceName, StageName};
use crate::limits::{CLOCK_TOLERANCE_S_MAX, RETENTION_DAYS};

/// See [`Config::from_layers`].
pub(super) fn check(layers: &Layers) -> Result<Config, ConfigError> {
    let app_secrets: Vec<_> = required(layers, "META_APP_SECRET", "the app's secret")?
        .split(',')
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .map(Into::into)
        .collect();
    if app_secrets.is_empty() {
        return Err(ConfigError::new("META_APP_SECRET", "holds no secret"));
    }
    let verify_token = required(layers, "META_VERIFY_TOKEN", "the webhook's verify token")?;
    let datasets = datasets(layers)?;
    if fill_skipped(layers)? && datasets.values().all(|dataset| dataset.funnel.is_none()) {
        return Err(ConfigError::new("LEADLOOP_FILL_SKIPPED", NO_FUNNEL));
    }
    Ok(Config {
        listen: parsed(layers, "LEADLOOP_LISTEN", "an address and port like 127.0.0.1:8080")?,
        store: StoreAddress::from_layers(layers)?,
        app_secrets,
        verify_token: verify_token.into(),
        graph_base: graph_base(layers)?,
        routing: routing(layers, &datasets)?,
        sources: sources(layers, &datasets)?,
        datasets,
        raw_stage: stage("LEADLOOP_RAW_STAGE", required(layers, "LEADLOOP_RAW_STAGE", "a name")?)?,
        api_keys: api_keys(layers)?,
        retention_days: retention_days(layers)?,
        alarms: AlarmSettings::from_layers(layers)?,
        reading: ReadingSettings::from_layers(layers)?,
    })
}

fn required<'a>(
    layers: &'a Layers,
    name: &'static str,
    what: &str,
) -> Result<&'a str, ConfigError> {
    layers.get(name).ok_or_else(|| ConfigError::new(name, format!("is missing: {what}")))
}

fn parsed<T: std::str::FromStr>(
    layers: &Layers,
    name: &'static str,
    what: &str,
) -> Result<T, ConfigError> {
    let wrong = |_| ConfigError::new(name, format!("must be {what}"));
    required(layers, name, what)?.parse().map_err(wrong)
}

fn stage(setting: &str, name: &str) -> Result<StageName, ConfigError> {
    StageName::parse(name).map_err(|error| ConfigError::new(setting, error.to_string()))
}

fn dataset_id(setting: &str, text: &str) -> Result<DatasetId, ConfigError> {
    DatasetId::parse(text).map_err(|error| ConfigError::new(setting, error.to_string()))
}

fn retention_days(layers: &Layers) -> Result<Option<u32>, ConfigError> {
    let Some(text) = layers.get("LEADLOOP_RETENTION_DAYS") else {
        return Ok(None);
    };
    match text.parse() {
        Ok(days) if RETENTION_DAYS.contains(&days) => Ok(Some(days)),
        _ => {
            let (from, to) = RETENTION_DAYS.into_inner();
            let problem = format!("must be a number of days from {from} to {to}");
            Err(ConfigError::new("LEADLOOP_RETENTION_DAYS", problem))
        }
    }
}

fn graph_base(layers: &Layers) -> Result<String, ConfigError> {
    let url = required(layers, "META_GRAPH_URL", "an https address")?.trim_end_matches('/');
    if !reqwest::Url::parse(url).is_ok_and(|url| is_private_way(&url)) {
        let problem = "must be an https address; plain http would show the token to everybody on \
                       the way, and is for this machine only";
        return Err(ConfigError::new("META_GRAPH_URL", problem));
    }
    let version = required(layers, "META_API_VERSION", "a version like v24.0")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = version.strip_prefix('v').and_then(|number| number.split_once('.'));
    if !parts.is_some_and(|(major, minor)| digits(major) && digits(minor)) {
        return Err(ConfigError::new("META_API_VERSION", "must look like v24.0"));
    }
    Ok(format!("{url}/{version}"))
}

/// Whether nobody on the way to an address can read along: it is https, or this machine.
pub(super) fn is_private_way(url: &reqwest::Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_this_machine(url))
}

/// Whether an address is on this machine.
pub(super) fn is_this_machine(url: &reqwest::Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn datasets(layers: &Layers) -> Result<BTreeMap<DatasetId, Dataset>, ConfigError> {
    let mut datasets = BTreeMap::new();
    if let Some(id) = layers.get("META_DATASET_ID") {
        let token = required(layers, "META_ACCESS_TOKEN", "the token of META_DATASET_ID")?;
        let table = DatasetTable {
            id: id.to_owned(),
            access_token: Some(token.to_owned()),
            ..Default::default()
        };
        let dataset = dataset(layers, &table, "META_DATASET_ID")?;
        datasets.insert(dataset.id, dataset);
    } else if layers.get("META_ACCESS_TOKEN").is_some() {
        let problem = "is missing, although META_ACCESS_TOKEN is set";
        return Err(ConfigError::new("META_DATASET_ID", problem));
    }
    for table in &layers.tables.datasets {
        let dataset = dataset(layers, table, "datasets")?;
        let id = dataset.id;
        if datasets.insert(id, dataset).is_some() {
            return Err(ConfigError::new(format!("dataset {id}"), "is configured twice"));
        }
    }
    if datasets.is_empty() {
        return Err(ConfigError::new("META_DATASET_ID", "is missing: where events are sent to"));
    }
    Ok(datasets)
}

fn dataset(layers: &Layers, table: &DatasetTable, setting: &str) -> Result<Dataset, ConfigError> {
    let id = dataset_id(setting, &table.id)?;
    let or_general = |own: &Option<String>, name: &str| {
        own.clone().or_else(|| layers.get(name).map(str::to_owned)).filter(|text| !text.is_empty())
    };
    let token = table.access_token.as_deref().unwrap_or_default();
    if !is_token(token) {
        let problem = "is missing, or has characters that no token has";
        return Err(ConfigError::new(format!("access token of dataset {id}"), problem));
    }
    let partner_agent = or_general(&table.partner_agent, "META_PARTNER_AGENT");
    if partner_agent.as_deref().is_some_and(|name| !is_partner_agent(name)) {
        let problem = "must have at most 22 characters, two of them letters";
        return Err(ConfigError::new("META_PARTNER_AGENT", problem));
    }
    let raw_stage = or_general(&table.raw_stage, "LEADLOOP_RAW_STAGE").unwrap_or_default();
    Ok(Dataset {
        id,
        access_token: token.into(),
        crm_name: or_general(&table.crm_name, "CRM_NAME")
            .ok_or_else(|| ConfigError::new("CRM_NAME", "is missing"))?,
        funnel: funnel(layers, table, &raw_stage)?,
        raw_stage: stage("raw_stage", &raw_stage)?,
        partner_agent,
        test_event_code: or_general(&table.test_event_code, "META_TEST_EVENT_CODE"),
    })
}

/// The funnel of a dataset, its own or the general one; the raw lead, which everybody reaches, is
/// left out.
fn funnel(
    layers: &Layers,
    table: &DatasetTable,
    raw_stage: &str,
) -> Result<Option<Funnel>, ConfigError> {
    let general = || {
        let names = layers.get("LEADLOOP_FUNNEL")?;
        Some(names.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let Some(names) = table.funnel.clone().or_else(general) else {
        return match table.fill_skipped {
            Some(true) => {
                let setting = format!("fill_skipped of dataset {}", table.id);
                Err(ConfigError::new(setting, NO_FUNNEL))
            }
            _ => Ok(None),
        };
    };
    let mut stages: Vec<StageName> = Vec::new();
    for name in names.iter().filter(|name| name.trim() != raw_stage) {
        let stage = stage("LEADLOOP_FUNNEL", name)?;
        if stages.contains(&stage) {
            return Err(ConfigError::new("LEADLOOP_FUNNEL", format!("names {stage} twice")));
        }
        stages.push(stage);
    }
    let fill_skipped = table.fill_skipped.map_or_else(|| fill_skipped(layers), Ok)?;
    Ok(Some(Funnel { stages, fill_skipped }))
}

/// Whether skipped stages are filled in where no dataset says otherwise.
fn fill_skipped(layers: &Layers) -> Result<bool, ConfigError> {
    match layers.get("LEADLOOP_FILL_SKIPPED") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ConfigError::new("LEADLOOP_FILL_SKIPPED", "is true or false")),
    }
}

/// Who wants skipped stages filled in would wait in vain.
const NO_FUNNEL: &str = "is true, but there is no funnel to tell what is skipped: set \
    LEADLOOP_FUNNEL, or funnel of the dataset";

/// Whether a text may be a token.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether Meta takes it as `partner_agent` (META 3.1).
fn is_partner_agent(name: &str) -> bool {
    name.chars().count() < 23 && name.chars().filter(|c| c.is_alphabetic()).count() >= 2
}

fn routing(
    layers: &Layers,
    datasets: &BTreeMap<DatasetId, Dataset>,
) -> Result<Routing, ConfigError> {
    let mut pages = BTreeMap::new();
    for table in &layers.tables.pages {
        let setting = format!("page {}", table.id);
        let page_id = page_id(table)?;
        let dataset = dataset_id(&setting, &table.dataset)?;
        if !datasets.contains_key(&dataset) {
            let problem = format!("goes to dataset {dataset}, which is not configured");
            return Err(ConfigError::new(setting, problem));
        }
        if pages.insert(page_id, dataset).is_some() {
            return Err(ConfigError::new(setting, "is configured twice"));
        }
    }
    let default = layers.get("META_DATASET_ID");
    let default = default.map(|id| dataset_id("META_DATASET_ID", id)).transpose()?;
    let funnels =
        datasets.values().filter_map(|dataset| Some((dataset.id, dataset.funnel.clone()?)));
    let routing = Routing::new(pages, default).and_datasets(datasets.keys().copied());
    Ok(routing.and_funnels(funnels.collect()))
}

/// The id of a Page of the file.
pub(super) fn page_id(table: &PageTable) -> Result<PageId, ConfigError> {
    let wrong =
        |error: InvalidId| ConfigError::new(format!("page {}", table.id), error.to_string());
    PageId::parse(&table.id).map_err(wrong)
}

fn sources(
    layers: &Layers,
    datasets: &BTreeMap<DatasetId, Dataset>,
) -> Result<BTreeMap<SourceName, Source>, ConfigError> {
    let mut sources = BTreeMap::new();
    for table in &layers.tables.sources {
        let (name, source) = source(table, datasets)?;
        if sources.insert(name, source).is_some() {
            let setting = format!("source {}", table.name);
            return Err(ConfigError::new(setting, "is configured twice"));
        }
    }
    Ok(sources)
}

fn source(
    table: &SourceTable,
    datasets: &BTreeMap<DatasetId, Dataset>,
) -> Result<(SourceName, Source), ConfigError> {
    let setting = format!("source {}", table.name);
    let wrong = |problem: String| ConfigError::new(&setting, problem);
    let name = SourceName::parse(&table.name).map_err(|error| wrong(error.to_string()))?;
    if table.clock_tolerance_s > CLOCK_TOLERANCE_S_MAX {
        return Err(wrong(format!("clock_tolerance_s is at most {CLOCK_TOLERANCE_S_MAX}")));
    }
    let time_zone = table
        .time_zone
        .as_deref()
        .map(|name| TimeZone::get(name).map_err(|_| wrong(format!("{name} is no time zone"))))
        .transpose()?;
    let default_country = table
        .default_country
        .as_deref()
        .map(|code| {
            let problem =
                || wrong(format!("default_country {code}: is no code of a country, as DE"));
            Country::parse(code).ok_or_else(problem)
        })
        .transpose()?;
    let ambiguity = match table.ambiguous.as_deref() {
        None | Some("newest") => Ambiguity::Newest,
        Some("refuse") => Ambiguity::Refuse,
        Some(_) => return Err(wrong("ambiguous is \"newest\" or \"refuse\"".into())),
    };
    let send_unmatched = match table.unmatched.as_deref() {
        None | Some("await") => false,
        Some("send") if table.strict => {
            return Err(wrong("unmatched = \"send\" and strict = true contradict".into()));
        }
        Some("send") => true,
        Some(_) => return Err(wrong("unmatched is \"await\" or \"send\"".into())),
    };
    let dataset_id = table.dataset.as_deref().map(|id| dataset_id(&setting, id)).transpose()?;
    if let Some(id) = dataset_id.filter(|id| !datasets.contains_key(id)) {
        return Err(wrong(format!("goes to dataset {id}, which is not configured")));
    }
    let policy = SourcePolicy {
        clock_tolerance_s: table.clock_tolerance_s,
        strict: table.strict,
        ambiguity,
        send_unmatched,
        dataset_id,
    };
    let (preset, mapping) = (table.preset.as_deref(), table.mapping.as_ref());
    let hook = hook(name.as_str(), preset, mapping, table.auth.as_ref())?.map(Arc::new);
    Ok((name, Source { policy, time_zone, default_country, hook }))
}

fn api_keys(layers: &Layers) -> Result<Vec<ApiKey>, ConfigError> {
    let mut keys = Vec::new();
    if let Some(key) = layers.get("LEADLOOP_API_KEY") {
        let digest = Sha256::digest(key.trim().as_bytes()).into();
        keys.push(ApiKey { name: "LEADLOOP_API_KEY".into(), digest, scopes: vec![Scope::Admin] });
    }
    for table in &layers.tables.api_keys {
        keys.push(api_key(table)?);
    }
    Ok(keys)
}

fn api_key(table: &ApiKeyTable) -> Result<ApiKey, ConfigError> {
    let wrong = |problem: &str| ConfigError::new(format!("API key {}", table.name), problem);
    let digest = match (&table.key, &table.key_sha256) {
        (Some(key), None) if !key.is_empty() => Sha256::digest(key.trim().as_bytes()).into(),
        (None, Some(hex)) => {
            let mut digest = [0; 32];
            hex::decode_to_slice(hex, &mut digest)
                .map_err(|_| wrong("key_sha256 must be 64 hex digits"))?;
            digest
        }
        _ => return Err(wrong("needs one of key, key_file and key_sha256")),
    };
    let scope = |name: &String| Scope::ALL.into_iter().find(|scope| scope.name() == name);
    let scopes: Option<Vec<Scope>> = table.scopes.iter().map(scope).collect();
    let scopes = scopes.filter(|scopes| !scopes.is_empty());
    let scopes = scopes.ok_or_else(|| wrong("scopes are \"read\", \"write\" and \"admin\""))?;
    Ok(ApiKey { name: table.name.clone(), digest, scopes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const MINIMUM: [(&str, &str); 4] = [
        ("META_APP_SECRET", "secret"),
        ("META_VERIFY_TOKEN", "token"),
        ("META_DATASET_ID", "123"),
        ("META_ACCESS_TOKEN", "EAAB"),
    ];

    fn config(environment: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let read_file = |path: &str| match path {
            "/run/secret" => Ok("from-file\n".to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        Config::from_layers(&Layers::read(&environment, Some(file), &read_file)?)
    }

    fn with(more: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
        config(&[&MINIMUM, more].concat(), file)
    }

    /// The setting that the error names.
    fn named(config: Result<Config, ConfigError>) -> String {
        config.unwrap_err().setting
    }

    #[test]
    fn skipped_stages_are_filled_in_only_where_a_funnel_tells_what_is_skipped() {
        let filled = [("LEADLOOP_FILL_SKIPPED", "true")];
        let own = "[[datasets]]\nid = \"800\"\naccess_token = \"t\"\n";
        let funnel = "funnel = [\"won\"]\n";
        assert_eq!(named(with(&filled, "")), "LEADLOOP_FILL_SKIPPED");
        assert_eq!(named(with(&[("LEADLOOP_FILL_SKIPPED", "yes")], "")), "LEADLOOP_FILL_SKIPPED");
        let alone = format!("{own}fill_skipped = true\n");
        assert_eq!(named(with(&[], &alone)), "fill_skipped of dataset 800");
        for (environment, file) in [
            (&filled[..], format!("{own}{funnel}")),
            (&[filled[0], ("LEADLOOP_FUNNEL", "won")], String::new()),
            (&[], format!("{own}{funnel}fill_skipped = true\n")),
            (&[], format!("{own}fill_skipped = false\n")),
        ] {
            assert!(with(environment, &file).is_ok(), "{file}");
        }
    }

    #[test]
    fn four_settings_are_enough() {
        let config = config(&MINIMUM, "").unwrap();
        assert_eq!(config.graph_base, "https://graph.facebook.com/v24.0");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.raw_stage.as_str(), "initial_lead");
        assert_eq!(config.routing.resolve(None), DatasetId::from_u64(123));
        assert_eq!(config.datasets.len(), 1);
        assert!(config.api_keys.is_empty());
    }

    #[test]
    fn leads_are_kept_for_ever_or_for_a_number_of_days_that_is_enough() {
        let days = |text| with(&[("LEADLOOP_RETENTION_DAYS", text)], "");
        assert_eq!(with(&[], "").unwrap().retention_days, None);
        assert_eq!(with(&[], "retention_days = 400").unwrap().retention_days, Some(400));
        assert_eq!(days("14").unwrap().retention_days, Some(14));
        for wrong in ["13", "3651", "-1", "0", "a year", "14.5", " "] {
            assert_eq!(named(days(wrong)), "LEADLOOP_RETENTION_DAYS", "{wrong:?}");
        }
    }

    #[test]
    fn each_missing_setting_is_named() {
        for (missing, _) in MINIMUM {
            let rest: Vec<_> = MINIMUM.into_iter().filter(|(name, _)| *name != missing).collect();
            assert_eq!(named(config(&rest, "")), missing);
        }
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_set() {
        assert_eq!(named(with(&[("META_APP_SECRET", "")], "")), "META_APP_SECRET");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = "raw_stage = \"lead\"\ncrm_name = \"File CRM\"\n";
        let config = with(&[("CRM_NAME", "Env CRM")], file).unwrap();
        assert_eq!(config.raw_stage.as_str(), "lead");
        assert_eq!(config.datasets.values().next().unwrap().crm_name, "Env CRM");
    }

    #[test]
    fn secrets_come_from_files_too_and_not_from_both() {
        let rest = &MINIMUM[1..];
        let from_file = [rest, &[("META_APP_SECRET_FILE", "/run/secret")]].concat();
        let config = config(&from_file, "").unwrap();
        assert_eq!(config.app_secrets[0].expose_secret(), "from-file");
        assert_eq!(named(with(&[("META_APP_SECRET_FILE", "/run/secret")], "")), "META_APP_SECRET");
        let missing = with(&[("LEADLOOP_API_KEY_FILE", "/run/nothing")], "");
        assert_eq!(named(missing), "LEADLOOP_API_KEY_FILE");
    }

    #[test]
    fn several_app_secrets_are_separated_by_commas() {
        let config = with(&[("META_APP_SECRET", "new, old,")], "").unwrap();
        let secrets: Vec<_> = config.app_secrets.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(secrets, ["new", "old"]);
    }

    #[test]
    fn pages_datasets_sources_and_keys_come_from_the_file() {
        let config = with(
            &[],
            r#"
            [[datasets]]
            id = "456"
            access_token_file = "/run/secret"
            raw_stage = "new"
            [[pages]]
            id = "1"
            dataset = "456"
            [[sources]]
            name = "hubspot"
            clock_tolerance_s = 60
            time_zone = "Europe/Berlin"
            default_country = "DE"
            strict = true
            [[api_keys]]
            name = "crm"
            key = "k"
            scopes = ["write"]
            "#,
        )
        .unwrap();
        let dataset_id = config.routing.resolve(PageId::from_u64(1));
        assert_eq!(dataset_id, DatasetId::from_u64(456));
        assert_eq!(config.raw_stage_for(dataset_id).as_str(), "new");
        let source = config.source(&SourceName::parse("hubspot").unwrap());
        let policy = SourcePolicy { clock_tolerance_s: 60, strict: true, ..Default::default() };
        assert_eq!(source.policy, policy);
        assert_eq!(source.default_country, Country::parse("DE"));
        assert!(config.api_keys[0].allows(Scope::Write));
        assert!(!config.api_keys[0].allows(Scope::Read));
    }

    #[test]
    fn contradictions_and_typos_are_named() {
        for (file, setting) in [
            ("lissten = \"x\"", "lissten"),
            ("[[pages]]\nid = \"1\"\ndataset = \"999\"", "page 1"),
            ("[[datasets]]\nid = \"123\"\naccess_token = \"x\"", "dataset 123"),
            ("[[datasets]]\nid = \"5\"", "access token of dataset 5"),
            ("[[sources]]\nname = \"x\"\ntime_zone = \"Mars\"", "source x"),
            ("[[sources]]\nname = \"x\"\nclock_tolerance_s = 86400", "source x"),
            ("[[sources]]\nname = \"x\"\ndefault_country = \"Germany\"", "source x"),
            ("[[api_keys]]\nname = \"x\"\nscopes = [\"read\"]", "API key x"),
            ("[[api_keys]]\nname = \"x\"\nkey = \"k\"\nscopes = [\"all\"]", "API key x"),
            ("store = \"mysql://host\"", "LEADLOOP_STORE"),
            ("meta_partner_agent = \"a1\"", "META_PARTNER_AGENT"),
            ("meta_graph_url = \"http://graph.example\"", "META_GRAPH_URL"),
            ("meta_api_version = \"24\"", "META_API_VERSION"),
            ("listen = \"8080\"", "LEADLOOP_LISTEN"),
            ("meta_app_secret = ", "leadloop.toml"),
        ] {
            assert_eq!(named(with(&[], file)), setting, "{file}");
        }
    }

    #[test]
    fn an_error_in_the_file_shows_no_line_of_it() {
        let error = with(&[], "meta_app_secret = \"hush").unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    #[test]
    fn the_default_file_is_complete_when_its_comments_are_taken_away() {
        let open = |line: &str| match line.strip_prefix('#') {
            Some(rest)
                if rest.starts_with('[') || rest.contains(" = ") && !rest.starts_with(' ') =>
            {
                rest.to_owned()
            }
            _ => line.to_owned(),
        };
        let file: String =
            super::super::DEFAULT_FILE.lines().map(|line| open(line) + "\n").collect();
        let layers = Layers::read(&BTreeMap::new(), Some(&file), &|_| Ok(String::new())).unwrap();
        assert_eq!(layers.tables.datasets.len(), 1);
        assert_eq!(layers.tables.api_keys.len(), 1);
        assert_eq!(layers.tables.sources[0].clock_tolerance_s, 60);
    }
}
