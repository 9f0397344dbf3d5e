//! The settings of reading leads from the Graph API: with which tokens, and how often.

use std::collections::BTreeMap;

use secrecy::SecretString;

use crate::config::check::{is_token, page_id};
use crate::config::{ConfigError, Layers};
use crate::domain::ids::PageId;
use crate::limits::BACKFILL_EVERY_S;

const TOKEN: &str = "META_PAGE_ACCESS_TOKEN";
const READ: &str = "LEADLOOP_READ_LEADS";
const EVERY: &str = "LEADLOOP_BACKFILL_EVERY_S";

/// All settings of reading leads.
#[derive(Clone, Debug, Default)]
pub struct ReadingSettings {
    /// The tokens to read with; without one, nothing is read. The one for all Pages comes first.
    pub tokens: Vec<PageToken>,
    /// Pages that are listed without a token of their own.
    pub without_token: Vec<PageId>,
    /// How often leads that the webhook lost are looked for, in seconds; `None` for never.
    pub backfill_every_s: Option<i64>,
}

/// A token that can read the leads of a Page.
#[derive(Clone, Debug)]
pub struct PageToken {
    /// The Page; `None` if it is the token of every Page that is not listed.
    pub page_id: Option<PageId>,
    /// The token.
    pub token: SecretString,
}

impl ReadingSettings {
    /// Checks what the layers say of reading, and nothing else of them.
    ///
    /// # Errors
    /// The first setting that is malformed or contradicts another.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let backfill_every_s = backfill_every_s(layers)?;
        let tokens = tokens(layers)?;
        let reads = match layers.get(READ) {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(ConfigError::new(READ, "must be true or false")),
        };
        if !reads {
            return Ok(Self::default());
        }
        if tokens.is_empty() && layers.get(READ).is_some() {
            let problem = "is missing, although leads are to be read: a Page's access token";
            return Err(ConfigError::new(TOKEN, problem));
        }
        let tables = layers.tables.pages.iter().filter(|table| table.access_token.is_none());
        let without_token = tables.map(page_id).collect::<Result<_, _>>()?;
        Ok(Self { tokens, without_token, backfill_every_s })
    }
}

fn tokens(layers: &Layers) -> Result<Vec<PageToken>, ConfigError> {
    let checked = |setting: String, token: &str| {
        let problem = "is empty, or has characters that no token has";
        is_token(token).then(|| token.into()).ok_or_else(|| ConfigError::new(setting, problem))
    };
    let mut tokens = BTreeMap::new();
    if let Some(token) = layers.get(TOKEN) {
        tokens.insert(None, checked(TOKEN.to_owned(), token)?);
    }
    for table in &layers.tables.pages {
        if let Some(token) = &table.access_token {
            let setting = format!("access token of page {}", table.id);
            tokens.insert(Some(page_id(table)?), checked(setting, token)?);
        }
    }
    Ok(tokens.into_iter().map(|(page_id, token)| PageToken { page_id, token }).collect())
}

fn backfill_every_s(layers: &Layers) -> Result<Option<i64>, ConfigError> {
    match layers.get(EVERY).map(str::parse) {
        None | Some(Ok(0)) => Ok(None),
        Some(Ok(seconds)) if BACKFILL_EVERY_S.contains(&seconds) => Ok(Some(seconds)),
        Some(_) => {
            let (from, to) = BACKFILL_EVERY_S.into_inner();
            let problem = format!("must be a number of seconds from {from} to {to}, or 0");
            Err(ConfigError::new(EVERY, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn read(environment: &[(&str, &str)], file: &str) -> Result<ReadingSettings, ConfigError> {
        let environment = environment.iter();
        let environment = environment.map(|(name, value)| ((*name).into(), (*value).into()));
        let layers = Layers::read(&environment.collect(), Some(file), &|path| match path {
            "/run/token" => Ok("from-file\n".to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })?;
        ReadingSettings::from_layers(&layers)
    }

    fn shown(settings: &ReadingSettings) -> Vec<String> {
        let tokens = settings.tokens.iter();
        let line = |token: &PageToken| {
            let page_id = token.page_id.map_or(0, PageId::get);
            format!("{page_id} {}", token.token.expose_secret())
        };
        tokens.map(line).collect()
    }

    #[test]
    fn without_a_token_nothing_is_read() {
        let settings = read(&[], "[[pages]]\nid = \"1\"\ndataset = \"2\"").unwrap();
        assert!(settings.tokens.is_empty());
    }

    #[test]
    fn a_token_is_for_all_pages_or_for_one() {
        let file = "[[pages]]\nid = \"1\"\ndataset = \"2\"\naccess_token = \"own\"\n\
                    [[pages]]\nid = \"3\"\ndataset = \"2\"\naccess_token_file = \"/run/token\"";
        let settings = read(&[(TOKEN, "all")], file).unwrap();
        assert_eq!(shown(&settings), ["0 all", "1 own", "3 from-file"]);
        assert_eq!(settings.backfill_every_s, Some(3_600));
        assert!(!format!("{settings:?}").contains("own"));
    }

    #[test]
    fn reading_can_be_switched_off_and_so_can_looking_for_what_was_lost() {
        let off = read(&[(TOKEN, "all")], "read_leads = false").unwrap();
        assert!(off.tokens.is_empty());
        let rarely = read(&[(TOKEN, "all"), (EVERY, "0")], "").unwrap();
        assert_eq!((rarely.tokens.len(), rarely.backfill_every_s), (1, None));
        assert_eq!(read(&[(EVERY, "604800")], "").unwrap().backfill_every_s, Some(604_800));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let page = "[[pages]]\nid = \"1\"\ndataset = \"2\"\n";
        let both = format!("{page}access_token = \"a\"\naccess_token_file = \"/run/token\"");
        let empty = format!("{page}access_token = \"\"");
        for (environment, file, setting) in [
            (&[(READ, "yes")][..], "", READ),
            (&[(READ, "true")], "", TOKEN),
            (&[(TOKEN, "two words")], "", TOKEN),
            (&[(EVERY, "299")], "", EVERY),
            (&[(EVERY, "-1")], "", EVERY),
            (&[(EVERY, "daily")], "", EVERY),
            (&[], &both, "access_token of page 1"),
            (&[], &empty, "access token of page 1"),
        ] {
            let named = read(environment, file).unwrap_err().setting;
            assert_eq!(named, setting, "{environment:?} {file}");
        }
    }
}
