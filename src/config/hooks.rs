//! How a CRM's own webhooks are let in and read: the parts of `[[sources]]` that make a hook.

use std::fmt;

use secrecy::SecretString;
use serde::Deserialize;

use crate::config::ConfigError;
use crate::limits::HOOK_SECRET_BYTES_MIN;
use crate::mapping::Mapping;
use crate::mapping::preset::{names, preset};
use crate::mapping::spec::MappingSpec;

/// A source whose own webhooks are taken.
#[derive(Clone, Debug)]
pub struct Hook {
    /// How its payloads are read.
    pub mapping: Mapping,
    /// How it shows who it is.
    pub auth: HookAuth,
}

/// How a CRM shows who it is.
#[derive(Clone, Debug)]
pub enum HookAuth {
    /// By a key of the API with the scope `write`.
    Bearer,
    /// By a header that always has the same value.
    Header(HeaderAuth),
    /// By a signature.
    Hmac(HmacAuth),
    /// By a secret as the last part of the path, for those that can do nothing else.
    Path(SecretString),
}

/// A secret in a header.
#[derive(Clone, Debug)]
pub struct HeaderAuth {
    /// The header.
    pub header: String,
    /// Its value.
    pub secret: SecretString,
}

/// A signature, HMAC-SHA256, in a header.
#[derive(Clone, Debug)]
pub struct HmacAuth {
    /// The header.
    pub header: String,
    /// The key.
    pub secret: SecretString,
    /// How the digest is written.
    pub encoding: Encoding,
    /// What stands before it.
    pub prefix: String,
    /// What is signed, piece by piece.
    pub signed: Vec<SignedPart>,
    /// The header with the time of the signature, if that is signed.
    pub timestamp_header: Option<String>,
}

/// How a digest is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Hex digits.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

/// A piece of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// The body, as it came.
    Body,
    /// The value of the header with the time.
    Timestamp,
    /// Something that is always the same.
    Text(String),
}

/// `[sources.auth]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthTable {
    kind: AuthKind,
    header: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) secret_file: Option<String>,
    encoding: Option<Encoding>,
    prefix: Option<String>,
    signed: Option<String>,
    timestamp_header: Option<String>,
    url: Option<String>,
}

impl fmt::Debug for AuthTable {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthTable").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthKind {
    #[default]
    Bearer,
    Header,
    Hmac,
    Path,
}

/// The mapping that a preset and what a source adds to it come to.
///
/// # Errors
/// There is no such preset.
pub fn merged(preset_name: Option<&str>, own: Option<&MappingSpec>) -> Result<MappingSpec, String> {
    let own = own.cloned().unwrap_or_default();
    let Some(name) = preset_name else { return Ok(own) };
    let below = preset(name).ok_or_else(|| format!("preset must be one of {}", names()))?;
    Ok(own.over(below))
}

/// Checks what makes a hook of a source; none if it is not one.
pub(super) fn hook(
    source: &str,
    preset_name: Option<&str>,
    own: Option<&MappingSpec>,
    auth: Option<&AuthTable>,
) -> Result<Option<Hook>, ConfigError> {
    let setting = format!("source {source}");
    let wrong = |problem: String| ConfigError::new(&setting, problem);
    if preset_name.is_none() && own.is_none() {
        return match auth {
            Some(_) => Err(wrong("has auth, but no preset and no mapping to read with".into())),
            None => Ok(None),
        };
    }
    if source == "unmapped" {
        return Err(wrong("is an address of the API: call it something else".into()));
    }
    if !source.bytes().all(is_plain) || source.bytes().all(|byte| byte == b'.') {
        let problem = "its name is a part of the address that the CRM calls: take letters, digits, \
                       and - _ . ~";
        return Err(wrong(problem.into()));
    }
    let spec = merged(preset_name, own).map_err(wrong)?;
    let mapping = Mapping::new(&spec).map_err(|error| wrong(format!("mapping: {error}")))?;
    let auth = auth.map_or(Ok(HookAuth::Bearer), HookAuth::from_table);
    Ok(Some(Hook { mapping, auth: auth.map_err(|problem| wrong(format!("auth: {problem}")))? }))
}

