//! The client of the server's API, for commands about live data.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::client::http_client;

/// Which server to ask, and with which key.
///
/// The key is `LEADLOOP_API_KEY` of the settings: an argument would be seen by everybody on the
/// machine.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// Where the server is
    #[arg(
        long,
        env = "LEADLOOP_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    server: String,
}

/// Which page of a list.
#[derive(Debug, clap::Args)]
pub(super) struct Paging {
    /// How many to list, 1 to 200; 50 by default
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u8>,
    /// Go on after the page that answered this `next_cursor`
    #[arg(long)]
    cursor: Option<String>,
}

impl Paging {
    /// The page as parameters of a query.
    pub(super) fn query(self) -> [(&'static str, Option<String>); 2] {
        [("limit", self.limit.map(|limit| limit.to_string())), ("cursor", self.cursor)]
    }
}

impl Server {
    /// The status of `/readyz`, if anybody answers.
    pub(super) async fn ready(&self) -> Option<u16> {
        let server = self.server.trim_end_matches('/');
        let response = http_client(server).ok()?.get(format!("{server}/readyz")).send().await;
        Some(response.ok()?.status().as_u16())
    }

    /// A client that holds the key.
    pub(super) fn client(&self, global: &Global) -> Result<Client, Failure> {
        let layers = layers(global)?;
        let key = layers.get("LEADLOOP_API_KEY").ok_or_else(|| {
            Failure::new(Exit::Config, "LEADLOOP_API_KEY: is missing: a key of the server's API")
        })?;
        self.client_with(key)
    }

    /// A client that holds this key.
    pub(super) fn client_with(&self, key: &str) -> Result<Client, Failure> {
        let server = self.server.trim_end_matches('/').to_owned();
        Ok(Client { http: http_client(&server)?, server, key: key.to_owned() })
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        &self.server
    }

    /// Asks for JSON, and prints it.
    pub(super) async fn print(
        &self,
        global: &Global,
        method: Method,
        path: &str,
        query: &[(&str, Option<String>)],
    ) -> Result<(), Failure> {
        let body = self.client(global)?.ask(method, path, query, None).await?;
        print(&format!("{body:#}\n"))
    }
}

/// A client of one server.
pub(super) struct Client {
    http: reqwest::Client,
    server: String,
    key: String,
}

impl Client {
    /// Asks for JSON; a problem is a failure with its code and words.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, Option<String>)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let query: Vec<_> =
            query.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        let request = self.request(method, path).query(&query);
        let request = body.into_iter().fold(request, RequestBuilder::json);
        let response = request.send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(problem(status, &body))
    }

    /// A request that shows the key.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server)).bearer_auth(&self.key)
    }
}

/// What the server says is wrong.
pub(super) fn problem(status: StatusCode, body: &Value) -> Failure {
    let detail = body["detail"].as_str().unwrap_or("the server's answer makes no sense");
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::SERVICE_UNAVAILABLE => Exit::Unavailable,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("{}: {detail}", body["code"].as_str().unwrap_or("error")))
}
