//! Finding settings: the environment, `.env` and the file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::Global;
use crate::config::{ConfigError, Layers};

const FILE: &str = "leadloop.toml";
const DOT_ENV: &str = ".env";

/// The secret that the stand-in signs with when none is set.
pub(super) const SANDBOX_APP_SECRET: &str = "sandbox-app-secret";
/// The API key of a server beside the stand-in when none is set.
pub(super) const SANDBOX_API_KEY: &str = "sandbox-api-key";

/// Puts the layers of settings together.
pub(super) fn layers(global: &Global) -> Result<Layers, ConfigError> {
    let mut environment = dot_env(Path::new(DOT_ENV))?;
    environment.extend(process_environment());
    let file = match &global.config {
        Some(path) => Some(read(path)?),
        None if Path::new(FILE).exists() => Some(read(Path::new(FILE))?),
        None => None,
    };
    Layers::read(&environment, file.as_deref(), &|path| std::fs::read_to_string(path))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        ConfigError::new(path.display().to_string(), format!("cannot be read: {error}"))
    })
}

fn process_environment() -> BTreeMap<String, String> {
    // A variable that is no text can't be one of ours.
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

fn dot_env(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    // The parser's error quotes the line, which may hold a secret: it is not passed on.
    let wrong = |_| ConfigError::new(DOT_ENV, "cannot be read: each line must be NAME=value");
    dotenvy::from_path_iter(path).map_err(wrong)?.map(|line| line.map_err(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_env_file_is_read_and_a_broken_one_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        assert!(dot_env(&path).unwrap().is_empty());
        std::fs::write(&path, "# comment\nCRM_NAME=\"My CRM\"\nMETA_APP_SECRET=s # x\n").unwrap();
        let values = dot_env(&path).unwrap();
        assert_eq!(
            (values["CRM_NAME"].as_str(), values["META_APP_SECRET"].as_str()),
            ("My CRM", "s")
        );
        std::fs::write(&path, "META_APP_SECRET='hush\n").unwrap();
        assert!(!dot_env(&path).unwrap_err().to_string().contains("hush"));
    }
}