impl HookAuth {
    /// Its name in the settings.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Header(_) => "header",
            Self::Hmac(_) => "hmac",
            Self::Path(_) => "path",
        }
    }

    fn from_table(table: &AuthTable) -> Result<Self, String> {
        table.check_keys()?;
        let header = || {
            let header = table.header.as_deref().unwrap_or_default();
            let name = axum::http::HeaderName::try_from(header);
            name.map(|name| name.to_string()).map_err(|_| "header must be the name of a header")
        };
        let secret = table.secret.as_deref().filter(|secret| !secret.is_empty());
        let secret = secret.ok_or("secret is missing");
        Ok(match table.kind {
            AuthKind::Bearer => Self::Bearer,
            AuthKind::Header => {
                Self::Header(HeaderAuth { header: header()?, secret: long_enough(secret?)?.into() })
            }
            AuthKind::Hmac => Self::Hmac(HmacAuth {
                header: header()?,
                secret: long_enough(secret?)?.into(),
                encoding: table.encoding.unwrap_or_default(),
                prefix: table.prefix.clone().unwrap_or_default(),
                signed: table.signed_parts()?,
                timestamp_header: table.timestamp_header.as_ref().map(|name| name.to_lowercase()),
            }),
            AuthKind::Path => {
                let secret = long_enough(secret?)?;
                if !secret.bytes().all(is_plain) {
                    return Err("secret has characters that a path would change: take letters, \
                                digits, and - _ . ~"
                        .into());
                }
                Self::Path(secret.into())
            }
        })
    }
}

/// Whether a path holds the character as it is (RFC 3986, 2.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

fn long_enough(secret: &str) -> Result<&str, String> {
    if secret.len() < HOOK_SECRET_BYTES_MIN {
        return Err(format!("secret has less than {HOOK_SECRET_BYTES_MIN} bytes"));
    }
    Ok(secret)
}

impl AuthTable {
    /// A key that does not belong to the kind would promise a check that is not made.
    fn check_keys(&self) -> Result<(), String> {
        let hmac_only = [
            ("encoding", self.encoding.is_some()),
            ("prefix", self.prefix.is_some()),
            ("signed", self.signed.is_some()),
            ("timestamp_header", self.timestamp_header.is_some()),
            ("url", self.url.is_some()),
        ];
        let surplus = hmac_only.into_iter().find(|(_, set)| *set && self.kind != AuthKind::Hmac);
        if let Some((key, _)) = surplus {
            return Err(format!("{key} is for the kind \"hmac\" only"));
        }
        if self.header.is_some() && matches!(self.kind, AuthKind::Bearer | AuthKind::Path) {
            return Err("header is for the kinds \"header\" and \"hmac\" only".into());
        }
        if self.secret.is_some() && self.kind == AuthKind::Bearer {
            return Err("the kind \"bearer\" takes the keys of the API, and no secret".into());
        }
        Ok(())
    }

