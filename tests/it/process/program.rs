//! The real program in a folder of its own, with nothing in its environment but what a test says.
//!
//! Every run logs at the level `debug`, and every run is seen not to log a secret.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_leadloop");
pub const APP_SECRET: &str = "process-app-secret";
pub const VERIFY_TOKEN: &str = "process-verify-token";
pub const ACCESS_TOKEN: &str = "process-access-token";
pub const API_KEY: &str = "process-api-key";
/// A plain value of a person's, which is no log's business either.
pub const EMAIL: &str = "erika.mustermann@example.com";
/// Longest that anything is waited for; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server needs, and a port that is free.
pub const SETTINGS: [(&str, &str); 6] = [
    ("META_APP_SECRET", APP_SECRET),
    ("META_VERIFY_TOKEN", VERIFY_TOKEN),
    ("META_DATASET_ID", "700"),
    ("META_ACCESS_TOKEN", ACCESS_TOKEN),
    ("CRM_NAME", "Process CRM"),
    ("LEADLOOP_LISTEN", "127.0.0.1:0"),
];

/// The settings, without some and with others.
pub fn settings<'a>(
    without: &[&str],
    with: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<(&'a str, &'a str)> {
    let kept = SETTINGS.into_iter().filter(|(name, _)| !without.contains(name));
    kept.chain(with).collect()
}

/// A folder to run the program in.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Program {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().env("LEADLOOP_LOG", "debug");
        command.envs(environment.iter().copied()).current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Output::read(child.stdout.take().unwrap());
        let stderr = Output::read(child.stderr.take().unwrap());
        let secrets = [APP_SECRET, VERIFY_TOKEN, ACCESS_TOKEN, API_KEY, EMAIL, "sandbox-"];
        let secrets = secrets.into_iter().map(str::to_owned).collect();
        Program { child, stdout, stderr, secrets }
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.start(arguments, environment).ended().await
    }

    /// Starts a server, and waits until it listens.
    pub async fn serve(&self, environment: &[(&str, &str)]) -> Server {
        let program = self.start(&["serve"], environment);
        let log = program.stderr.until(|text| line_with(text, "listening").is_some()).await;
        let address = between(line_with(&log, "listening").unwrap(), "address=", " ");
        Server { url: format!("http://{address}"), program }
    }

    /// Starts a stand-in for Meta, and waits until it listens.
    pub async fn sandbox(&self, environment: &[(&str, &str)]) -> Server {
        let program = self.start(&["sandbox", "--listen", "127.0.0.1:0"], environment);
        let said = program.stderr.until(|text| text.contains("META_GRAPH_URL")).await;
        let url = between(&said, "The stand-in for Meta is at ", ";").to_owned();
        Server { url, program }
    }
}

/// A running program; it is killed, if need be, when this is dropped.
pub struct Program {
    child: Child,
    pub stdout: Output,
    pub stderr: Output,
    secrets: BTreeSet<String>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// From now on this must not be in the log.
    pub fn keep_secret(&mut self, secret: &str) {
        self.secrets.insert(secret.to_owned());
    }

    /// Asks it to stop, as an operating system does.
    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Ends it without a warning, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> Ended {
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        let ending = async {
            loop {
                interval.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
            }
        };
        let status: ExitStatus = within(ending).await;
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already; then there is nobody to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.stderr.rest();
        if std::thread::panicking() {
            eprintln!("stdout:\n{}\nstderr:\n{log}", self.stdout.rest());
            return;
        }
        for secret in &self.secrets {
            assert!(!log.contains(secret.as_str()), "{secret} is in the log:\n{log}");
        }
    }
}

/// What a program has written so far, read as it comes.
pub struct Output {
    text: Arc<watch::Sender<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn read(from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(watch::Sender::new(String::new()));
        let sender = text.clone();
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(from);
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap() > 0 {
                sender.send_modify(|text| text.push_str(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    /// Waits until the text is so, and answers with it.
    pub async fn until(&self, condition: impl FnMut(&String) -> bool) -> String {
        let mut text = self.text.subscribe();
        let waiting = tokio::time::timeout(PATIENCE, text.wait_for(condition)).await;
        let so_far = || self.text.borrow().clone();
        waiting.unwrap_or_else(|_| panic!("it is not said:\n{}", so_far())).unwrap().clone()
    }

    /// All of it, once the program has ended.
    fn rest(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text.borrow().clone()
    }
}

/// A program that listens.
pub struct Server {
    pub url: String,
    pub program: Program,
}

impl Server {
    /// Asks with a key, whatever the answer.
    pub async fn ask(&self, method: Method, path: &str, key: &str, body: &str) -> (u16, Value) {
        let client = leadloop::client::http_client(&self.url).unwrap();
        let request = client.request(method, format!("{}{path}", self.url)).bearer_auth(key);
        let response = within(request.body(body.to_owned()).send()).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// Looks up with a key.
    pub async fn get(&self, path: &str, key: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, key, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// A lead's timeline in lines such as `qualified delivered`, once nothing in it is pending.
    pub async fn settled_timeline(&self, lead_id: &str, key: &str) -> Vec<String> {
        let path = format!("/v1/leads/{lead_id}");
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        let asking = async {
            loop {
                interval.tick().await;
                let timeline = timeline(&self.get(&path, key).await);
                if timeline.iter().all(|line| !line.ends_with("pending")) {
                    return timeline;
                }
            }
        };
        within(asking).await
    }

    /// Asks it to stop, and sees that it did so in order and in time.
    pub async fn stop(self) -> Ended {
        self.program.terminate();
        let started = tokio::time::Instant::now();
        let ended = self.program.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{ended:?}");
        ended
    }
}

fn timeline(lead: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let events = lead["events"].as_array().unwrap().iter();
    events.map(|event| format!("{} {}", text(&event["stage"]), text(&event["state"]))).collect()
}

/// Waits, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub fn line_with<'t>(text: &'t str, part: &str) -> Option<&'t str> {
    text.lines().find(|line| line.contains(part))
}

pub fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no `{before}`: {text}"));
    rest.split(after).next().unwrap()
}

/// Whether a program that a test needs is on this machine. Where the tests must be complete, in CI,
/// it has to be.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    let advice = format!("{program} is not in PATH: apt-get install {program}");
    assert!(std::env::var_os("CI").is_none(), "{advice}");
    eprintln!("skipped: {advice}");
    false
}
