//! Programs that the benchmark starts; none outlives it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use crate::samples::real;

/// Longest that a program may take to listen, or to end in order.
const PATIENCE: Duration = Duration::from_mins(2);
const LOG_LINES_SHOWN: usize = 10;
/// Parts of a second that the kernel counts a program's time in, on every machine that it tells of.
const TICKS_PER_S: f64 = 100.0;

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// Memory of a program, in megabytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) resident_mb: f64,
    /// The most that it ever had.
    pub(crate) peak_mb: f64,
}

impl Process {
    /// Starts a program, with all that it says in a file.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let said = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = command.spawn();
        let child =
            child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Waits until it takes connections, and answers how long that took.
    pub(crate) async fn listens(&mut self, address: SocketAddr) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut pace = interval(Duration::from_millis(1));
        while started.elapsed() < PATIENCE {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once, {status}:\n{}", self.last_words());
            }
            pace.tick().await;
        }
        bail!("it does not listen:\n{}", self.last_words())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let status = timeout(PATIENCE, self.ended()).await.context("it does not stop")??;
        if status.success() { Ok(()) } else { Err(anyhow!("{status}:\n{}", self.last_words())) }
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut pace = interval(Duration::from_millis(5));
        loop {
            pace.tick().await;
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
        }
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Ok(Memory { resident_mb: self.memory_mb("VmRSS:")?, peak_mb: self.memory_mb("VmHWM:")? })
    }

    /// What of its memory is its own; the rest are pages of its file, which the kernel can take
    /// back.
    pub(crate) fn own_memory_mb(&self) -> anyhow::Result<f64> {
        self.memory_mb("RssAnon:")
    }

    fn memory_mb(&self, name: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.context("the kernel tells nothing of memory")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(real(kib) * 1_024.0 / 1e6)
    }

    /// How long cores have worked for it, in seconds.
    pub(crate) fn busy_s(&self) -> anyhow::Result<f64> {
        busy_s(&self.child.id().to_string())
    }

    fn last_words(&self) -> String {
        last_lines(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nobody to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long cores have worked for a program, in seconds; this one is `self`.
pub(crate) fn busy_s(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After its name, which may have blanks, come its state and ten other things.
    let (_, fields) = stat.rsplit_once(") ").context("the kernel tells nothing of time")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    Ok(real(ticks.sum::<Result<_, _>>()?) / TICKS_PER_S)
}

/// What a program that ends by itself says, if it succeeds.
pub(crate) fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| program.clone())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The end of a log, to explain a failure with.
pub(crate) fn last_lines(log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

/// An address of this machine that nobody listens at, for now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