    /// Reads the template of what is signed.
    fn signed_parts(&self) -> Result<Vec<SignedPart>, String> {
        let template = match self.signed.as_deref() {
            None | Some("body") => "{body}",
            Some(template) => template,
        };
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("signed has a { without its }")?;
            if !text.is_empty() {
                parts.push(SignedPart::Text(text.to_owned()));
            }
            parts.push(match name {
                "body" => SignedPart::Body,
                "timestamp" => SignedPart::Timestamp,
                "method" => SignedPart::Text("POST".into()),
                // A proxy may stand between, so only its owner knows what the CRM called.
                "uri" => SignedPart::Text(self.url.clone().ok_or(
                    "url is missing: the address that the CRM calls, since it signs that",
                )?),
                _ => return Err("signed knows {method}, {uri}, {body} and {timestamp}".into()),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(SignedPart::Text(rest.to_owned()));
        }
        if !parts.contains(&SignedPart::Body) {
            return Err("signed must hold {body}, or anybody could change it".into());
        }
        if parts.contains(&SignedPart::Timestamp) != self.timestamp_header.is_some() {
            return Err("timestamp_header and {timestamp} in signed belong together".into());
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(file: &str) -> Result<HookAuth, String> {
        HookAuth::from_table(&toml::from_str(file).unwrap())
    }

    #[test]
    fn what_hubspot_signs_can_be_written_down() {
        let file = r#"
            kind = "hmac"
            header = "X-HubSpot-Signature-v3"
            secret = "a-client-secret-of-16"
            encoding = "base64"
            signed = "{method}{uri}{body}{timestamp}"
            timestamp_header = "X-HubSpot-Request-Timestamp"
            url = "https://leadloop.example/v1/hooks/hubspot"
        "#;
        let Ok(HookAuth::Hmac(hmac)) = auth(file) else { panic!("it is complete") };
        assert_eq!(hmac.header, "x-hubspot-signature-v3");
        let text = |text: &str| SignedPart::Text(text.into());
        let uri = text("https://leadloop.example/v1/hooks/hubspot");
        assert_eq!(hmac.signed, [text("POST"), uri, SignedPart::Body, SignedPart::Timestamp]);
    }

    #[test]
    fn the_simplest_signature_is_over_the_body() {
        let Ok(HookAuth::Hmac(hmac)) =
            auth("kind = 'hmac'\nheader = 'x-sign'\nsecret = '0123456789abcdef'")
        else {
            panic!("it is complete")
        };
        assert_eq!((hmac.signed, hmac.encoding), (vec![SignedPart::Body], Encoding::Hex));
        assert!(matches!(auth(""), Ok(HookAuth::Bearer)));
    }

    #[test]
    fn a_check_that_would_not_be_made_is_refused() {
        for (file, word) in [
            ("secret = 'x'", "no secret"),
            ("header = 'x'", "header"),
            ("kind = 'path'", "secret is missing"),
            ("kind = 'path'\nsecret = 'short'", "less than"),
            ("kind = 'path'\nsecret = 'with/slash/in/the/middle'", "path would change"),
            ("kind = 'path'\nsecret = '0123456789abcdef'\nprefix = 'x'", "prefix"),
            ("kind = 'header'\nheader = 'x'\nsecret = 'short'", "less than"),
            ("kind = 'header'\nheader = 'a b'\nsecret = '0123456789abcdef'", "name of a header"),
            ("kind = 'hmac'\nheader = 'x'", "secret is missing"),
            ("kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcde'", "less than 16"),
            (
                "kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcdef'\nsigned = '{timestamp}'",
                "{body}",
            ),
            (
                "kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcdef'\nsigned = '{body}{timestamp}'",
                "together",
            ),
            (
                "kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcdef'\ntimestamp_header = 't'",
                "together",
            ),
            (
                "kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcdef'\nsigned = '{uri}{body}'",
                "url is missing",
            ),
            (
                "kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcdef'\nsigned = '{body'",
                "without its",
            ),
            (
                "kind = 'hmac'\nheader = 'x'\nsecret = '0123456789abcdef'\nsigned = '{body}{x}'",
                "knows",
            ),
        ] {
            let problem = auth(file).unwrap_err();
            assert!(problem.contains(word), "{file}: {problem}");
        }
    }

    #[test]
    fn a_hook_is_a_preset_a_mapping_or_both() {
        let own: MappingSpec = toml::from_str("stages = { x = 'won' }").unwrap();
        let check = |name, own, auth: Option<&AuthTable>| hook("x", name, own, auth);
        assert!(check(None, None, None).unwrap().is_none());
        assert!(check(Some("generic"), None, None).unwrap().is_some());
        assert!(check(Some("hubspot"), Some(&own), None).unwrap().is_some());
        for (name, own, auth, word) in [
            (Some("hubspot"), None, None, "stages"),
            (Some("fax"), None, None, "generic"),
            (None, Some(&own), None, "stage"),
            (None, None, Some(&AuthTable::default()), "no preset"),
        ] {
            let error = check(name, own, auth).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        for name in ["a/b", "a b", "a?b", "a#b", "a%b", "ü", "..", "unmapped"] {
            let error = hook(name, Some("generic"), None, None).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("address"), "{error}");
            assert!(hook(name, None, None, None).unwrap().is_none(), "{name}: nobody calls it");
        }
        assert!(hook("My.CRM-2_~", Some("generic"), None, None).unwrap().is_some());
    }

    #[test]
    fn the_settings_in_the_guides_are_complete() {
        for (name, _) in crate::mapping::preset::PRESETS {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides/crm");
            let guide = std::fs::read_to_string(folder.join(format!("{name}.md"))).unwrap();
            let blocks = guide.split("```toml\n").skip(1);
            let blocks = blocks.map(|block| block.split("```").next().unwrap());
            let mut file = "meta_app_secret = 's'\nmeta_verify_token = 't'\n\
                            meta_dataset_id = '1'\nmeta_access_token = 'a'\n"
                .to_owned();
            file.extend(blocks);
            let environment = std::collections::BTreeMap::new();
            let secret = |_: &str| Ok("Basic 0123456789abcdef".replace(' ', "-"));
            let layers = crate::config::Layers::read(&environment, Some(&file), &secret).unwrap();
            let config = crate::config::Config::from_layers(&layers);
            let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(config.sources.values().all(|source| source.hook.is_some()), "{name}");
        }
    }
}
