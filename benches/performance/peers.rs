//! What others would put in leadloop's place: written by hand, or taken from a distribution.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::process::said;
use crate::rig::APP_SECRET;

/// Where the sources of the peers are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
/// What the one written by hand needs.
const PACKAGES: [&str; 2] = ["fastapi", "uvicorn[standard]"];

/// An interpreter that has what the peer in Python needs, made once.
///
/// # Errors
/// If there is no Python, or the packages can't be had.
pub(crate) fn python(directory: &Path) -> anyhow::Result<PathBuf> {
    let folder = directory.join("performance-python");
    let python = folder.join("bin/python");
    if said(Command::new(&python).args(["-c", "import fastapi, uvicorn"])).is_ok() {
        return Ok(python);
    }
    said(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut install = Command::new(&python);
    said(install.args(["-m", "pip", "install", "--quiet", "--timeout", "30"]).args(PACKAGES))?;
    Ok(python)
}

/// The one written by hand, with one worker, as `SQLite` has one writer.
pub(crate) fn fastapi(python: &Path, address: SocketAddr, folder: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-m", "uvicorn", "fastapi_sqlite:app", "--no-access-log", "--log-level", "warning"])
        .args(["--app-dir", SOURCES, "--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .env("APP_SECRET", APP_SECRET)
        .env("DATABASE", folder.join("leads.sqlite"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Debian's `webhook`, which runs a script that appends and flushes.
pub(crate) fn webhook(address: SocketAddr, folder: &Path) -> anyhow::Result<Command> {
    let script = folder.join("append");
    std::fs::copy(format!("{SOURCES}/append.sh"), &script)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let hooks = folder.join("hooks.json");
    let hook = json!([{
        "id": "meta",
        "execute-command": script,
        "command-working-directory": folder,
        // The answer is to come after the script.
        "include-command-output-in-response": true,
        "pass-arguments-to-command": [{"source": "entire-payload"}],
        "trigger-rule": {"match": {
            "type": "payload-hmac-sha256",
            "secret": APP_SECRET,
            "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
        }},
        "trigger-rule-mismatch-http-response-code": 401,
    }]);
    std::fs::write(&hooks, hook.to_string())?;
    let mut command = Command::new("webhook");
    command.arg("-hooks").arg(hooks).args(["-urlprefix", "webhooks"]);
    command.args(["-ip", &address.ip().to_string(), "-port", &address.port().to_string()]);
    Ok(command)
}

/// Whether Debian's `webhook` is installed.
pub(crate) fn has_webhook() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("webhook").is_file())
}

/// What is known of the versions, for the page.
pub(crate) fn versions(python: &Path) -> anyhow::Result<String> {
    let script = "import platform, sqlite3, importlib.metadata as m; print(\
                  f\"Python {platform.python_version()}, FastAPI {m.version('fastapi')}, \
                  uvicorn {m.version('uvicorn')}, SQLite {sqlite3.sqlite_version}\")";
    said(Command::new(python).args(["-c", script]))
}
