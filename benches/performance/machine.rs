//! What a figure was measured on, and of what.

use std::process::Command;

use leadloop::clock::{Clock, SystemClock, rfc3339};
use serde::{Deserialize, Serialize};

use crate::process::said;

/// What has to be known to measure a figure again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// The day, in UTC.
    pub(crate) date: String,
    /// Of the code; with `+` if there were changes to it that nobody had committed.
    pub(crate) commit: String,
    /// Cores, processor, kernel, file system, compiler.
    pub(crate) machine: String,
    pub(crate) command: String,
}

/// What a figure depends on; the page that shows it is written by the same run.
const CODE: [&str; 4] = ["src", "benches", "Cargo.toml", "Cargo.lock"];

impl Stamp {
    pub(crate) fn new(file_system: &str, command: String) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let compiler = said(Command::new("rustc").arg("--version")).unwrap_or_default();
        let version = compiler.split(' ').nth(1).unwrap_or("?").to_owned();
        let machine = format!(
            "{cores} cores of {}, Linux {}, {file_system}, rustc {version}",
            processor(),
            kernel.trim()
        );
        Self {
            date: rfc3339(SystemClock.now())[.."yyyy-mm-dd".len()].to_owned(),
            commit: commit(),
            machine,
            command,
        }
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        said(git.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments)).unwrap_or_default()
    };
    let changes = git(&[&["status", "--porcelain", "--"][..], &CODE].concat());
    let mark = if changes.is_empty() { "" } else { "+" };
    format!("{}{mark}", git(&["rev-parse", "--short", "HEAD"]))
}

fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|name| name.split_once(": ")).map_or("?", |(_, name)| name);
    name.trim().to_owned()
}
