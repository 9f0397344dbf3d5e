//! The settings of alarms: who is told, how it is signed, of what, and what counts as silence.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::config::check::{is_private_way, is_this_machine};
use crate::config::{ConfigError, Layers};
use crate::domain::alarm::{AlarmKind, AlarmKinds};
use crate::limits::{ALARM_KEY_BYTES, WEBHOOK_SILENCE_S};

const URL: &str = "LEADLOOP_ALARM_URL";
const SECRET: &str = "LEADLOOP_ALARM_SECRET";
const KINDS: &str = "LEADLOOP_ALARM_KINDS";
const SILENCE: &str = "LEADLOOP_WEBHOOK_SILENCE_S";
const SECRET_PREFIX: &str = "whsec_";

/// All settings of alarms.
#[derive(Clone, Debug, Default)]
pub struct AlarmSettings {
    /// Who is told; nobody if there is none.
    pub receiver: Option<AlarmReceiver>,
    /// Of which kinds.
    kinds: AlarmKinds,
    /// After how many seconds without a delivery the webhook counts as silent.
    pub webhook_silence_s: Option<i64>,
}

/// Who is told of alarms.
#[derive(Clone, Debug)]
pub struct AlarmReceiver {
    /// Its address, which may hold a secret of its own.
    pub url: SecretString,
    /// The keys to sign with, each making a signature.
    pub keys: Vec<SecretSlice<u8>>,
}

impl AlarmReceiver {
    /// Scheme, host and port of its address, fit to be shown.
    pub fn origin(&self) -> String {
        let url = reqwest::Url::parse(self.url.expose_secret());
        url.map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
    }
}

impl AlarmSettings {
    /// Checks what the layers say of alarms, and nothing else of them.
    ///
    /// # Errors
    /// The first setting that is missing, malformed or contradicts another.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            receiver: receiver(layers)?,
            kinds: kinds(layers)?,
            webhook_silence_s: webhook_silence_s(layers)?,
        })
    }

    /// The kinds that somebody is told of.
    pub fn kinds_told(&self) -> AlarmKinds {
        if self.receiver.is_some() { self.kinds } else { AlarmKinds::NONE }
    }

    /// The same settings without a receiver that is elsewhere.
    #[must_use]
    pub fn on_this_machine(mut self) -> Self {
        self.receiver.take_if(|receiver| {
            let url = reqwest::Url::parse(receiver.url.expose_secret());
            !url.is_ok_and(|url| is_this_machine(&url))
        });
        self
    }
}

fn receiver(layers: &Layers) -> Result<Option<AlarmReceiver>, ConfigError> {
    let (url, secrets) = match (layers.get(URL), layers.get(SECRET)) {
        (Some(url), Some(secrets)) => (url, secrets),
        (Some(_), None) => {
            let problem = "is missing, although LEADLOOP_ALARM_URL is set: `whsec_` and base64 of \
                           32 random bytes";
            return Err(ConfigError::new(SECRET, problem));
        }
        (None, Some(_)) => {
            let problem = "is missing, although LEADLOOP_ALARM_SECRET is set";
            return Err(ConfigError::new(URL, problem));
        }
        (None, None) => return Ok(None),
    };
    if !reqwest::Url::parse(url).is_ok_and(|url| is_private_way(&url)) {
        let problem = "must be an https address; plain http is for this machine only";
        return Err(ConfigError::new(URL, problem));
    }
    let secrets = secrets.split(',').map(str::trim).filter(|secret| !secret.is_empty());
    let keys = secrets.map(key).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(ConfigError::new(SECRET, "holds no secret"));
    }
    Ok(Some(AlarmReceiver { url: url.into(), keys }))
}

/// The key of a secret in the form of Standard Webhooks.
fn key(secret: &str) -> Result<SecretSlice<u8>, ConfigError> {
    let key = secret.strip_prefix(SECRET_PREFIX).and_then(|text| STANDARD.decode(text).ok());
    let key = key.filter(|key| ALARM_KEY_BYTES.contains(&key.len()));
    let problem = "must be `whsec_` and base64 of 24 to 64 bytes";
    Ok(key.ok_or_else(|| ConfigError::new(SECRET, problem))?.into())
}

