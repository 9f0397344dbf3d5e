//! The servers that webhooks are sent to, started each in a folder of its own.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::Process;
use crate::rig::{API_KEY, APP_SECRET, DATASET};

/// Something that takes webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Candidate {
    /// A route that reads the body and answers 200.
    NoOp,
    /// One that also checks the signature and reads the leads.
    Verify,
    /// One that also appends to a log and flushes it.
    Wal,
    /// The program.
    Leadloop,
    /// The program while Meta is away, so that it sends nothing.
    Undelivered,
    /// What people write by hand.
    FastApi,
    /// Debian's `webhook`, which runs a program for each delivery.
    Webhook,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoOp => "no-op route",
            Self::Verify => "verify and parse",
            Self::Wal => "raw WAL",
            Self::Leadloop => "leadloop",
            Self::Undelivered => "leadloop, nothing delivered",
            Self::FastApi => "FastAPI and SQLite",
            Self::Webhook => "Debian's webhook",
        })
    }
}

/// A server that runs until this is dropped, which also removes its folder.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
}

impl Server {
    /// What listens at an address, which it was told.
    pub(crate) async fn start(
        command: &mut Command,
        address: SocketAddr,
        folder: TempDir,
    ) -> anyhow::Result<Self> {
        let mut process = Process::start(command, folder.path().join("log"))?;
        process.listens(address).await?;
        Ok(Self { process, address, folder })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks it to stop, and waits; the folder stays until the answer is dropped.
    pub(crate) async fn stop(self) -> anyhow::Result<TempDir> {
        self.process.stop().await?;
        Ok(self.folder)
    }
}

/// Where leadloop's file is in a folder.
pub(crate) fn store_in(folder: &Path) -> PathBuf {
    folder.join("leadloop.redb")
}

/// The program on a store, sending to a stand-in for Meta.
pub(crate) fn leadloop(address: SocketAddr, store: &str, meta: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leadloop"));
    command.arg("serve").env_clear().envs([
        ("META_APP_SECRET", APP_SECRET),
        ("META_VERIFY_TOKEN", "verify-token"),
        ("META_DATASET_ID", DATASET),
        ("META_ACCESS_TOKEN", "access-token"),
        ("META_GRAPH_URL", meta),
        ("CRM_NAME", "CRM"),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_LISTEN", &address.to_string()),
        ("LEADLOOP_STORE", store),
    ]);
    command
}

/// This program as one of its own servers.
pub(crate) fn baseline(name: &str, address: SocketAddr) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).arg("--listen").arg(address.to_string());
    Ok(command)
}
