//! Where the store is.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::config::{ConfigError, Layers};

/// Where the store is.
#[derive(Clone, Debug)]
pub enum StoreAddress {
    /// A file of our own.
    File(PathBuf),
    /// A PostgreSQL database; there may be a password in it.
    Database(SecretString),
}

impl StoreAddress {
    /// Reads `LEADLOOP_STORE`.
    ///
    /// # Errors
    /// If it is missing, or a URL of another kind.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let what = "is missing: path of a file, or a postgres:// URL";
        let store = layers.get("LEADLOOP_STORE");
        Self::parse(store.ok_or_else(|| ConfigError::new("LEADLOOP_STORE", what))?)
    }

    /// Reads the path of a file or the URL of a database.
    ///
    /// # Errors
    /// If it is a URL of another kind.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.split_once("://") {
            None => Ok(Self::File(text.into())),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Database(text.into())),
            Some(_) => {
                let problem = "must be the path of a file or a postgres:// URL";
                Err(ConfigError::new("LEADLOOP_STORE", problem))
            }
        }
    }

    /// The file.
    ///
    /// # Errors
    /// If it is a database.
    pub fn file(self) -> Result<PathBuf, ConfigError> {
        match self {
            Self::File(path) => Ok(path),
            Self::Database(_) => Err(ConfigError::new(
                "LEADLOOP_STORE",
                "is a database; this command is about a store in a file",
            )),
        }
    }

    /// The same for people and logs, without user, password and options.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Database(url) => {
                let url = url.expose_secret();
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                if path.contains('@') {
                    // A password that was not encoded may reach into what follows.
                    return "postgres://...".to_owned();
                }
                let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                format!("postgres://{hosts}{path}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_file_or_a_database_and_nothing_else() {
        let file = StoreAddress::parse("data/leadloop.redb").unwrap();
        assert_eq!(file.shown(), "data/leadloop.redb");
        assert!(file.file().is_ok());
        let database = StoreAddress::parse("postgres://me:s3cret@one:5432,two/db?x=y").unwrap();
        assert_eq!(database.shown(), "postgres://one:5432,two/db");
        assert!(!format!("{database:?}").contains("s3cret"));
        assert!(database.file().is_err());
        assert!(StoreAddress::parse("mysql://host/db").is_err());
    }

    #[test]
    fn no_part_of_a_password_is_shown() {
        for (url, expected) in [
            ("postgres://me:p@ss@host/db", "postgres://host/db"),
            ("postgres://me:p%2Fss@host?password=pass", "postgres://host"),
            ("postgres://host/db?password=p@ss", "postgres://..."),
            ("postgres://me:p/ss@host/db", "postgres://..."),
            ("postgres://me:p?ss@host/db", "postgres://..."),
        ] {
            assert_eq!(StoreAddress::parse(url).unwrap().shown(), expected);
        }
    }
}