fn kinds(layers: &Layers) -> Result<AlarmKinds, ConfigError> {
    let Some(names) = layers.get(KINDS) else {
        return Ok(AlarmKind::ALL.iter().copied().collect());
    };
    let kind = |name| {
        AlarmKind::from_name(name).ok_or_else(|| {
            let known: Vec<_> = AlarmKind::ALL.iter().map(|kind| kind.name()).collect();
            ConfigError::new(KINDS, format!("knows only {}", known.join(", ")))
        })
    };
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(kind).collect()
}

fn webhook_silence_s(layers: &Layers) -> Result<Option<i64>, ConfigError> {
    let Some(seconds) = layers.get(SILENCE) else { return Ok(None) };
    let seconds = seconds.parse().ok().filter(|seconds| WEBHOOK_SILENCE_S.contains(seconds));
    let (first, last) = (WEBHOOK_SILENCE_S.start(), WEBHOOK_SILENCE_S.end());
    let wrong = || ConfigError::new(SILENCE, format!("must be {first} to {last} seconds"));
    Ok(Some(seconds.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn settings(file: &str) -> Result<AlarmSettings, ConfigError> {
        let read = |_: &str| Ok(String::from(KEY));
        AlarmSettings::from_layers(&Layers::read(&BTreeMap::new(), Some(file), &read)?)
    }

    #[test]
    fn without_settings_nobody_is_told_of_anything() {
        let settings = settings("alarm_kinds = \"events.dead\"").unwrap();
        assert!(settings.receiver.is_none() && settings.webhook_silence_s.is_none());
        assert!(settings.kinds_told().is_empty());
    }

    #[test]
    fn a_receiver_is_told_of_every_kind_unless_some_are_named() {
        let url = "alarm_url = \"https://alarms.example/x?key=hush\"";
        let all = settings(&format!("{url}\nalarm_secret_file = \"x\"")).unwrap();
        assert!(AlarmKind::ALL.iter().all(|kind| all.kinds_told().contains(*kind)));
        let receiver = all.receiver.unwrap();
        assert_eq!(receiver.origin(), "https://alarms.example");
        assert!(!format!("{receiver:?}").contains("hush"));
        let secrets = format!("alarm_secret = \"{KEY}, {KEY}\"");
        let some = "alarm_kinds = \"webhook.silent, events.dead,\"";
        let some = settings(&format!("{url}\n{secrets}\n{some}")).unwrap();
        assert!(some.kinds_told().contains(AlarmKind::EventsDead));
        assert!(!some.kinds_told().contains(AlarmKind::DatasetPaused));
        assert_eq!(some.receiver.as_ref().unwrap().keys.len(), 2);
        assert!(some.on_this_machine().receiver.is_none());
    }

    #[test]
    fn a_receiver_on_this_machine_needs_no_tls() {
        let local = format!("alarm_url = \"http://127.0.0.1:9/x\"\nalarm_secret = \"{KEY}\"");
        assert!(settings(&local).unwrap().on_this_machine().receiver.is_some());
    }

    #[test]
    fn each_wrong_setting_is_named_and_no_secret_is_shown() {
        let url = "alarm_url = \"https://alarms.example\"";
        let with_secret = |secret: &str| format!("{url}\nalarm_secret = \"{secret}\"");
        let short = STANDARD.encode([7; 23]);
        for (file, setting) in [
            (url.to_owned(), SECRET),
            (format!("alarm_secret = \"{KEY}\""), URL),
            (format!("alarm_url = \"http://alarms.example\"\nalarm_secret = \"{KEY}\""), URL),
            (format!("alarm_url = \"alarms.example\"\nalarm_secret = \"{KEY}\""), URL),
            (with_secret(","), SECRET),
            (with_secret("hush"), SECRET),
            (with_secret("whsec_hush!"), SECRET),
            (with_secret(&format!("whsec_{short}")), SECRET),
            (with_secret(&format!("{KEY},hush")), SECRET),
            ("alarm_kinds = \"events.lost\"".to_owned(), KINDS),
            ("webhook_silence_s = 59".to_owned(), SILENCE),
            ("webhook_silence_s = 2592001".to_owned(), SILENCE),
            ("webhook_silence_s = \"1h\"".to_owned(), SILENCE),
        ] {
            let error = settings(&file).unwrap_err();
            assert_eq!(error.setting, setting, "{file}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
