//! The way to the database: addresses, encryption, bounds.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::{DB_CONNECT_TIMEOUT, DB_RETRY_MS_MAX, DB_STATEMENT_TIMEOUT};
use crate::store::StoreError;

/// The hosts of one database, of which one at a time takes writes.
#[derive(Debug)]
pub(super) struct Hosts {
    options: Vec<PgConnectOptions>,
    /// Held by who looks for the one that takes writes.
    looking: Arc<Mutex<()>>,
}

impl Hosts {
    /// Reads a URL such as `postgres://user:password@one:5432,two/leadloop?sslmode=verify-full`.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] if it is no such URL, or says what nobody understands; the error
    /// does not repeat it, since there may be a password in it.
    pub(super) fn parse(url: &SecretString) -> Result<Self, StoreError> {
        refuse_unknown(url.expose_secret())?;
        let mut options = Vec::new();
        for url in one_for_each_host(url.expose_secret()).ok_or_else(no_url)? {
            let parsed = PgConnectOptions::from_str(&url).map_err(|_| no_url())?;
            let timeout = DB_STATEMENT_TIMEOUT.as_millis().to_string();
            let bounds = [
                ("statement_timeout", timeout.as_str()),
                // Whoever is cut off in the middle of a transaction must not hold others up.
                ("idle_in_transaction_session_timeout", timeout.as_str()),
                ("default_transaction_read_only", "off"),
                // A table that was empty when a statement was planned would be read whole ever
                // after, and a transaction that did so is in everybody's way.
                ("enable_seqscan", "off"),
                // What has to be read whole all the same would seem worth compiling.
                ("jit", "off"),
            ];
            let named = match parsed.get_application_name() {
                Some(_) => parsed,
                None => parsed.application_name("leadloop"),
            };
            options.push(named.options(bounds).disable_statement_logging());
        }
        Ok(Self { options, looking: Arc::default() })
    }

    /// Pools of so many connections at most, none of which is open yet.
    pub(super) fn pools<const N: usize>(&self, connections: [u32; N]) -> [PgPool; N] {
        let pools = connections.map(|count| pool(count, &self.options[0]));
        self.look_for_primary(&pools);
        pools
    }

    /// Makes connections go to the host that takes writes, as soon as there is one. Whoever waits
    /// for a connection meanwhile gets it from there; if it takes too long, the next failure asks
    /// again.
    pub(super) fn look_for_primary(&self, pools: &[PgPool]) {
        let Ok(looking) = self.looking.clone().try_lock_owned() else { return };
        if let [_] = self.options[..] {
            return;
        }
        let (options, pools) = (self.options.clone(), pools.to_vec());
        tokio::spawn(async move {
            if let Ok(primary) = timeout(DB_CONNECT_TIMEOUT, primary(&options)).await {
                for pool in pools {
                    pool.set_connect_options(primary.clone());
                }
            }
            drop(looking);
        });
    }
}

fn pool(connections: u32, options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(DB_CONNECT_TIMEOUT)
        .after_connect(|connection, _| {
            let refused = || sqlx::Error::Protocol("the server is a standby".into());
            Box::pin(async move {
                if takes_writes(connection).await? { Ok(()) } else { Err(refused()) }
            })
        })
        .after_release(|connection, _| {
            // What was given up there may never be answered. Its place must be free again.
            let silent = |_| sqlx::Error::Protocol("the server does not answer".into());
            Box::pin(async move {
                timeout(DB_CONNECT_TIMEOUT, connection.ping()).await.map_err(silent)??;
                Ok(true)
            })
        })
        .connect_lazy_with(options.clone())
}

/// The host that takes writes, once there is one. All are asked at once, so that one that does not
/// answer costs no time.
async fn primary(hosts: &[PgConnectOptions]) -> PgConnectOptions {
    let mut interval = tokio::time::interval(Duration::from_millis(DB_RETRY_MS_MAX));
    loop {
        interval.tick().await;
        let mut asked = JoinSet::new();
        for options in hosts.iter().cloned() {
            asked.spawn(timeout(DB_CONNECT_TIMEOUT / 2, async move {
                let mut connection = PgConnection::connect_with(&options).await?;
                let is_primary = takes_writes(&mut connection).await?;
                Ok::<_, sqlx::Error>(is_primary.then_some(options))
            }));
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(Ok(Some(options)))) = answer {
                return options;
            }
        }
    }
}

/// Whether a server is no standby, which answers questions and takes nothing.
async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT NOT pg_is_in_recovery()").fetch_one(connection).await
}

fn no_url() -> StoreError {
    StoreError::Unsupported(
        "LEADLOOP_STORE is no URL such as postgres://user:password@host:5432/database".into(),
    )
}

/// What a URL may say besides where the database is.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Refuses what would be logged with its value and left out of account.
fn refuse_unknown(url: &str) -> Result<(), StoreError> {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let names = parameters.split('&').filter(|it| !it.is_empty());
    let names = names.map(|it| it.split_once('=').map_or(it, |(name, _)| name));
    let is_known = |name: &&str| PARAMETERS.contains(name) || name.starts_with("options[");
    let Some(unknown) = names.into_iter().find(|name| !is_known(name)) else { return Ok(()) };
    // What is no name may be a part of something secret.
    let is_name = unknown.bytes().all(|it| it.is_ascii_lowercase() || b"_-".contains(&it));
    let name = if is_name { unknown } else { "one whose name is not shown" };
    let problem = format!("LEADLOOP_STORE has a parameter that is not known: {name}");
    Err(StoreError::Unsupported(problem))
}

/// The same URL with each of its hosts alone.
fn one_for_each_host(url: &str) -> Option<Vec<String>> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, hosts) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(user, hosts)| (&authority[..=user.len()], hosts));
    let urls = hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}"));
    Some(urls.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_of_a_list_is_tried_with_the_same_user_and_database() {
        let hosts = Hosts::parse(&"postgres://me:p%40ss@one:5433,two/db?sslmode=require".into());
        let options = hosts.unwrap().options;
        let seen: Vec<_> = options
            .iter()
            .map(|it| (it.get_host(), it.get_port(), it.get_username(), it.get_database()))
            .collect();
        let expected = [("one", 5433, "me", Some("db")), ("two", 5432, "me", Some("db"))];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_parameter_that_nobody_knows_is_refused_by_its_name_alone() {
        let refusal = |parameters: &str| {
            Hosts::parse(&format!("postgres://me@host/db?{parameters}").into()).map(drop)
        };
        refusal("sslmode=require&application_name=two&options[search_path]=x").unwrap();
        for (parameters, named) in [
            ("sslmode=require&passwort=hunter2", "passwort"),
            ("connect_timeout=hunter2", "connect_timeout"),
            ("hunter2@host/db", "not shown"),
        ] {
            let error = refusal(parameters).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for url in ["postgres", "postgres://me:hunter2@host:port/db", "postgres://hunter2@:x"] {
            let error = Hosts::parse(&url.into()).unwrap_err();
            assert!(matches!(error, StoreError::Unsupported(_)));
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
